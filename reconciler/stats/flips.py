"""
Two models on the same items, each item passed or not: only the items that flipped say anything.

The interval is Tango's score interval; its error stays close to the nominal one, but can pass it a
little. So nothing is called better unless an exact test agrees: McNemar's where the line is at zero or
above, and the binomial of the gained items alone where the line is above zero and losses are rare.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from reconciler.stats import Interval, growth
from reconciler.stats.binomial import at_least

NORMAL = NormalDist()


def tango(gained: int, lost: int, n: int, confidence: float) -> Interval:
    """
    Score interval of a paired difference of shares, (gained - lost) / n.

    Tango (1998), Statistics in Medicine 17:891; the limits are found by bisection.
    """
    if not n or confidence >= 1:
        return -1.0, 1.0
    z, estimate = NORMAL.inv_cdf(0.5 + confidence / 2), (gained - lost) / n
    ends = []
    for level, low, high in ((z, -1.0, estimate), (-z, estimate, 1.0)):
        for _ in range(50):
            middle = (low + high) / 2
            if score(gained, lost, n, middle) > level:  # the score falls with the line
                low = middle
            else:
                high = middle
        ends.append((low + high) / 2)
    return ends[0], ends[1]


def score(gained: int, lost: int, n: int, line: float) -> float:
    """Tango's statistic for a true difference of `line`; about standard normal if it is."""
    b = -gained - lost + (2 * n - gained + lost) * line
    q = (math.sqrt(max(b * b + 8 * n * lost * line * (1 - line), 0.0)) - b) / (4 * n)
    variance = n * (2 * q + line * (1 - line))
    distance = gained - lost - n * line
    if variance > 1e-12:
        return distance / math.sqrt(variance)
    return math.copysign(math.inf, distance) if abs(distance) > 1e-12 else 0.0


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value of 'both pass equally many' (McNemar 1947)."""
    return min(1.0, 2 * at_least(max(gained, lost), gained + lost, 0.5))


def surprise(gained: int, lost: int, n: int, line: float) -> float:
    """One-sided p-value of 'the difference is at most line'."""
    ps = [NORMAL.cdf(-score(gained, lost, n, line))]
    if line >= 0:
        ps.append(at_least(gained, gained + lost, 0.5))
    if line > 0:
        ps.append(at_least(gained, n, line))
    return max(ps)


@dataclass(frozen=True)
class Flips:
    """Items the candidate passes and the baseline does not, the other way round, and all items."""

    gained: int
    lost: int
    n: int
    method: str = "Tango and exact McNemar"

    @property
    def value(self) -> float:
        return (self.gained - self.lost) / self.n if self.n else math.nan

    def interval(self, confidence: float) -> Interval:
        return tango(self.gained, self.lost, self.n, confidence)

    def above(self, line: float) -> float:
        return surprise(self.gained, self.lost, self.n, line) if self.n else 1.0

    def below(self, line: float) -> float:
        return surprise(self.lost, self.gained, self.n, -line) if self.n else 1.0

    def more(self, line: float, level: float) -> int:
        side = Flips.above if self.value > line else Flips.below
        return growth(lambda factor: side(self._grown(factor), line), self.n, level)

    def _grown(self, factor: float) -> "Flips":
        return Flips(round(self.gained * factor), round(self.lost * factor), round(self.n * factor))
