"""
How long things take, learnt from those that finished. Pure.

Training and measuring have a fixed part and a part that grows with size. So something twice as large takes
between as long and twice as long, and something half as large between half as long and as long; every
finished one of its like gives such a range, and the nearest in size count.
"""

from collections.abc import Iterable, Sequence
from math import log
from typing import NamedTuple

from reconciler.cost import Range

NEAREST = 8
NOISE = 1.2  # how much longer or shorter the same thing takes another time


class Like(NamedTuple):
    """What has to agree so that the time of one thing tells about another's."""

    platform: str
    kind: str
    method: str  # of a job its method, of a run the fingerprint of its eval
    base: str  # the model that everything grew from
    tuning: str = ""


class Pace(NamedTuple):
    """One thing that finished. `size` is in trained tokens, prompts or items, as its kind has it."""

    like: Like
    size: float
    seconds: float | None = None  # None where nobody saw it end
    answered: float | None = None  # tokens of an answer, on average


class Expected(NamedTuple):
    range: Range | None
    why: str


def seconds(like: Like, size: Range, paces: Iterable[Pace]) -> Expected:
    """How long something of this kind and size takes."""
    timed = [pace for pace in paces if pace.seconds is not None and pace.size > 0]
    found = _nearest(like, timed)
    if not found or size.high <= 0:
        noun = "job" if like.kind == "FineTuneJob" else "run"
        return Expected(None, f"no {noun} like it has finished on {like.platform} yet")
    near = sorted(found, key=lambda pace: abs(log(pace.size / size.high)))[:NEAREST]
    ranges = [_scaled(pace, size) for pace in near]
    low = _quantile([each.low for each in ranges], 0.1) / NOISE
    high = _quantile([each.high for each in ranges], 0.9) * NOISE
    return Expected(Range(low, high), f"time as {len(near)} like it took")


def answered(like: Like, paces: Iterable[Pace]) -> Range | None:
    """Tokens of an answer, on average of a run, as like runs had them."""
    known = [pace for pace in paces if pace.answered is not None]
    found = [pace.answered for pace in _nearest(like, known) if pace.answered is not None]
    return Range(min(found), max(found)) if found else None


def _nearest(like: Like, paces: Sequence[Pace]) -> list[Pace]:
    """Those that agree in everything, or else those of the same base and, for jobs, the same method."""
    same = [pace for pace in paces if pace.like == like]
    if same:
        return same

    def akin(other: Like) -> bool:
        alike = (other.platform, other.kind, other.base) == (like.platform, like.kind, like.base)
        return alike and (like.kind != "FineTuneJob" or other.method == like.method)

    return [pace for pace in paces if akin(pace.like)]


def _scaled(pace: Pace, size: Range) -> Range:
    assert pace.seconds is not None  # the timed alone come here
    least, most = min(1.0, size.low / pace.size), max(1.0, size.high / pace.size)
    return Range(pace.seconds * least, pace.seconds * most)


def _quantile(values: Sequence[float], share: float) -> float:
    """Between two values the mean of them by distance."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)
