"""What answers cost: tokens times a small table of prices. A model that is not in it has no known cost."""

import importlib.resources
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import yaml


class Price(NamedTuple):
    """USD per million tokens."""

    input: float
    output: float

    def of(self, usage: Mapping[str, Any]) -> float:
        """USD for these tokens."""
        asked, answered = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        return (asked * self.input + answered * self.output) / 1e6


@cache
def known() -> Mapping[str, Price]:
    """The package's own table."""
    text = importlib.resources.files("reconciler").joinpath("prices.yaml").read_text()
    return {name: Price(**price) for name, price in yaml.safe_load(text).items()}


def price(model: str, own: Mapping[str, Price]) -> Price | None:
    """The price whose name begins the model's and is longest; a rule's own come before the package's."""
    for table in (own, known()):
        fitting = [
            name for name in table if model == name or model.startswith((f"{name}-", f"{name}:", f"{name}@"))
        ]
        if fitting:
            return table[max(fitting, key=len)]
    return None
