"""
What something is expected to take, as far as anybody knows beforehand: a range, or unknown and why. Pure.

Unknown is never zero: a sum with something unknown in it says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Range(NamedTuple):
    low: float
    high: float

    def plus(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.high + other.high)

    def times(self, low: float, high: float | None = None) -> "Range":
        return Range(self.low * low, self.high * (low if high is None else high))


@dataclass(frozen=True)
class Estimate:
    """`why` says how it was counted, or why something is unknown."""

    usd: Range | None = None
    seconds: Range | None = None
    why: str = ""


NOTHING = Estimate(Range(0, 0), Range(0, 0))


class Total(NamedTuple):
    """Of several; `unpriced` and `untimed` say of how many nobody knows what they cost or take."""

    usd: Range
    seconds: Range  # one after the other
    unpriced: int
    untimed: int


def total(estimates: Iterable[Estimate]) -> Total:
    """All together."""
    usd, seconds, unpriced, untimed = Range(0, 0), Range(0, 0), 0, 0
    for each in estimates:
        usd = usd.plus(each.usd or Range(0, 0))
        seconds = seconds.plus(each.seconds or Range(0, 0))
        unpriced += each.usd is None
        untimed += each.seconds is None
    return Total(usd, seconds, unpriced, untimed)


def said(estimate: Estimate) -> str:
    """`about $0.12–0.20, 25–40 s`, `cost unknown: …` with the first reason, or nothing where it costs nothing."""
    parts = []
    if estimate.usd and estimate.usd.high > 0:
        parts.append(money(estimate.usd))
    if estimate.seconds and estimate.seconds.high > 0:
        parts.append(duration(estimate.seconds))
    if parts:
        return f"about {', '.join(parts)}" + (", no price" if estimate.usd is None else "")
    return f"cost unknown: {estimate.why.partition('; ')[0]}" if estimate.usd is None else ""


def said_total(estimates: Iterable[Estimate]) -> str:
    """The same of several, for a headline."""
    usd, seconds, unpriced, untimed = total(estimates)
    parts = [money(usd)] if usd.high > 0 else []
    parts += [duration(seconds)] if seconds.high > 0 else []
    lacking = [
        f"{n} {word}" for n, word in ((unpriced, "without a price"), (untimed, "of unknown duration")) if n
    ]
    return ", ".join(([f"about {', '.join(parts)}"] if parts else []) + lacking)


def money(usd: Range) -> str:
    """`$0.12–0.20`; less than a tenth of a cent is told as such."""
    if usd.high < 0.001:
        return "less than $0.001"
    low, high = _dollars(usd.low), _dollars(usd.high)
    return f"${high}" if low == high else f"${low}–{high}"


def duration(seconds: Range) -> str:
    """`25–40 s`, `3–5 min`, `2–2.5 h`; in the unit that fits the longer."""
    for unit, word in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds.high >= 2 * unit or unit == 1:
            low, high = _short(seconds.low / unit), _short(seconds.high / unit)
            return f"{high} {word}" if low == high else f"{low}–{high} {word}"
    raise AssertionError("a second is the smallest unit")


def _dollars(usd: float) -> str:
    return f"{usd:,.0f}" if usd >= 100 else f"{usd:.2f}" if usd >= 0.1 or usd == 0 else f"{usd:.3f}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")
