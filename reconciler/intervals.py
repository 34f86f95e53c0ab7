"""
Confidence intervals, two-sided, as numbers in and numbers out. Pure.

scipy is imported where it is needed: a plan that judges nothing does not pay for it.
"""

import math
from collections.abc import Callable, Sequence


def wilson(passed: int, n: int, confidence: float) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927). `n` 0 gives (0, 1)."""
    if not n:
        return 0.0, 1.0
    z = _z(confidence)
    centre = (passed + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(passed * (n - passed) / n + z * z / 4)
    low = 0.0 if passed == 0 else max(0.0, centre - half)
    return low, 1.0 if passed == n else min(1.0, centre + half)


def tango(gained: int, lost: int, n: int, confidence: float) -> tuple[float, float]:
    """
    Score interval of a paired difference of proportions, (gained - lost) / n.

    Tango (1998), Statistics in Medicine 17:891; the limits are found by bisection.
    """
    if not n:
        return -1.0, 1.0
    z = _z(confidence)
    estimate = (gained - lost) / n

    def score(delta: float) -> float:
        a = 2 * n
        b = -gained - lost + (2 * n - gained + lost) * delta
        c = -lost * delta * (1 - delta)
        q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = n * (2 * q + delta * (1 - delta))
        return (
            (gained - lost - n * delta) / math.sqrt(variance)
            if variance > 1e-12
            else math.copysign(math.inf, estimate - delta)
        )

    return _bisect(score, z, -1.0, estimate), _bisect(score, -z, estimate, 1.0)


def mean(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """A mean and its Student t interval; fewer than two values give an unbounded one."""
    n = len(values)
    centre = math.fsum(values) / n if n else math.nan
    if n < 2:
        return centre, -math.inf, math.inf
    from scipy import stats

    spread = math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (n - 1) / n)
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * spread
    return centre, centre - half, centre + half


def more_items(estimate: float, low: float, high: float, line: float, n: int) -> int:
    """About how many more items would bring the interval to one side of the line, were the estimate true."""
    distance, half = abs(estimate - line), (high - low) / 2
    if not n or distance <= 1e-9 or not math.isfinite(half) or half <= distance:
        return 0
    return math.ceil(n * (half / distance) ** 2) - n


def _z(confidence: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _bisect(score: Callable[[float], float], level: float, low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        if score(middle) > level:  # the score falls with delta
            low = middle
        else:
            high = middle
    return (low + high) / 2
