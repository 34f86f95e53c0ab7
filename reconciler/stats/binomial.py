"""The binomial distribution without scipy, so that a plan can ask it."""

import math


def at_least(passed: int, n: int, rate: float) -> float:
    """P(X >= passed) for n items that each pass with this rate."""
    if passed <= 0 or rate >= 1:
        return 1.0 if passed <= n else 0.0
    if rate <= 0 or passed > n:
        return 0.0
    if passed <= n * rate:
        return 1 - at_least(n - passed + 1, n, 1 - rate)
    term, total, odds = exactly(passed, n, rate), 0.0, rate / (1 - rate)
    while passed <= n and term > 1e-17 * max(total, 1e-300):
        total += term
        term *= (n - passed) / (passed + 1) * odds
        passed += 1
    return min(1.0, total)


def exactly(passed: int, n: int, rate: float) -> float:
    """P(X = passed)."""
    if rate <= 0 or rate >= 1:
        return float(passed == (n if rate >= 1 else 0))
    ways = math.lgamma(n + 1) - math.lgamma(passed + 1) - math.lgamma(n - passed + 1)
    return math.exp(ways + passed * math.log(rate) + (n - passed) * math.log1p(-rate))
