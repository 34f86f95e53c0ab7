"""
Verdicts that hold however often one looks: a gambler who bets against the line.

If the truth is at or below the line, no strategy is expected to win, and by Ville's inequality the chance
that the capital ever grows a-fold is at most 1 / a, at any time and at all times together. So an eval may
grow, and be looked at after every item, at the price of intervals about a third wider.
Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting, JRSS B 86:1,
with their diversified bets: the capital is spread over constant stakes.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reconciler.stats import Interval, growth

STAKES = (0.99, *(2.0 ** (-index / 2) for index in range(1, 15)))  # of what is held, down to 0.008


def capital(values: Any, line: float) -> Any:
    """
    The log of the most a gambler against 'mean at most line' ever held. Values in [0, 1], 0 < line <= 1.

    Along the last axis, in the order in which they came.
    """
    import numpy as np

    values = np.asarray(values, float)
    paths = np.stack([np.cumsum(np.log1p(stake * (values / line - 1)), axis=-1) for stake in STAKES])
    return np.maximum(0.0, (np.logaddexp.reduce(paths, axis=0) - math.log(len(STAKES))).max(axis=-1))


@dataclass(frozen=True)
class Running:
    """
    The mean of values that came in this order, each within `span`; clusters count as one value each.

    The order must not depend on the results.
    """

    values: Sequence[float]
    span: Interval
    clusters: Sequence[Hashable] | None = None
    method: str = "betting confidence sequence"

    @property
    def value(self) -> float:
        return math.fsum(self.values) / len(self.values) if self.values else math.nan

    def interval(self, confidence: float) -> Interval:
        tail = (1 - confidence) / 2
        middle = self._back(float(self._scaled.mean())) if self.values else sum(self.span) / 2
        return self._limit(Running.above, self.span[0], middle, tail), self._limit(
            Running.below, self.span[1], middle, tail
        )

    def above(self, line: float) -> float:
        return _p(self._scaled, self._forth(line))

    def below(self, line: float) -> float:
        return _p(1 - self._scaled, 1 - self._forth(line))

    def more(self, line: float, level: float) -> int:
        p = min(self.above(line), self.below(line))
        return growth(lambda f: p**f, len(self.values), level) if p < 1 else 0

    def _limit(self, side: Any, wrong: float, right: float, tail: float) -> float:
        """The last line between `wrong` and `right` that is not ruled out, from the wrong end."""
        for _ in range(40):
            middle = (wrong + right) / 2
            if side(self, middle) <= tail:
                wrong = middle
            else:
                right = middle
        return wrong

    @cached_property
    def _scaled(self) -> Any:
        import numpy as np

        groups: dict[Hashable, list[float]] = {}
        for index, value in enumerate(self.values):
            groups.setdefault(self.clusters[index] if self.clusters else index, []).append(value)
        return np.array([self._forth(math.fsum(group) / len(group)) for group in groups.values()])

    def _forth(self, value: float) -> float:
        low, high = self.span
        return (value - low) / (high - low)

    def _back(self, value: float) -> float:
        low, high = self.span
        return low + value * (high - low)


def _p(values: Any, line: float) -> float:
    if not len(values) or line >= 1:
        return 1.0
    return 0.0 if line <= 0 else min(1.0, math.exp(-float(capital(values, line))))
