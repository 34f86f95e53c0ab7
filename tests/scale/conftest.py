import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "core"))  # the platform in memory and the tree of every kind

from memory_server import MemoryServer


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    """A platform on a real port, which cannot tell a repeated request from a new one."""
    with MemoryServer().running() as running:
        yield running
