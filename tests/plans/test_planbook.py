"""The journal remembers what became of a plan, on either database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.journal import Journal
from reconciler.planbook import Carried, PlanBook


@pytest.fixture(params=["sqlite", "postgres"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    yield Journal.open(request.getfixturevalue("postgres") if request.param == "postgres" else url)


def test_a_plan_is_begun_once_and_finished(journal: Journal) -> None:
    book = PlanBook(journal)

    unknown = book.find("a" * 64)
    book.begin("a" * 64, "local", 1.0)
    PlanBook(journal).begin("a" * 64, "local", 2.0)
    begun = book.find("a" * 64)
    book.finish("a" * 64, 3.0)

    assert None is unknown
    assert Carried(1.0, None) == begun
    assert Carried(1.0, 3.0) == book.find("a" * 64)
    assert None is book.find("b" * 64)
