"""The ledger, on SQLite and on PostgreSQL: nothing is spent twice, overspent together, or forgotten."""

import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reconciler.cost import Estimate, Range
from reconciler.errors import Refused
from reconciler.intent import Claim, Intent
from reconciler.journal import Journal
from reconciler.kinds.project import BudgetSpec
from reconciler.money.budgets import Amount
from reconciler.money.expense import Actual
from reconciler.money.ledger import Bill, Ledger
from reconciler.money.pace import Like, Pace
from reconciler.money.work import Work
from reconciler.resource import Address

HERE, JOB = "local", Address("FineTuneJob", "support")
LIKE = Like(HERE, "FineTuneJob", "supervised", "tiny-chat", "full")
NOW = 1_795_600_000.0


def bill(usd: float | None, limit: float = 100, seconds: float = 60, **labels: str) -> Bill:
    spread = None if usd is None else Range(usd / 2, usd)
    work = Work(LIKE, Range(1000, 1000), "tiny-chat", Range(1000, 1000))
    return Bill(
        "demo", labels, work, Estimate(spread, Range(seconds, seconds), "counted"), [BudgetSpec(usd=limit)]
    )


def open_(journal: Journal, asked: Bill, fingerprint: str, doubted: Intent | None = None) -> Intent:
    """What a creator does before it asks."""
    claim = journal.claim(HERE, fingerprint, f"here:{threading.get_ident()}:1", NOW)
    assert isinstance(claim, Claim)
    try:
        intent = journal.open_intent(claim, JOB, NOW, doubted, asked.reserve)
    finally:
        journal.release(claim)
    assert intent is not None
    return intent


def amounts(journal: Journal) -> list[Amount]:
    return [line.entry.amount for line in Ledger(journal).lines("demo")]


def test_what_is_asked_for_is_reserved_with_its_intent(journal: Journal) -> None:
    open_(journal, bill(40, team="a"), "f" * 64)

    [line] = Ledger(journal).lines("demo")

    assert ("local", "FineTuneJob/support", {"team": "a"}, 40.0, None) == (
        line.platform, line.address, line.labels, line.entry.amount.usd, line.settled_at,
    )  # fmt: skip


def test_over_budget_no_intent_is_opened(journal: Journal) -> None:
    open_(journal, bill(60), "a" * 64)

    with pytest.raises(Refused, match=r"\$41.00, and of \$100.00 a month \$40.00 are left"):
        open_(journal, bill(41), "b" * 64)

    assert ["a" * 64] == list(journal.open_intents(HERE))
    assert [60.0] == [each.usd for each in amounts(journal)]


def test_an_intent_that_is_asked_for_again_is_reserved_once(journal: Journal) -> None:
    """Killed between the reservation and the create, or after it: the same intent goes on."""
    intent = open_(journal, bill(60), "a" * 64)

    again = open_(journal, bill(60), "a" * 64, doubted=intent)

    assert again.id == intent.id
    assert [60.0] == [each.usd for each in amounts(journal)]


@pytest.mark.parametrize("outcome", ["rejected", "busy", "unreachable"])
def test_what_was_definitely_not_made_costs_nothing(journal: Journal, outcome: str) -> None:
    intent = open_(journal, bill(60), "a" * 64)

    journal.close_intent(intent, outcome, NOW)

    assert [] == amounts(journal)
    open_(journal, bill(60), "a" * 64)
    assert [60.0] == [each.usd for each in amounts(journal)]


def test_what_finished_is_settled_once_and_teaches_how_long_it_takes(journal: Journal) -> None:
    intent, ledger = open_(journal, bill(60), "a" * 64), Ledger(journal)
    journal.close_intent(intent, "made", NOW, "ftjob-1")
    waiting = ledger.unsettled("demo", HERE)

    ledger.settle(waiting["ftjob-1"][0], Actual(12.5, 90.0, 990.0, None), NOW + 90)
    ledger.settle(waiting["ftjob-1"][0], Actual(99.0, 1.0), NOW + 91)

    assert {} == ledger.unsettled("demo", HERE)
    assert [(12.5, 90 / 3600)] == amounts(journal)
    assert [Pace(LIKE, 990.0, 90.0, None)] == ledger.paces(HERE)


def test_where_nobody_can_say_what_it_cost_the_reservation_stays_spent(journal: Journal) -> None:
    intent, ledger = open_(journal, bill(60), "a" * 64), Ledger(journal)
    journal.close_intent(intent, "made", NOW, "ftjob-1")

    ledger.settle(intent, Actual(None, 30.0, why="the platform does not say"), NOW)

    assert [(60.0, 30 / 3600)] == amounts(journal)
    assert ["the platform does not say"] == [line.why for line in ledger.lines("demo")]


def test_a_journal_without_a_ledger_has_nothing_to_tell(tmp_path: Path) -> None:
    Journal.at(tmp_path / "journal.db")
    peeked = Journal.peek(f"sqlite:///{tmp_path / 'journal.db'}")
    assert peeked is not None

    assert ([], []) == (Ledger(peeked).lines("demo"), Ledger(peeked).paces(HERE))


def test_many_at_once_never_overspend_together(url: str, journal: Journal) -> None:
    refused: list[str] = []
    start = threading.Barrier(8)

    def ask(number: int) -> None:
        own = Journal.open(url)
        start.wait()
        for turn in range(3):
            try:
                open_(own, bill(15), f"{number}{turn}".rjust(64, "0"))
            except Refused as error:
                refused.append(str(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 90.0 == sum(each.usd or 0 for each in amounts(journal))
    assert 6 == len(journal.open_intents(HERE))
    assert 18 == len(refused)


LIMIT = 100.0


class Histories(RuleBasedStateMachine):
    """
    Reservations, refusals, ends and kills in any order. The model knows what is owed at most: the reserved
    amount of all that may exist, and the actual one of what was settled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "journal.db"
        self.owed: dict[int, float] = {}  # by intent
        self.open: dict[int, tuple[Intent, float]] = {}
        self.made: dict[int, tuple[Intent, float]] = {}
        self.asked = 0

    @initialize()
    def start(self) -> None:
        self.restart()

    @rule()
    def restart(self) -> None:
        """A process was killed, and another one opens the same journal."""
        self.journal = Journal.at(self.path)
        self.ledger = Ledger(self.journal).keep()

    @rule(usd=st.integers(1, 60))
    def ask(self, usd: int) -> None:
        self.asked += 1
        fingerprint = f"{self.asked:064d}"
        left = LIMIT - sum(self.owed.values())
        try:
            intent = open_(self.journal, bill(usd, LIMIT), fingerprint)
        except Refused:
            assert usd > left - 1e-6
            return
        assert usd <= left + 1e-6
        self.owed[intent.id] = float(usd)
        self.open[intent.id] = (intent, float(usd))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        """A reply was lost, or the process was killed before or after its request."""
        intent, usd = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        self.restart()
        again = open_(self.journal, bill(usd, LIMIT), intent.fingerprint, doubted=intent)
        assert intent.id == again.id

    @precondition(lambda self: self.open)
    @rule(data=st.data(), outcome=st.sampled_from(["made", "rejected", "busy"]))
    def answer(self, data: st.DataObject, outcome: str) -> None:
        intent, usd = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        self.journal.close_intent(intent, outcome, NOW, f"object-{intent.id}" if outcome == "made" else None)
        if outcome == "made":
            self.made[intent.id] = (intent, usd)
        else:
            del self.owed[intent.id]

    @precondition(lambda self: self.made)
    @rule(data=st.data(), share=st.one_of(st.none(), st.floats(0, 1)))
    def finish(self, data: st.DataObject, share: float | None) -> None:
        intent, usd = self.made.pop(data.draw(st.sampled_from(sorted(self.made))))
        cost = None if share is None else usd * share
        waiting, _ = self.ledger.unsettled("demo", HERE)[f"object-{intent.id}"]
        self.ledger.settle(waiting, Actual(cost, 1.0, 10.0), NOW)
        self.owed[intent.id] = usd if cost is None else cost

    @invariant()
    def nothing_is_lost_and_the_budget_holds(self) -> None:
        if not self.path.exists():
            return
        known = sum(each.usd or 0 for each in amounts(self.journal))
        assert known == pytest.approx(sum(self.owed.values()))
        assert known <= LIMIT + 1e-6

    def teardown(self) -> None:
        self.folder.cleanup()


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
