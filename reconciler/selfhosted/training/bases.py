"""
The model folder a job starts from: where its weights are, and what it recommends.

A base may itself be an adapter. Tuning it further with LoRA goes on with the same adapter (so a chain of
jobs stays one adapter on one base, and keeps the rank of its first job); full tuning merges the adapter
first. Adapters are never stacked. Only safetensors count as weights. Free of torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from reconciler.selfhosted.training.failures import Failure


class Rates(BaseModel):
    full: float = 2e-5
    lora: float = 2e-4


class Defaults(BaseModel):
    """What a model folder recommends; these are the values for a folder that recommends nothing."""

    learning_rate: Rates = Rates()
    max_length: int = 4096  # tokens
    batch_size: int = 8


class _About(BaseModel):
    """A model folder's `reconciler.json`."""

    model_config = ConfigDict(extra="allow")

    base: str | None = None
    defaults: Defaults | None = None


@dataclass(frozen=True)
class Base:
    """`weights` holds the whole model, `adapter` what is put on top; `tokens` has tokenizer and template."""

    weights: Path
    adapter: Path | None
    defaults: Defaults = field(default_factory=Defaults)
    sees: bool = False  # pictures, not text alone

    @property
    def tokens(self) -> Path:
        return self.adapter or self.weights

    def about(self, *, adapter: bool) -> dict[str, Any]:
        """The `reconciler.json` of a model tuned from this one."""
        told: dict[str, Any] = {"defaults": self.defaults.model_dump()}
        return {"base": str(self.weights), **told} if adapter else told


def find(folder: Path) -> Base:
    """The base in this folder. Failure `invalid_model` when there is nothing to train."""
    if not folder.is_dir():
        raise _unusable("its folder is missing; register the model again")
    about = _about(folder)
    defaults = about.defaults or Defaults()
    if not (folder / "adapter_config.json").exists():
        _need_weights(folder, "config.json")
        return Base(folder, None, defaults, _sees(folder))
    _need_weights(folder, "adapter_config.json")
    if about.base is None:
        raise _unusable("it is an adapter and its reconciler.json names no base")
    weights = _upward(folder, Path(about.base))
    _need_weights(weights, "config.json")
    return Base(weights, folder, about.defaults or _about(weights).defaults or Defaults(), _sees(weights))


def _about(folder: Path) -> _About:
    path = folder / "reconciler.json"
    if not path.exists():
        return _About()
    try:
        return _About.model_validate_json(path.read_bytes())
    except ValidationError:
        raise _unusable("its reconciler.json is not valid") from None


def _upward(folder: Path, path: Path) -> Path:
    """A relative path is meant from the data folder, which is some folder above this one."""
    found = next((above / path for above in folder.resolve().parents if (above / path).is_dir()), None)
    if found is None:
        raise _unusable("the base of its adapter is missing")
    return found


def _sees(folder: Path) -> bool:
    return "vision_config" in json.loads((folder / "config.json").read_bytes())


def _need_weights(folder: Path, config: str) -> None:
    if not (folder / config).is_file():
        raise _unusable(f"its folder has no {config}")
    try:
        json.loads((folder / config).read_bytes())
    except ValueError:
        raise _unusable(f"its {config} is not JSON") from None
    if not any(folder.glob("*.safetensors")):
        raise _unusable("its folder has no weights in safetensors")


def _unusable(why: str) -> Failure:
    return Failure("invalid_model", f"the base model cannot be trained: {why}")
