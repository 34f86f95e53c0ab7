"""What the core's tests use: a small tree, a platform in memory, a clock that tests own."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("core", "selfhosted")]

import pytest
from core_base import Applier, Clock, write
from memory_platform import MemoryPlatform


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
