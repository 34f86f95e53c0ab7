"""
How long a job still takes, from what its steps took. It reads no clock.

Steps are of three kinds, for some measure a few validation rows, or all of them, beside training. Each kind
has its own pace, what it usually took lately; the first tenth of a job may hold no step of the costly kind,
and until there was one a guess stands for it. The first step also pays for what is made ready once, and
counts only while there is no other.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Literal

Kind = Literal["plain", "glance", "whole"]

RECENT = 200  # steps that the pace is taken from: enough to see through a busy minute
_EXTREME = 2.0  # times the median, or one by it: what takes longer or shorter counts as so much


class Pace:
    """`ahead` are the steps to do; a whole validation is guessed to take `guess` plain steps."""

    def __init__(self, ahead: Mapping[Kind, int], guess: float) -> None:
        self._ahead = Counter(ahead)
        self._guess = guess
        self._first: float | None = None
        self._took: dict[Kind, deque[float]] = {
            kind: deque(maxlen=RECENT) for kind in ("plain", "glance", "whole")
        }

    def took(self, kind: Kind, seconds: float) -> None:
        """A step is done."""
        self._ahead[kind] -= 1
        if self._first is None:
            self._first = seconds
        else:
            self._took[kind].append(seconds)

    def longer(self, kind: Kind, seconds: float) -> None:
        """The step that was done last took so much more, for it was saved too."""
        if self._took[kind]:
            self._took[kind][-1] += seconds

    def left(self) -> float:
        """Seconds, 0 while nothing is known."""
        return seconds_left(self._ahead, self._took, self._first or 0.0, self._guess)


def seconds_left(
    ahead: Mapping[Kind, int], took: Mapping[Kind, Sequence[float]], first: float, guess: float
) -> float:
    """What the steps ahead will take. Pure."""
    known = {kind: usual(seconds) for kind, seconds in took.items() if seconds}
    plain = known.get("plain", min([first, *known.values()]))
    glance = known.get("glance", plain)
    whole = known.get("whole", plain * (1 + guess))
    return ahead["plain"] * plain + ahead["glance"] * glance + ahead["whole"] * whole


def usual(seconds: Sequence[float]) -> float:
    """Their mean, in which the extremes count less. Pure."""
    middle = median(seconds)
    return mean(min(max(each, middle / _EXTREME), middle * _EXTREME) for each in seconds)
