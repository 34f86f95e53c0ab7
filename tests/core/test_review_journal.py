"""A journal holds the longest addresses that names can make."""

from pathlib import Path

import pytest

from reconciler.cost import NOTHING
from reconciler.intent import Claim
from reconciler.journal import Journal
from reconciler.kinds.project import BudgetSpec
from reconciler.money.ledger import Bill, Ledger
from reconciler.money.work import UNCOUNTED
from reconciler.ownbook import OwnBook
from reconciler.protection import Word
from reconciler.resource import Address, Wanted
from reconciler.subject import run_of

pytestmark = pytest.mark.slow
NAME = "n" * 63
LONGEST = run_of(f"Eval/{NAME}", f"Model/incumbent:ft:{'b' * 40}:org:{'s' * 64}:id+Prompt/{NAME}", 12)


@pytest.fixture(params=["sqlite", "postgres"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    if request.param == "sqlite":
        return Journal.at(tmp_path / "journal.db")
    return Journal.open(str(request.getfixturevalue("postgres")))


def test_the_longest_address_is_asked_for_paid_for_remembered_and_protected(journal: Journal) -> None:
    ledger, print_ = Ledger(journal).keep(), "f" * 64
    bill = Bill("demo", {}, UNCOUNTED, NOTHING, [BudgetSpec(usd=1)])
    wanted = Wanted(LONGEST, print_, {}, (), {}, {}, "x.yaml", 1)
    claim = journal.claim("local", print_, "here:1:1", 0.0)
    assert isinstance(claim, Claim)

    journal.open_intent(claim, LONGEST, 0.0, None, bill.reserve)
    journal.remember("local", [wanted])
    journal.record(0.0, "local", LONGEST, "seen", {})
    OwnBook(journal).speak("local", {str(LONGEST): Word(print_, True)})

    assert len(str(LONGEST)) > 200
    assert [str(LONGEST)] == [line.address for line in ledger.lines("demo")]
    assert LONGEST in journal.recall("local")
    assert 1 == len(journal.events(LONGEST))
    assert Address.parse(str(LONGEST)) == LONGEST
