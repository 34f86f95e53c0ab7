import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# the platform in memory and the tree of every kind, and a daemon as a process of its own
sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("core", "daemon")]

from memory_server import MemoryServer


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    """A platform on a real port, which cannot tell a repeated request from a new one."""
    with MemoryServer().running() as running:
        yield running
