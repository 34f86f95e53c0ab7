"""
Shares of items, and what a finite number of them proves.

Clopper-Pearson and not Wilson: Wilson is right on average over all rates, but its lower end is too high
near 1, where gates stand; Clopper-Pearson's ends are each wrong with probability (1 - confidence) / 2
at most, for every rate and every n. The price is an interval up to 1 / n wider.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from reconciler.stats import Estimate, Interval, growth, p_from


def clopper_pearson(passed: float, n: float, confidence: float) -> Interval:
    """The exact interval of a share (Clopper and Pearson 1934). `n` 0 gives (0, 1)."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(passed, n - passed + 1, tail)) if passed > 0 else 0.0
    high = float(betaincinv(passed + 1, n - passed, 1 - tail)) if passed < n else 1.0
    return low, high


def most_unseen(n: int, level: float) -> float:
    """
    The largest rate of a thing that was not seen once in `n` items, at a one-sided level.

    At level 0.05 about 3 / n: the rule of three.
    """
    return 1 - level ** (1 / n) if n else 1.0


def least_items(rate: float, level: float) -> int:
    """How many items without a single failure show that failures are rarer than `rate`."""
    return math.ceil(math.log(level) / math.log1p(-rate))


@dataclass(frozen=True)
class Share:
    """Passed of n; with clusters both are what they would be worth as independent items."""

    passed: float
    n: float
    method: str = "Clopper-Pearson"

    @property
    def value(self) -> float:
        return self.passed / self.n if self.n else math.nan

    def interval(self, confidence: float) -> Interval:
        return clopper_pearson(self.passed, self.n, confidence)

    def above(self, line: float) -> float:
        from scipy.special import betainc

        if self.passed <= 0:
            return 1.0
        return float(betainc(self.passed, self.n - self.passed + 1, min(1.0, max(0.0, line))))

    def below(self, line: float) -> float:
        return Share(self.n - self.passed, self.n).above(1 - line)

    def more(self, line: float, level: float) -> int:
        side = Share.above if self.value > line else Share.below
        return growth(lambda f: side(Share(self.passed * f, self.n * f), line), self.n, level)


def clustered(values: Sequence[float], clusters: Sequence[Hashable]) -> Share:
    """
    A share whose items come in clusters, at its effective number of items.

    Korn and Graubard (1998), Survey Methodology 24:193: n over the design effect, times the square of
    the ratio of Student quantiles for n - 1 and for clusters - 1 degrees of freedom; never more than n.
    Where everything passes or nothing does, a cluster is worth one item.
    """
    from scipy.special import stdtrit

    n, passed = len(values), sum(values)
    sums: dict[Hashable, tuple[float, int]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        total, size = sums.get(cluster, (0.0, 0))
        sums[cluster] = total + value, size + 1
    groups, rate = len(sums), passed / n
    if groups < 2:
        return Share(rate, 1.0, "Korn-Graubard on 1 cluster")
    spread = groups / (groups - 1) * sum((total - rate * size) ** 2 for total, size in sums.values()) / n**2
    if 0 < rate < 1:
        worth = n * rate * (1 - rate) / (n - 1) / spread if spread > 0 else float(n)
        worth *= float(stdtrit(n - 1, 0.975) / stdtrit(groups - 1, 0.975)) ** 2
    else:
        worth = float(groups)
    worth = min(float(n), max(1.0, worth))
    return Share(rate * worth, worth, f"Korn-Graubard on {groups} clusters")


@dataclass(frozen=True)
class Calibration:
    """How a judge did on items whose truth is known: of the good it passed some, of the bad it failed some."""

    good: int
    good_passed: int
    bad: int
    bad_failed: int

    @property
    def turned(self) -> "Calibration":
        """The same judge, asked what fails."""
        return Calibration(self.bad, self.bad_failed, self.good, self.good_passed)

    @property
    def sharpness(self) -> float:
        """Youden's index: 0 for a judge that guesses, 1 for one that never errs."""
        return self.good_passed / self.good + self.bad_failed / self.bad - 1

    def sharpness_within(self, confidence: float) -> Interval:
        """Its interval, from the exact ones of both rates, each with half of the doubt."""
        half = (1 + confidence) / 2
        good = clopper_pearson(self.good_passed, self.good, half)
        bad = clopper_pearson(self.bad_failed, self.bad, half)
        return good[0] + bad[0] - 1, good[1] + bad[1] - 1


@dataclass(frozen=True)
class Corrected:
    """
    The true share behind what an imperfect judge passed.

    Estimate by Rogan and Gladen (1978); interval by Lang and Reiczigel (2014), Preventive Veterinary
    Medicine 113:13, which holds the calibration's uncertainty too.
    """

    share: Share
    judge: Calibration
    method: str = "Rogan-Gladen with Lang-Reiczigel"

    @property
    def value(self) -> float:
        judge = self.judge
        found = (self.share.value + judge.bad_failed / judge.bad - 1) / judge.sharpness
        return min(1.0, max(0.0, found))

    def interval(self, confidence: float) -> Interval:
        from statistics import NormalDist

        z = NormalDist().inv_cdf(min(0.5 + confidence / 2, 1 - 1e-15))
        n = self.share.n + z * z
        rate = (self.share.passed + z * z / 2) / n
        good, bad = self.judge.good + 2, self.judge.bad + 2
        hits, rejects = (self.judge.good_passed + 1) / good, (self.judge.bad_failed + 1) / bad
        sharp = hits + rejects - 1
        if sharp <= 0:
            return 0.0, 1.0
        true = (rate + rejects - 1) / sharp
        of_hits, of_rejects = hits * (1 - hits) / good, rejects * (1 - rejects) / bad
        error = math.sqrt(rate * (1 - rate) / n + of_hits * true**2 + of_rejects * (1 - true) ** 2) / sharp
        centre = true + 2 * z * z * (of_hits * true - of_rejects * (1 - true))
        return min(1.0, max(0.0, centre - z * error)), min(1.0, max(0.0, centre + z * error))

    def above(self, line: float) -> float:
        return p_from(self.interval, line, 0)

    def below(self, line: float) -> float:
        return p_from(self.interval, line, 1)

    def more(self, line: float, level: float) -> int:
        side = Corrected.above if self.value > line else Corrected.below
        share = self.share
        return growth(
            lambda f: side(Corrected(Share(share.passed * f, share.n * f), self.judge), line), share.n, level
        )


@dataclass(frozen=True)
class CorrectedDifference:
    """
    The true difference behind one that an imperfect judge saw: it is larger by one over the sharpness.

    Half of the doubt goes to the difference, half to the sharpness, so the interval holds at least as
    often as it says. The judge is taken to err alike on both models.
    """

    seen: Estimate
    judge: Calibration

    @property
    def method(self) -> str:
        return f"{self.seen.method} over the judge's sharpness"

    @property
    def value(self) -> float:
        return min(1.0, max(-1.0, self.seen.value / self.judge.sharpness))

    def interval(self, confidence: float) -> Interval:
        half = (1 + confidence) / 2
        low, high = self.seen.interval(half)
        dull, sharp = self.judge.sharpness_within(half)
        if dull <= 0:
            return -1.0, 1.0
        return max(-1.0, min(low / dull, low / sharp)), min(1.0, max(high / dull, high / sharp))

    def above(self, line: float) -> float:
        return p_from(self.interval, line, 0)

    def below(self, line: float) -> float:
        return p_from(self.interval, line, 1)

    def more(self, line: float, level: float) -> int:
        return self.seen.more(line * self.judge.sharpness, level / 2)
