import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("core", "selfhosted", "daemon")]

import pytest
from core_base import Clock
from core_fixtures import say  # noqa: F401
from own_base import Owner, Shop, owner


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def platform() -> Shop:
    return Shop()


@pytest.fixture
def demo(tmp_path: Path, platform: Shop, clock: Clock) -> Owner:
    """The project `demo`: all of it made, measured and released."""
    found = owner(tmp_path / "demo", platform, clock)
    found.done()
    return found
