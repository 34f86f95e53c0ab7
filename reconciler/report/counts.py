"""
Numbers for readers: rates with Wilson intervals, slices, flips, percentiles. Pure.

Verdicts rest on the exact intervals of the gates; these are for looking around, so they need not be
conservative, and nothing is decided by them.
"""

import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

from reconciler.report.values import ERROR, PASS, Item, Run

MOST_VALUES = 12  # distinct values of a field that is worth slicing by
MOST_SLICES = 8  # fields


class Rate(NamedTuple):
    """Passed of n, with its 95 % interval; errors are among those that did not pass."""

    passed: int
    n: int
    low: float
    high: float
    errored: int = 0
    mean: float | None = None  # of the scores

    @property
    def value(self) -> float:
        return self.passed / self.n if self.n else math.nan


class Slice(NamedTuple):
    """The items that have one value in one field."""

    value: str
    rate: Rate


class Flip(NamedTuple):
    """One item that only one of the two passes."""

    before: Item
    after: Item

    @property
    def gained(self) -> bool:
        return self.after.status == PASS


def wilson(passed: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927). `n` 0 gives (0, 1)."""
    if not n:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, size = passed / n, n + z * z
    centre = (passed + z * z / 2) / size
    half = z / size * math.sqrt(n * share * (1 - share) + z * z / 4)
    return (0.0 if passed <= 0 else max(0.0, centre - half)), (
        1.0 if passed >= n else min(1.0, centre + half)
    )


def rate(passed: int, n: int, errored: int = 0, scores: Sequence[float] = ()) -> Rate:
    return Rate(passed, n, *wilson(passed, n), errored, sum(scores) / len(scores) if scores else None)


def overall(run: Run) -> Rate:
    """Items that passed every grader."""
    return rate(run.passed, max(run.total, len(run.items)), run.errored)


def by_grader(run: Run) -> list[tuple[str, Rate]]:
    """Every grader of a run on its own."""
    found = []
    for grader in run.graders:
        grades = [grade for item in run.items for grade in item.grades if grade.grader == grader]
        fine = [grade for grade in grades if not grade.errored]
        n = max(run.total, len(grades))
        scores = [grade.score for grade in fine if grade.score is not None]
        found.append((grader, rate(sum(grade.passed for grade in fine), n, n - len(fine), scores)))
    return found


def flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an item with the members of objects beside them, also of those written as JSON text."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, str) and value.lstrip().startswith("{"):
            with contextlib.suppress(ValueError, RecursionError):  # a text that only looks like an object
                value = json.loads(value)
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": member for key, member in value.items()}
        else:
            found[name] = value
    return found


def sliceable(runs: Iterable[Run]) -> list[str]:
    """Fields with so few different values that slices by them say something."""
    rows = next(([flat(item.fields) for item in run.items] for run in runs if run.items), [])
    values: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            seen = values.setdefault(name, set())
            if len(seen) <= MOST_VALUES:
                seen.add(shown(value) if _scalar(value) else f"\0{len(seen)}")
    worth = [
        name
        for name, seen in values.items()
        if 2 <= len(seen) <= MOST_VALUES and 2 * len(seen) <= len(rows) and not any("\0" in v for v in seen)
    ]
    return worth[:MOST_SLICES]


def slices(run: Run, field: str) -> list[Slice]:
    """A run's pass rate for every value of a field, most frequent first."""
    counts: dict[str, list[int]] = {}
    for item in run.items:
        value = flat(item.fields).get(field)
        count = counts.setdefault(shown(value) if _scalar(value) else "(none)", [0, 0, 0])
        count[0] += item.status == PASS
        count[1] += 1
        count[2] += item.status == ERROR
    found = [Slice(value, rate(passed, n, errored)) for value, (passed, n, errored) in counts.items()]
    return sorted(found, key=lambda each: (-each.rate.n, each.value))


def flips(baseline: Run, candidate: Run) -> list[Flip]:
    """Items that only one of the two passes; lost ones first."""
    before = {item.id: item for item in baseline.items}
    pairs = [Flip(before[item.id], item) for item in candidate.items if item.id in before]
    changed = [pair for pair in pairs if (pair.before.status == PASS) is not (pair.after.status == PASS)]
    return sorted(changed, key=lambda pair: pair.gained)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def percent(value: float, digits: int = 1) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f} %"


def shown(value: Any) -> str:
    """A value of an item as text."""
    if isinstance(value, str):
        return value
    return "(none)" if value is None else json.dumps(value, ensure_ascii=False)


def _scalar(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, bool | int | float)
        or (isinstance(value, str) and len(value) <= 60)
    )
