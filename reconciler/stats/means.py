"""
Means of scores, and of differences of scores: resampled, because scores are skewed and bounded.

Three witnesses, and the least sure of them speaks: the BCa bootstrap (skew), Student's t (few items),
and for paired differences the sign-flip permutation (exact when the two sides can be exchanged). What
comes in clusters is resampled, flipped and counted as clusters. Randomness is seeded by the values
themselves, so the same results are always judged the same.
"""

import hashlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from reconciler.stats import Interval, growth
from reconciler.stats.proportions import most_unseen

DRAWS = 9_999
CHUNK = 4_000_000  # values drawn at once
FEW = 10  # with fewer units that differ from the commonest value, resampling has seen nothing of rare ones
FEWEST = 13  # units up to which all sign flips are tried
MANY = 2_000  # units beyond which the permutation's normal limit is as good


@dataclass(frozen=True)
class Mean:
    """
    The mean of `values`, each within `span`. `clusters` says which belong together; none: all alone.

    `paired` values are differences whose sign is open when there is no difference.
    """

    values: Sequence[float]
    span: Interval
    clusters: Sequence[Hashable] | None = None
    paired: bool = False

    @property
    def value(self) -> float:
        return math.fsum(self.values) / len(self.values) if self.values else math.nan

    @property
    def method(self) -> str:
        clusters = f" on {len(self._units[0])} clusters" if self.clusters else ""
        return "BCa bootstrap and Student's t" + (" and sign flips" if self.paired else "") + clusters

    def interval(self, confidence: float) -> Interval:
        import numpy as np
        from scipy.special import ndtr, ndtri, stdtrit

        units = len(self._units[0])
        if units < 2:
            return self.span
        tail = (1 - confidence) / 2
        half = float(stdtrit(units - 1, 1 - tail)) * self.error
        ends = [self.value - half, self.value + half]
        shift, skew = self._bca
        for end, z in enumerate(ndtri([tail, 1 - tail])):
            at = float(ndtr(shift + (shift + z) / (1 - skew * (shift + z))))
            ends[end] = (min, max)[end](ends[end], float(np.quantile(self._draws, at)))
        if self._differing < FEW:
            hidden = most_unseen(units, tail)
            ends[0] = min(ends[0], self.value - (self.value - self.span[0]) * hidden)
            ends[1] = max(ends[1], self.value + (self.span[1] - self.value) * hidden)
        return max(self.span[0], ends[0]), min(self.span[1], ends[1])

    def above(self, line: float) -> float:
        return self._beyond(line, 1)

    def below(self, line: float) -> float:
        return self._beyond(line, -1)

    def _beyond(self, line: float, side: int) -> float:
        """The one-sided p-value of the least sure witness; `side` 1 for above the line, -1 for below."""
        import numpy as np
        from scipy.special import ndtr, ndtri, stdtr

        (sums, sizes), far = self._units, side * (self.value - line)
        if len(sums) < 2 or far <= 0:
            return 1.0
        witnesses = [float(stdtr(len(sums) - 1, -far / self.error)) if self.error > 0 else 0.0]
        draws, (shift, skew) = self._draws, self._bca
        under = (float(np.sum(draws < line)) + float(np.sum(draws <= line))) / 2 / len(draws)
        at = float(ndtri(min(max(under, 0.5 / len(draws)), 1 - 0.5 / len(draws)))) - shift
        bend = 1 + skew * at
        witnesses.append(float(ndtr(side * (at / bend - shift))) if bend > 0 else 1.0)
        if self.paired:
            witnesses.append(sign_flips(side * (sums - line * sizes), self._seed))
        room = abs(self.span[0 if side > 0 else 1] - self.value)
        if self._differing < FEW and room > 0:
            witnesses.append(max(0.0, 1 - far / room) ** len(sums))
        return max(witnesses)

    def more(self, line: float, level: float) -> int:
        from scipy.special import ndtr, ndtri

        side = self.above if self.value > line else self.below
        p = side(line)
        if p >= 1:
            return 0
        if self._differing < FEW:
            return growth(lambda factor: p**factor, len(self.values), level)
        z = float(ndtri(1 - p))
        return growth(lambda factor: float(ndtr(-z * math.sqrt(factor))), len(self.values), level)

    @cached_property
    def _units(self) -> tuple[Any, Any]:
        """What is drawn: the sum and the size of every cluster, or every value with size 1."""
        import numpy as np

        values = np.asarray(self.values, float)
        if not self.clusters:
            return values, np.ones(len(values))
        index: dict[Hashable, int] = {}
        of = [index.setdefault(cluster, len(index)) for cluster in self.clusters]
        return np.bincount(of, values), np.bincount(of).astype(float)

    @cached_property
    def _seed(self) -> int:
        sums, sizes = self._units
        return int.from_bytes(hashlib.sha256(sums.tobytes() + sizes.tobytes()).digest()[:8])

    @cached_property
    def error(self) -> float:
        """The standard error, robust to clusters."""
        sums, sizes = self._units
        off = sums - self.value * sizes
        return float(math.sqrt(len(sums) / (len(sums) - 1) * float(off @ off)) / sizes.sum())

    @cached_property
    def _differing(self) -> int:
        """Units that are unlike the commonest one."""
        import numpy as np

        sums, sizes = self._units
        return len(sums) - int(np.unique(sums / sizes, return_counts=True)[1].max())

    @cached_property
    def _draws(self) -> Any:
        """Bootstrap means."""
        import numpy as np

        sums, sizes = self._units
        random, count = np.random.default_rng(self._seed), len(sums)
        found = np.empty(DRAWS)
        step = max(1, CHUNK // count)
        for start in range(0, DRAWS, step):
            picked = random.integers(0, count, (min(step, DRAWS - start), count))
            found[start : start + len(picked)] = sums[picked].sum(1) / sizes[picked].sum(1)
        return found

    @cached_property
    def _bca(self) -> tuple[float, float]:
        """Bias correction and acceleration (Efron 1987); the latter from the jackknife."""
        import numpy as np
        from scipy.special import ndtri

        sums, sizes = self._units
        draws = self._draws
        under = (float(np.sum(draws < self.value)) + float(np.sum(draws <= self.value))) / 2 / len(draws)
        left = (sums.sum() - sums) / (sizes.sum() - sizes)
        off = left.mean() - left
        spread = float(off @ off) ** 1.5
        skew = float((off**3).sum()) / (6 * spread) if spread > 0 else 0.0
        return float(ndtri(min(max(under, 0.5 / len(draws)), 1 - 0.5 / len(draws)))), skew


def sign_flips(sums: Any, seed: int) -> float:
    """
    One-sided p-value of a positive total, were every sign open: (1 + flips at least as large) / (1 + flips).

    All flips where there are few units, DRAWS random ones up to MANY, their normal limit beyond.
    """
    import numpy as np
    from scipy.special import ndtr

    sums = np.asarray(sums, float)
    sums, total = sums[sums != 0], float(sums.sum())
    count = len(sums)
    if count == 0:
        return 1.0
    enough = total * (1 - 1e-12) if total > 0 else total * (1 + 1e-12)
    if count <= FEWEST:
        return float(np.mean(_all_signs(count) @ sums >= enough))
    if count > MANY:
        return float(ndtr(-total / math.sqrt(float(sums @ sums))))
    random = np.random.default_rng(seed)
    step, larger = max(1, CHUNK // count), 0
    for start in range(0, DRAWS, step):
        signs = random.integers(0, 2, (min(step, DRAWS - start), count), dtype=np.int8) * 2.0 - 1
        larger += int(np.sum(signs @ sums >= enough))
    return (1 + larger) / (1 + DRAWS)


@cache
def _all_signs(count: int) -> Any:
    import numpy as np

    return 1 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
