"""
What tokens and hours cost: a small table, by the beginning of a model's name.

A project's own prices come before the package's, a rule's before both. A model that is in none of them
has no known price, which is never taken for zero.
"""

import importlib.resources
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import yaml


class Price(NamedTuple):
    """USD per million tokens; `training_hour` in USD per hour of training, where it is sold so."""

    input: float
    output: float
    cached: float | None = None  # of input tokens that were read before; as all others where it is not said
    training: float | None = None
    training_hour: float | None = None

    def of(self, usage: Mapping[str, Any]) -> float:
        """USD for these tokens."""
        asked, answered = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        known = usage.get("prompt_tokens_details") or usage
        again = min(asked, known.get("cached_tokens") or 0)
        rate = self.input if self.cached is None else self.cached
        return ((asked - again) * self.input + again * rate + answered * self.output) / 1e6


class Book(NamedTuple):
    """The prices a project knows; `gpu_hour` in USD is what its own hardware costs."""

    own: Mapping[str, Price] = {}
    gpu_hour: float | None = None

    def price(self, model: str) -> Price | None:
        return price(model, self.own)


@cache
def known() -> Mapping[str, Price]:
    """The package's own table."""
    text = importlib.resources.files("reconciler").joinpath("prices.yaml").read_text()
    return {name: Price(**price) for name, price in yaml.safe_load(text).items()}


def price(model: str, *tables: Mapping[str, Price]) -> Price | None:
    """The price whose name begins the model's and is longest; of several tables the first, the package's last."""
    for table in (*tables, known()):
        fitting = [
            name for name in table if model == name or model.startswith((f"{name}-", f"{name}:", f"{name}@"))
        ]
        if fitting:
            return table[max(fitting, key=len)]
    return None
