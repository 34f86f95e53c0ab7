"""
The statistics that verdicts rest on: numbers in, numbers out. Pure.

Every estimate answers the same questions: its two-sided interval, and how surprising the results would
be if the truth were at or below (above) a line. numpy and scipy are imported where they are needed: a
plan that judges nothing does not pay for them.
"""

import math
from collections.abc import Callable
from typing import Protocol

Interval = tuple[float, float]
FARTHEST = 10_000  # times as many items: more is not worth saying


class Estimate(Protocol):
    """One number measured on items."""

    @property
    def value(self) -> float: ...

    @property
    def method(self) -> str:
        """How the interval and the p-values are made, in words."""

    def interval(self, confidence: float) -> Interval:
        """Two-sided; each end is wrong with probability (1 - confidence) / 2."""

    def above(self, line: float) -> float:
        """One-sided p-value of 'the truth is at or below the line'; small speaks for above."""

    def below(self, line: float) -> float:
        """One-sided p-value of 'the truth is at or above the line'; small speaks for below."""

    def more(self, line: float, level: float) -> int:
        """About how many more items would tell at this one-sided level, were the estimate true; 0: unknown."""


def growth(p_at: Callable[[float], float], n: float, level: float) -> int:
    """How many items beyond `n` bring p_at(factor) down to the level; 0 when FARTHEST times do not."""
    high = 1.0
    while p_at(high) > level:
        high *= 2
        if high > FARTHEST:
            return 0
    low = high / 2
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if p_at(middle) > level else (low, middle)
    return max(0, math.ceil(n * (high - 1)))


def p_from(interval: Callable[[float], Interval], line: float, end: int) -> float:
    """The one-sided p-value of an interval that has none: the level at which its end (0 or 1) meets the line."""
    low, high = 0.0, 0.5
    for _ in range(50):
        middle = (low + high) / 2
        reached = interval(1 - 2 * middle)[end]
        clear = reached > line if end == 0 else reached < line
        low, high = (low, middle) if clear else (middle, high)
    return 1.0 if high >= 0.5 - 1e-12 else high
