"""
What was spent and what is reserved: by resource, by month, by budget. Pure.

Something that nobody can price is in no sum; it is counted and named, never taken for zero.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.cost import Estimate
from reconciler.kinds.project import BudgetSpec
from reconciler.money import budgets
from reconciler.money.budgets import Entry, Standing


@dataclass(frozen=True)
class Line:
    """One thing that was asked for. `usd` and `seconds` are what it did cost, None where nobody can say."""

    platform: str
    address: str
    object_id: str | None
    labels: Mapping[str, str]
    at: float  # unix seconds, when it was reserved
    estimate: Estimate
    settled_at: float | None = None
    usd: float | None = None
    seconds: float | None = None
    why: str = ""  # why it is unknown, or how it was counted

    @property
    def entry(self) -> Entry:
        """As budgets take it: where nobody can say what it did cost, what was reserved for it stays spent."""
        most = budgets.most(self.estimate)
        if self.settled_at is None:
            return Entry(self.at, self.labels, most)
        hours = most.hours if self.seconds is None else self.seconds / 3600
        actual = budgets.Amount(most.usd if self.usd is None else self.usd, hours)
        return Entry(self.at, self.labels, actual, settled=True)


class Sum(NamedTuple):
    """Of several entries, in one unit each."""

    name: str
    usd: Standing
    hours: Standing


class Held(NamedTuple):
    """How one limit of a budget stands."""

    budget: str
    unit: str
    limit: float
    standing: Standing


@dataclass(frozen=True)
class Statement:
    project: str
    whole: Sum
    resources: Sequence[Sum]
    months: Sequence[Sum]
    budgets: Sequence[Held]
    unknown: Sequence[Line]  # what nobody can price


def of(project: str, lines: Sequence[Line], limits: Iterable[BudgetSpec], now: float) -> Statement:
    """The statement of a project."""
    return Statement(
        project,
        _sum(project, lines),
        _by(lines, lambda line: line.address),
        _by(lines, lambda line: budgets.month(line.at)),
        [
            Held(
                budgets.called(each), unit, limit, budgets.standing(each, unit, [a.entry for a in lines], now)
            )
            for each in limits
            for unit, limit in budgets.limits(each)
        ],
        [line for line in lines if line.entry.amount.usd is None],
    )


def _by(lines: Iterable[Line], key: Callable[[Line], str]) -> list[Sum]:
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(key(line), []).append(line)
    return [_sum(name, group) for name, group in sorted(groups.items())]


def _sum(name: str, lines: Iterable[Line]) -> Sum:
    entries = [line.entry for line in lines]
    return Sum(name, budgets.together("usd", entries), budgets.together("hours", entries))
