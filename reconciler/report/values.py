"""
What a report is about, as values: the verdicts, the runs they rest on, and where all of it came from.

Items are kept in a compact form, for a run may have tens of thousands of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler.gates import Trial, Verdict

CANDIDATE, BASELINE, SUBJECT = "candidate", "baseline", "subject"  # a run's part in the report
PASS, FAIL, ERROR = "pass", "fail", "error"  # an item's status
Facts = tuple[tuple[str, str], ...]  # name and value, in reading order


class Grade(NamedTuple):
    """What one grader made of an answer. `note` is why it could not, or what it missed."""

    grader: str
    passed: bool
    score: float | None
    note: str = ""
    errored: bool = False


class Item(NamedTuple):
    """One item and its answer. `latency_ms` is of the batch that held it; None where nobody measured."""

    id: str
    status: str
    fields: Mapping[str, Any]
    answer: str
    grades: tuple[Grade, ...]
    error: str = ""
    latency_ms: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Usage(NamedTuple):
    """What one model was asked in a run, judges among them."""

    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Run:
    """One subject measured by one eval. `total` is how many items there should be."""

    address: str
    eval: str
    subject: str
    part: str
    id: str
    model: str
    created_at: float  # unix seconds
    graders: tuple[str, ...]
    items: tuple[Item, ...]
    total: int
    usage: tuple[Usage, ...] = ()
    sampling: Facts = ()
    cluster: str = ""  # the item field that says which items are not independent

    @property
    def passed(self) -> int:
        return sum(item.status == PASS for item in self.items)

    @property
    def errored(self) -> int:
        """Items that could not be judged, and those that are missing."""
        return sum(item.status == ERROR for item in self.items) + max(0, self.total - len(self.items))


class Origin(NamedTuple):
    """One thing that the results came from."""

    what: str
    address: str
    id: str
    digest: str
    detail: str = ""


@dataclass(frozen=True)
class Card:
    """What is known of one subject: how it was made, never the rows it was made from."""

    subject: str
    model: str
    facts: Facts
    checkpoints: tuple[Mapping[str, float], ...] = ()  # by step, oldest first


@dataclass(frozen=True)
class Gate:
    """One gate as its author wrote it."""

    eval: str
    grader: str | None
    wanted: str  # e.g. `pass_rate at least 80.0%`

    @property
    def name(self) -> str:
        return f"{self.eval} {self.grader}" if self.grader else self.eval


@dataclass(frozen=True)
class Report:
    """Everything a reader may ask. `verdict` is None where nothing was to be judged, or not yet."""

    project: str
    platform: str
    address: str
    made_at: float  # unix seconds
    headline: str
    detail: str
    verdict: Verdict | None
    runs: tuple[Run, ...]
    confidence: float = 0.95
    gates: tuple[Gate, ...] = ()
    trials: tuple[Trial, ...] = ()  # each with one judgement per gate
    origins: tuple[Origin, ...] = ()
    cards: tuple[Card, ...] = ()

    @property
    def evals(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.eval for run in self.runs))

    def of(self, eval_: str) -> tuple[Run, ...]:
        """The runs of an eval: the baseline first, as it is read from left to right."""
        order = (BASELINE, CANDIDATE, SUBJECT)
        return tuple(
            sorted((run for run in self.runs if run.eval == eval_), key=lambda r: order.index(r.part))
        )

    @property
    def pairs(self) -> Iterable[tuple[Run, Run]]:
        """Baseline and candidate, wherever both were measured by the same eval."""
        for eval_ in self.evals:
            runs = self.of(eval_)
            for baseline in (run for run in runs if run.part == BASELINE):
                for candidate in (run for run in runs if run.part == CANDIDATE):
                    yield baseline, candidate
