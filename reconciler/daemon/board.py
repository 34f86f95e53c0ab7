"""
What the daemon knows of itself, for those who ask while it works.

The loop writes; whoever answers requests reads. A `Moment` is never changed, only replaced.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.drift import Finding
from reconciler.engine import Pass

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds a pass may take


@dataclass(frozen=True)
class Moment:
    """How things stood after a pass. Times are unix seconds."""

    project: str | None = None
    platform: str | None = None
    commit: str | None = None
    number: int = 0  # passes so far
    began_at: float = 0.0
    ended_at: float = 0.0
    done: Pass | None = None  # None when the pass failed, or none was yet
    error: str | None = None  # why the pass failed
    problems: tuple[str, ...] = ()  # of manifests that could not be read
    kept: tuple[str, ...] = ()  # what stands as it was because of them
    drift: tuple[Finding, ...] = ()
    money: Mapping[str, float] = field(default_factory=dict)  # US dollars: spent, reserved

    @property
    def healthy(self) -> bool:
        """The platform was seen and the pass came to its end."""
        return self.done is not None and not self.done.unseen


class Board:
    """One for a daemon."""

    def __init__(self) -> None:
        self.moment = Moment()
        self.source: str | None = None  # what is wrong with where the manifests come from
        self.publishing: str | None = None  # what is wrong with where the releases go
        self.busy_since: float | None = None  # unix seconds; while a pass is under way
        self.passes: Counter[str] = Counter()  # by outcome
        self.durations: Counter[float] = Counter()  # passes by bucket's upper end
        self.seconds = 0.0  # of all passes
        self.calls: Counter[tuple[str, str, str]] = Counter()  # verb, collection, outcome
        self.call_seconds = 0.0
        self.webhooks: Counter[str] = Counter()  # by answer
        self._ticket = self._served = 0
        self._changing = threading.Lock()

    @property
    def asked(self) -> int:
        """The newest ticket."""
        return self._ticket

    def ticket(self) -> int:
        """A number that stands for "what is there now"."""
        with self._changing:
            self._ticket += 1
            return self._ticket

    def told(self, verb: str, collection: str, outcome: str, seconds: float) -> None:
        """A call to the platform has ended."""
        with self._changing:
            self.calls[verb, collection, outcome] += 1
            self.call_seconds += seconds

    def show(self, moment: Moment, served: int) -> None:
        """A pass has ended that began after all tickets up to `served`."""
        outcome = "failed" if moment.done is None else "settled" if moment.done.settled else "unsettled"
        took = moment.ended_at - moment.began_at
        with self._changing:
            self.moment, self.busy_since = moment, None
            self.passes[outcome] += 1
            self.durations[next((end for end in BUCKETS if took <= end), float("inf"))] += 1
            self.seconds += took
            self._served = max(self._served, served)

    def answers(self, ticket: int) -> bool:
        """Whether `moment` is of a pass that began after the ticket was given out."""
        return self._served >= ticket
