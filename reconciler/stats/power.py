"""
What a number of items can show, before they are paid for. Pure Python: every plan asks this.

`level` is one-sided. Shares and paired differences of shares are exact sums over what could be seen;
means are normal approximations. The unknowns are assumptions: how often the two models differ, how
widely the differences of scores spread.
"""

import math
from collections.abc import Callable
from functools import cache
from statistics import NormalDist

from reconciler.stats.binomial import at_least, exactly
from reconciler.stats.flips import surprise

NORMAL = NormalDist()
USUAL = 0.8  # the power that "detectable" means


def of_share(n: int, line: float, rate: float, level: float) -> float:
    """The chance that n items show a share above `line` (Clopper-Pearson) when it truly is `rate`."""
    low, high = 0, n + 1  # the fewest passes that are enough lie between
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if at_least(middle, n, line) <= level else (middle, high)
    return at_least(high, n, rate)


def of_flips(n: int, line: float, effect: float, disagreement: float, level: float) -> float:
    """
    The chance that n paired items show a difference above `line` when it truly is `effect`.

    `disagreement` is the share of items that either model alone passes; never less than the effect.
    """
    flips = min(1.0, max(disagreement, abs(effect)))
    wins = (1 + effect / flips) / 2 if flips else 0.5
    middle, reach = n * flips, 5 * math.sqrt(n * flips * (1 - flips)) + 5
    step = 2 * int(reach // 80) + 1  # where there are many counts, odd ones tell as much
    chance = weight = 0.0
    for count in range(max(0, math.floor(middle - reach)), min(n, math.ceil(middle + reach)) + 1, step):
        each, enough = exactly(count, n, flips), _enough(count, n, line, level)
        weight += each
        chance += each * at_least(enough, count, wins) if enough is not None else 0.0
    return chance / weight


def of_mean(n: int, line: float, effect: float, spread: float, level: float) -> float:
    """The chance that n values with this standard deviation show a mean above `line` when it is `effect`."""
    if n < 2:
        return 0.0
    return NORMAL.cdf((effect - line) * math.sqrt(n) / spread - NORMAL.inv_cdf(1 - level))


def detectable(power_at: Callable[[float], float], low: float, high: float) -> float | None:
    """The smallest effect between low and high that is shown with USUAL power; None where none is."""
    if power_at(high) < USUAL:
        return None
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if power_at(middle) < USUAL else (low, middle)
    return high


def anytime(level: float) -> float:
    """The fixed-size level that costs about as much as betting at this one."""
    return 1 - NORMAL.cdf(math.sqrt(2 * math.log(1 / level)) + 0.2)


@cache
def _enough(flips: int, n: int, line: float, level: float) -> int | None:
    """The fewest gained items, of so many that flipped, that show a difference above `line`."""
    low, high = -1, flips
    if surprise(high, flips - high, n, line) > level:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if surprise(middle, flips - middle, n, line) <= level else (middle, high)
    return high
