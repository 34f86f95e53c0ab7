"""
Judging: measured results in, verdicts out. Pure.

A gate passes only when the whole interval is on the right side of its line, fails when the whole
interval is on the wrong side, and is inconclusive between. What is missing or errored counts against
the candidate: as a miss of its own, as a pass of the baseline.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from reconciler import intervals


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class ItemResult(NamedTuple):
    """One graded item. `score` is in the grader's own unit; both are None when the item errored."""

    passed: bool | None
    score: float | None


@dataclass(frozen=True)
class Measured:
    """All items of one run, by item id; `total` is how many there should be."""

    items: Mapping[str, ItemResult]
    total: int


class Rule(NamedTuple):
    """What a gate asks: one bound on one metric. `bound` is one of BOUNDS."""

    metric: str  # pass_rate | fail_rate | mean_score
    bound: str
    value: float


BOUNDS = ("at_least", "at_most", "improves_by", "not_worse_than")
MOST_ERRORS = 0.05  # a larger share of errored or missing items is not comparable


@dataclass(frozen=True)
class Judgement:
    """A verdict with the numbers it rests on. `low` and `high` bound `estimate` at the rule's confidence."""

    verdict: Verdict
    rule: Rule
    estimate: float
    low: float
    high: float
    n: int
    sentence: str
    gained: int = 0  # items the candidate passes and the baseline does not
    lost: int = 0


def judge(rule: Rule, candidate: Measured, baseline: Measured | None, confidence: float) -> Judgement:
    """One gate's verdict at a two-sided confidence. Pure."""
    bad = max(_errors(side) for side in (candidate, baseline) if side is not None)
    if not candidate.total or bad > MOST_ERRORS:
        what = f"not comparable: {bad:.0%} of the items errored or are missing, at most {MOST_ERRORS:.0%} may"
        return Judgement(Verdict.INCONCLUSIVE, rule, math.nan, math.nan, math.nan, candidate.total, what)
    if rule.bound in ("improves_by", "not_worse_than"):
        assert baseline is not None  # the manifest was refused otherwise
        return _compare(rule, candidate, baseline, confidence)
    return _absolute(rule, candidate, confidence)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """All gates together: fail over inconclusive over pass. Pure."""
    order = (Verdict.FAIL, Verdict.INCONCLUSIVE)
    return next((verdict for verdict in order if verdict in verdicts), Verdict.PASS)


def pass_rate(measured: Measured, confidence: float) -> tuple[float, float, float]:
    """Share of passed items, an errored one being a miss, with its Wilson interval. Pure."""
    passed = sum(1 for item in measured.items.values() if item.passed)
    return (passed / measured.total, *intervals.wilson(passed, measured.total, confidence))


def _absolute(rule: Rule, side: Measured, confidence: float) -> Judgement:
    if rule.metric == "mean_score":
        estimate, low, high = intervals.mean(_scores(side), confidence)
    else:
        estimate, low, high = pass_rate(side, confidence)
        if rule.metric == "fail_rate":
            estimate, low, high = 1 - estimate, 1 - high, 1 - low
    above = rule.bound == "at_least"
    verdict = (
        _verdict(low >= rule.value, high < rule.value)
        if above
        else _verdict(high <= rule.value, low > rule.value)
    )
    line = f"{'at least' if above else 'at most'} {_show(rule.value, rule)}"
    return _judgement(verdict, rule, estimate, low, high, side.total, line)


def _compare(rule: Rule, candidate: Measured, baseline: Measured, confidence: float) -> Judgement:
    ids = sorted(candidate.items.keys() | baseline.items.keys())
    margin = rule.value if rule.bound == "improves_by" else -rule.value
    gained = lost = 0
    if rule.metric == "mean_score":
        pairs = [
            (candidate.items[i].score, baseline.items[i].score)
            for i in ids
            if i in candidate.items and i in baseline.items
        ]
        differences = [a - b for a, b in pairs if a is not None and b is not None]
        estimate, low, high = intervals.mean(differences, confidence)
        n = len(differences)
    else:
        ours = [bool(candidate.items[i].passed) if i in candidate.items else False for i in ids]
        theirs = [baseline.items[i].passed is not False if i in baseline.items else True for i in ids]
        gained = sum(a and not b for a, b in zip(ours, theirs, strict=True))
        lost = sum(b and not a for a, b in zip(ours, theirs, strict=True))
        n = len(ids)
        estimate = (gained - lost) / n
        low, high = intervals.tango(gained, lost, n, confidence)
    verdict = _verdict(low > margin if rule.bound == "improves_by" else low >= margin, high < margin)
    asked = "better by more than" if rule.bound == "improves_by" else "not worse by more than"
    line = f"{asked} {_show(rule.value, rule)}"
    return _judgement(verdict, rule, estimate, low, high, n, line, gained, lost)


def _verdict(passes: bool, fails: bool) -> Verdict:
    return Verdict.PASS if passes else Verdict.FAIL if fails else Verdict.INCONCLUSIVE


def _judgement(
    verdict: Verdict,
    rule: Rule,
    estimate: float,
    low: float,
    high: float,
    n: int,
    line: str,
    gained: int = 0,
    lost: int = 0,
) -> Judgement:
    said = f"{rule.metric} {_show(estimate, rule)} [{_show(low, rule)}, {_show(high, rule)}], n={n}; wanted {line}"
    if gained or lost:
        said += f"; {gained} items gained, {lost} lost"
    if verdict is Verdict.INCONCLUSIVE and (
        more := intervals.more_items(estimate, low, high, _line(rule), n)
    ):
        said += f"; about {more} more items would tell"
    return Judgement(verdict, rule, estimate, low, high, n, said, gained, lost)


def _line(rule: Rule) -> float:
    return -rule.value if rule.bound == "not_worse_than" else rule.value


def _show(value: float, rule: Rule) -> str:
    return f"{value:.3f}" if rule.metric == "mean_score" else f"{value:.1%}"


def _scores(side: Measured) -> list[float]:
    return [0.0 if item.score is None else item.score for item in side.items.values()]


def _errors(side: Measured) -> float:
    if not side.total:
        return 0.0
    fine = sum(1 for item in side.items.values() if item.passed is not None)
    return 1 - fine / side.total
