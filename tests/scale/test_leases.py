"""A claim outlives its holder by a lease, and nobody who lost it pays, or says how it ended."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from core_base import Applier, Clock, write
from memory_platform import PLAIN, MemoryPlatform, raises

from reconciler import creation
from reconciler.creation import Deferred, Made
from reconciler.errors import Busy
from reconciler.intent import LEASE, Claim, Held, Intent
from reconciler.journal import Journal
from reconciler.kind import Ask
from reconciler.platforms.exchange import Deadlines
from reconciler.resource import Address, Wanted
from reconciler.world import Object

JOBS = "fine_tuning/jobs"
TUNED = Address("FineTuneJob", "tuned")
FAIL_OVER = 20.0  # seconds that another host may take to go on


class HeldUp(Journal):
    """A journal whose owner is stopped right after its intent was made durable."""

    sleeps: Callable[[], None] = staticmethod(lambda: None)

    def open_intent(self, *arguments: object, **named: object) -> Intent | None:
        found = super().open_intent(*arguments, **named)  # type: ignore[arg-type]
        self.sleeps()
        return found


class Two:
    """Two hosts that want one job, of the same journal and platform."""

    def __init__(self, root: Path, url: str | None) -> None:
        self.clock, self.platform = Clock(), MemoryPlatform(capabilities=PLAIN)
        tree = write(root / "manifests")
        self.first, self.second = (Applier(tree, self.platform, self.clock, f"{host}:1:1") for host in "ab")
        self.journal = HeldUp.open(url or f"sqlite:///{tree / '.reconciler' / 'journal.db'}")
        self.job: Wanted = self.first.desired[TUNED]

    def asks(self, who: Applier) -> object:
        """What comes of one try, after a fresh look at what stands."""
        tokens, intents = self.journal.tokens("memory"), self.journal.open_intents("memory")
        stands = self.platform.list(JOBS)
        if stands:
            return stands[0]["id"]
        who.creator.__dict__["journal"] = self.journal
        print_ = self.job.fingerprint
        return who.creator.make(self.job, Ask(JOBS, {}), intents.get(print_), tokens.get(print_, 0))


@pytest.fixture(params=["sqlite", "postgresql"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Two:
    url = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    two = Two(tmp_path, url)
    if url:
        with two.journal.write() as db:
            for table in ("claims", "intents", "history"):
                db.exec_driver_sql(f"DELETE FROM {table}")
    return two


def claimed(two: Two, holder: str) -> Claim | Held:
    return two.journal.claim("memory", two.job.fingerprint, holder, two.clock.now())


def test_another_host_goes_on_soon_after_a_holder_died(two: Two) -> None:
    assert isinstance(claimed(two, "a:1:1"), Claim)

    ends = [two.asks(two.second)]
    while not isinstance(ends[-1], Made):
        two.clock.sleep(1.0)
        ends.append(two.asks(two.second))

    assert "being made by a:1" == getattr(ends[0], "why", "")
    assert len(ends) < FAIL_OVER
    assert 1 == two.platform.count(JOBS)


def test_a_paused_holder_that_wakes_before_it_asked_does_not_ask(two: Two) -> None:
    asked: list[object] = []

    def stopped() -> None:
        two.clock.sleep(LEASE + 1)
        two.journal.sleeps = lambda: None  # type: ignore[method-assign]
        asked.append(two.asks(two.second))
        two.clock.sleep(creation.WINDOW)
        asked.extend(two.asks(two.second) for _ in range(2))

    two.journal.sleeps = stopped  # type: ignore[method-assign]
    woken = two.asks(two.first)

    # it looks whether the sleeper asked, and once more when it has taken the claim over
    assert [Deferred, Deferred, Made] == [type(each) for each in asked]
    assert isinstance(woken, Deferred)
    assert 1 == two.platform.count(JOBS)


def test_a_paused_holder_that_wakes_before_anybody_noticed_leaves_nothing_in_doubt(two: Two) -> None:
    two.journal.sleeps = lambda: two.clock.sleep(LEASE)  # type: ignore[method-assign]
    woken = two.asks(two.first)
    two.journal.sleeps = lambda: None  # type: ignore[method-assign]

    assert isinstance(woken, Deferred)
    assert {} == two.journal.open_intents("memory")
    assert isinstance(two.asks(two.first), Made)
    assert 1 == two.platform.count(JOBS)


def test_who_lost_its_claim_does_not_say_that_nothing_is_in_flight(two: Two) -> None:
    def overtaken(platform: MemoryPlatform, effect: Callable[[], Object]) -> Object:
        two.clock.sleep(LEASE + 1)
        assert isinstance(claimed(two, "b:1:1"), Claim)  # who may ask under the same intent
        raise Busy("429", 1.0)

    two.platform.faults = {JOBS: [overtaken]}

    two.asks(two.first)

    assert [two.job.fingerprint] == list(two.journal.open_intents("memory"))


def test_who_kept_its_claim_says_so(two: Two) -> None:
    two.platform.faults = {JOBS: [raises(Busy("429", 1.0))]}

    two.asks(two.first)

    assert {} == two.journal.open_intents("memory")


def test_a_live_holder_keeps_its_claim_however_long_its_call_takes(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "LEASE", 0.03)  # seconds between renewals are a third of it
    renewed, enough, seen = 0, threading.Event(), []
    renew = two.journal.renew

    def counting(claim: Claim, now: float) -> None:
        nonlocal renewed
        renew(claim, now)
        renewed += 1
        two.clock.at += LEASE - 1
        seen.append(claimed(two, "b:1:1"))
        if renewed == 5:
            enough.set()

    def slow(platform: MemoryPlatform, effect: Callable[[], Object]) -> Object:
        assert enough.wait(60)
        return effect()

    two.journal.renew = counting  # type: ignore[method-assign]
    two.platform.faults = {JOBS: [slow]}

    assert isinstance(two.asks(two.first), Made)
    assert {Held} == {type(each) for each in seen}
    assert 0 == sum(thread.name == "claim" for thread in threading.enumerate())


def test_what_was_asked_for_has_arrived_before_anybody_asks_again() -> None:
    """A call may begin as late as a lease after its intent, and is given up in time."""
    assert Deadlines().total + LEASE <= creation.WINDOW
