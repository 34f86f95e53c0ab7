import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path += [
    str(TESTS / "core"),
    str(TESTS / "selfhosted"),
]  # the small tree, and stand-ins for engine and trainer

from core_base import Applier, Clock, write  # noqa: E402
from memory_platform import MemoryPlatform  # noqa: E402


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of manifests of every kind."""
    return write(tmp_path / "manifests")


@pytest.fixture
def platform() -> MemoryPlatform:
    return MemoryPlatform()


@pytest.fixture
def applier(tree: Path, platform: MemoryPlatform) -> Applier:
    return Applier(tree, platform, Clock())
