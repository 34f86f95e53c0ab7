"""
What a model folder says about itself, without reading its weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def adapter_config(folder: Path) -> dict[str, Any]:
    """PEFT's settings of an adapter. Raises ValueError when they are no JSON object."""
    config = json.loads((folder / "adapter_config.json").read_bytes())
    if not isinstance(config, dict):
        raise ValueError("its adapter_config.json is no object")
    return config


def base_folder(adapter: Path, named: str | None) -> Path:
    """
    The folder of an adapter's base: what its reconciler.json says, else its adapter_config.json.

    A relative path is looked for upwards from the adapter, because a data folder may be moved as a whole.
    Raises ValueError when there is none.
    """
    note = adapter / "reconciler.json"
    base = (json.loads(note.read_bytes()).get("base") if note.is_file() else None) or named
    if not base:
        raise ValueError("it names no base model; put its folder under `base` in reconciler.json")
    for start in (adapter, *adapter.parents):
        if (start / base / "config.json").is_file():
            return (start / base).resolve()
    raise ValueError(f"its base model {base} is not there")
