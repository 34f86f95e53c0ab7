"""When a job will be done: within a quarter of the truth once a tenth of its steps are done."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reconciler.selfhosted.training.pace import Kind, Pace, seconds_left, usual
from reconciler.selfhosted.tuning.jobfolder import News

Steps = Sequence[tuple[Kind, float]]
RECORDED = json.loads((Path(__file__).parent / "step_times.json").read_text())
QUARTER = 0.25


def told(steps: Steps, guess: float) -> Iterator[tuple[int, float, float]]:
    """From the first tenth of the steps on: the step, the seconds that were told to be left, and those that were."""
    pace = Pace(Counter(kind for kind, _ in steps), guess)
    for number, (kind, seconds) in enumerate(steps, start=1):
        pace.took(kind, seconds)
        if number >= math.ceil(len(steps) / 10):
            yield number, pace.left(), sum(seconds for _, seconds in steps[number:])


@pytest.mark.parametrize("method", ["sft", "vision", "dpo", "rft"])
def test_the_examples_of_every_method_end_when_it_was_told(method: str) -> None:
    # Recorded while others used the same two cores, so they hold more surprises than a job should.
    steps, guess = RECORDED[method]["steps"], RECORDED[method]["guess"]
    whole = sum(seconds for _, seconds in steps)

    (_, first, left), *later = told(steps, guess)

    assert left * QUARTER > abs(first - left)
    assert [] == [step for step, told, left in later if abs(told - left) > whole * QUARTER]


def job(
    count: int,
    *,
    first: float = 1.0,
    glance: float = 1.5,
    whole: float = 9.0,
    each: float = 1.0,
    hiccup: int = 0,
) -> list[tuple[Kind, float]]:
    """Three epochs of one-second steps; each step takes `each` times what the one before took."""
    steps: list[tuple[Kind, float]] = []
    for number in range(1, count + 1):
        kind: Kind = "whole" if number % (count // 3) == 0 else "glance" if number % 10 == 0 else "plain"
        beside = {"plain": 0.0, "glance": glance - 1, "whole": whole - 1}[kind]
        steps.append((kind, each**number + beside + (20.0 if number == hiccup else 0.0)))
    steps[0] = (steps[0][0], first)
    return steps


@pytest.mark.parametrize(
    "steps",
    [
        job(60),
        job(60, first=40.0),
        job(600, first=90.0, whole=31.0),
        job(300, each=1.001),
        job(300, each=0.999),
        job(300, hiccup=20),
        job(30, first=12.0, whole=7.0),
    ],
    ids=["plain", "slow start", "costly validation", "slower", "faster", "hiccup", "short"],
)
def test_from_the_first_tenth_on_what_is_left_is_told_within_a_quarter(steps: Steps) -> None:
    costly = max(seconds for kind, seconds in steps if kind == "whole")
    for step, told_left, left in told(steps, guess=0.8 * costly):  # the guess need not be right
        if step < 0.9 * len(steps):
            assert left == pytest.approx(told_left, rel=QUARTER), step


def test_a_validation_that_was_seen_is_guessed_no_more() -> None:
    ahead: dict[Kind, int] = {"plain": 0, "glance": 0, "whole": 1}

    assert 11.0 == seconds_left(ahead, {"plain": [1.0]}, first=30.0, guess=10.0)
    assert 4.0 == seconds_left(ahead, {"plain": [1.0], "whole": [4.0]}, first=30.0, guess=10.0)


def test_the_first_step_counts_only_while_there_is_no_other() -> None:
    ahead: dict[Kind, int] = {"plain": 2, "glance": 0, "whole": 0}

    assert 60.0 == seconds_left(ahead, {}, first=30.0, guess=0.0)
    assert 2.0 == seconds_left(ahead, {"plain": [1.0]}, first=30.0, guess=0.0)


def test_saving_belongs_to_the_step_that_is_saved() -> None:
    pace = Pace({"plain": 4, "glance": 0, "whole": 0}, guess=0.0)
    for seconds in (9.0, 1.0, 1.0):
        pace.took("plain", seconds)

    pace.longer("plain", 1.0)

    assert 1.5 == pace.left()  # one step is ahead: 1 second usually, 2 when it is saved


def test_extremes_do_not_set_the_pace() -> None:
    assert 1.25 == usual([1.0, 1.0, 1.0, 500.0])


def test_the_finish_counts_from_when_it_was_told_not_from_when_it_was_read() -> None:
    event = {"key": "step-1", "message": "", "type": "metrics", "data": {"eta_s": 60.4}, "at": 1000.0}

    changes = News([event], [], 0, 0).job_changes("running", now=1030.0)

    assert {"status": "running", "estimated_finish": 1060} == changes
