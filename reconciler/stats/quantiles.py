"""
Quantiles, by order statistics: no assumption but that items are independent (Conover 1999, chapter 3).

How many values lie under the true q-quantile is binomial with rate q, whatever their distribution is.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from reconciler.stats import Interval, growth
from reconciler.stats.binomial import at_least


@dataclass(frozen=True)
class Quantile:
    """The `q`-quantile of `values`; what is missing is infinite."""

    values: Sequence[float]
    q: float
    method: str = "order statistics"

    @cached_property
    def _sorted(self) -> list[float]:
        return sorted(self.values)

    @property
    def value(self) -> float:
        n = len(self.values)
        return self._sorted[max(0, math.ceil(self.q * n) - 1)] if n else math.nan

    def interval(self, confidence: float) -> Interval:
        """Its ends are 0 and infinity where too few items say nothing of that side."""
        n, tail = len(self.values), (1 - confidence) / 2
        low = max((k for k in range(1, n + 1) if 1 - at_least(k, n, self.q) <= tail), default=0)
        high = min((k for k in range(1, n + 1) if at_least(k, n, self.q) <= tail), default=n + 1)
        return self._sorted[low - 1] if low else 0.0, self._sorted[high - 1] if high <= n else math.inf

    def above(self, line: float) -> float:
        under = bisect.bisect_right(self._sorted, line)
        return 1 - at_least(under + 1, len(self.values), self.q)

    def below(self, line: float) -> float:
        return at_least(bisect.bisect_left(self._sorted, line), len(self.values), self.q)

    def more(self, line: float, level: float) -> int:
        n, under = len(self.values), bisect.bisect_left(self._sorted, line)
        if under > self.q * n:
            return growth(lambda f: at_least(int(under * f), int(n * f), self.q), n, level)
        return growth(lambda f: 1 - at_least(int(under * f) + 1, int(n * f), self.q), n, level)
