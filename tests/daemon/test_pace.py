"""A platform is asked no faster than it likes, by all who use it; and what fails is asked for less and less often."""

from typing import Any

import pytest
from core_base import Clock
from memory_platform import MemoryPlatform, raises

from reconciler.backoff import backoff, jittered
from reconciler.daemon.pace import Bucket, Paced, shape
from reconciler.errors import Busy, Rejected, Unclear


def paced(
    platform: MemoryPlatform, clock: Clock, rate: float | None = None, burst: int = 2
) -> tuple[Paced, list[Any]]:
    told: list[Any] = []
    bucket = Bucket(rate, clock.now, clock.sleep, burst)
    return Paced(platform, bucket, lambda *each: told.append(each[:3]), clock.now), told


def test_a_few_calls_may_come_at_once_and_the_rest_wait_their_turn(
    platform: MemoryPlatform, clock: Clock
) -> None:
    asked, _ = paced(platform, clock, rate=2.0)
    began = clock.at

    for _ in range(6):
        asked.list("files")

    assert [0.5] * 4 == pytest.approx(clock.slept)
    assert began + 2.0 == pytest.approx(clock.at)


def test_a_pause_fills_the_bucket_up_and_no_further(platform: MemoryPlatform, clock: Clock) -> None:
    asked, _ = paced(platform, clock, rate=2.0)
    for _ in range(2):
        asked.list("files")
    clock.at += 1000

    for _ in range(3):
        asked.list("files")

    assert [0.5] == pytest.approx(clock.slept)


def test_without_a_rate_nobody_waits(platform: MemoryPlatform, clock: Clock) -> None:
    asked, _ = paced(platform, clock)

    for _ in range(100):
        asked.list("files")

    assert [] == clock.slept


def test_what_a_platform_asks_for_holds_for_everybody(platform: MemoryPlatform, clock: Clock) -> None:
    platform.faults = {"evals": [raises(Busy("429", 7.0))]}
    asked, _ = paced(platform, clock)
    with pytest.raises(Busy):
        asked.create("evals", {}, key="k")

    with pytest.raises(Busy, match="memory asked to be left alone for 7 s more") as told:
        asked.list("files")
    clock.at += 7.0

    assert 7.0 == told.value.retry_after
    assert [] == asked.list("files")


def test_every_call_and_its_outcome_is_told(platform: MemoryPlatform, clock: Clock) -> None:
    platform.faults = {"evals": [raises(Unclear("reset")), raises(Rejected("no"))]}
    asked, told = paced(platform, clock)
    asked.list("fine_tuning/jobs")
    for _ in range(2):
        with pytest.raises((Unclear, Rejected)):
            asked.create("evals", {}, key="k")

    assert [
        ("list", "fine_tuning/jobs", "done"), ("create", "evals", "unclear"), ("create", "evals", "rejected")
    ] == told  # fmt: skip


@pytest.mark.parametrize(
    "collection, expected",
    [
        ("files", "files"),
        ("fine_tuning/jobs", "fine_tuning/jobs"),
        ("fine_tuning/jobs/ftjob-1/cancel", "fine_tuning/jobs/*/cancel"),
        ("evals/eval_1/runs/run_1/output_items", "evals/*/runs/*/output_items"),
        ("reconciler/aliases", "reconciler/aliases"),
    ],
)
def test_a_label_has_no_ids(collection: str, expected: str) -> None:
    assert expected == shape(collection)


def test_pauses_double_up_to_an_end_and_chance_takes_up_to_half() -> None:
    assert [1, 2, 4, 8, 300] == [backoff(n, 0.0) for n in (1, 2, 3, 4, 2000)]
    assert [0.5, 0.75] == [backoff(1, chance) for chance in (1.0, 0.5)]
    assert [54.0, 60.0, 66.0] == pytest.approx([jittered(60.0, chance) for chance in (0.0, 0.5, 1.0)])
