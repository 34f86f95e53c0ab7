"""A small tree of every kind, a platform in memory, somebody who applies one to the other, and their time."""

from pathlib import Path

import pytest
from core_base import Applier, Clock, write
from memory_platform import MemoryPlatform

__all__ = ["applier", "clock", "platform", "tree"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of manifests of every kind."""
    return write(tmp_path / "manifests")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def platform() -> MemoryPlatform:
    return MemoryPlatform()


@pytest.fixture
def applier(tree: Path, platform: MemoryPlatform, clock: Clock) -> Applier:
    return Applier(tree, platform, clock)
