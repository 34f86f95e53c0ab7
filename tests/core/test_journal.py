"""The journal, on SQLite and on a PostgreSQL that is started for it (and skipped, saying so, without one)."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.holder import me
from reconciler.intent import LEASE, Claim, Held
from reconciler.journal import Journal, claims, history, intents, memory
from reconciler.resource import Address, Wanted

HERE, JOB = "local", Address("FineTuneJob", "support")
ELSEWHERE = "another-host:1:1"  # a holder whose life we cannot look at


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    return str(request.getfixturevalue("postgres"))


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    opened = Journal.open(url)
    with opened.write() as db:
        for table in (intents, claims, memory, history):
            db.execute(table.delete())
    yield opened


def wanted(fingerprint: str, **content: object) -> Wanted:
    return Wanted(JOB, fingerprint, content, (), {}, {"row_digests": b"12345678"}, "a.yaml", 1)


def test_of_many_who_claim_at_once_one_gets_it(url: str, journal: Journal) -> None:
    found: list[Claim | Held] = []
    start = threading.Barrier(8)

    def claim(number: int) -> None:
        own = Journal.open(url)
        start.wait()
        found.append(own.claim(HERE, "f" * 64, f"another-host:{number}:1", 100.0))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 8 == len(found)
    assert 1 == sum(isinstance(each, Claim) for each in found)


def test_a_claim_is_held_until_its_lease_ends(journal: Journal) -> None:
    first = journal.claim(HERE, "f" * 64, ELSEWHERE, 100.0)

    early = journal.claim(HERE, "f" * 64, me(), 100.0 + LEASE - 1)
    late = journal.claim(HERE, "f" * 64, me(), 100.0 + LEASE + 1)

    assert isinstance(first, Claim)
    assert Held(ELSEWHERE, 100.0 + LEASE) == early
    assert isinstance(late, Claim) and late.token > first.token


def test_a_claim_of_a_dead_process_of_this_host_is_free_at_once(journal: Journal) -> None:
    host = me().partition(":")[0]
    journal.claim(HERE, "f" * 64, f"{host}:999999:1", 100.0)

    assert isinstance(journal.claim(HERE, "f" * 64, me(), 101.0), Claim)


def test_a_holder_that_slept_opens_no_intent(journal: Journal) -> None:
    slept = journal.claim(HERE, "f" * 64, ELSEWHERE, 100.0)
    awake = journal.claim(HERE, "f" * 64, me(), 100.0 + LEASE + 1)
    assert isinstance(slept, Claim) and isinstance(awake, Claim)

    assert journal.open_intent(slept, JOB, 200.0) is None
    assert journal.open_intent(awake, JOB, 200.0) is not None


def test_releasing_a_lost_claim_leaves_the_new_holder_alone(journal: Journal) -> None:
    slept = journal.claim(HERE, "f" * 64, ELSEWHERE, 100.0)
    journal.claim(HERE, "f" * 64, "third-host:1:1", 100.0 + LEASE + 1)
    assert isinstance(slept, Claim)

    journal.release(slept)

    assert isinstance(journal.claim(HERE, "f" * 64, me(), 100.0 + LEASE + 2), Held)


def test_an_intent_stays_open_until_it_is_closed(journal: Journal) -> None:
    claim = journal.claim(HERE, "f" * 64, me(), 100.0)
    assert isinstance(claim, Claim)
    intent = journal.open_intent(claim, JOB, 100.0)
    assert intent is not None

    assert {"f" * 64: intent} == journal.open_intents(HERE)
    assert {} == journal.open_intents("elsewhere")
    journal.close_intent(intent, "made", 101.0, "ftjob-1")

    assert {} == journal.open_intents(HERE)
    assert [("made", "ftjob-1")] == [(each["event"], each["id"]) for each in journal.events(JOB)]


def test_what_an_address_stood_for_is_remembered_once(journal: Journal) -> None:
    journal.remember(HERE, [wanted("a" * 64, seed=1)])
    journal.remember(HERE, [wanted("b" * 64, seed=2)])

    recalled = journal.recall(HERE)

    assert {str(JOB): "b" * 64} == journal.remembered(HERE)
    assert ({"seed": 2}, b"12345678") == (recalled[JOB].content, recalled[JOB].row_digests)


def test_peeking_makes_no_journal(tmp_path: Path) -> None:
    assert Journal.peek(f"sqlite:///{tmp_path / 'journal.db'}") is None
    assert [] == list(tmp_path.iterdir())


def test_a_renewed_claim_outlives_its_first_lease(journal: Journal) -> None:
    claim = journal.claim(HERE, "f" * 64, ELSEWHERE, 100.0)
    assert isinstance(claim, Claim)

    journal.renew(claim, 100.0 + LEASE - 1)

    assert isinstance(journal.claim(HERE, "f" * 64, me(), 100.0 + LEASE + 1), Held)
