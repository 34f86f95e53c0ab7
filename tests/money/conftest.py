import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "core"), str(TESTS / "selfhosted")]  # trees, platforms and servers that are shared

from core_fixtures import say  # noqa: E402, F401

from reconciler.journal import Journal, claims, history, intents, memory  # noqa: E402
from reconciler.money.ledger import Ledger, spending  # noqa: E402


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database for a journal."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    return str(request.getfixturevalue("postgres"))


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    """An empty journal with a ledger."""
    opened = Journal.open(url)
    Ledger(opened).keep()
    with opened.write() as db:
        for table in (intents, claims, memory, history, spending):
            db.execute(table.delete())
    yield opened
