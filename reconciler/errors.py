"""
Everything that can go wrong, sorted by what the caller should do next.

Each message is one sentence for a person: what happened, to whom, what to do. Lower case,
no trailing dot, never a secret or a training row.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing wrong with what somebody wrote, and the place to mend it."""

    where: str  # path:line
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class ReconcilerError(Exception):
    """Anything a user is told in one sentence. `exit_code` is the process's answer to it."""

    exit_code = 1


class ManifestError(ReconcilerError):
    """What was written cannot be used; carries every problem, not the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=_by_place))
        super().__init__("\n".join(map(str, self.problems)))


class PlatformError(ReconcilerError):
    """A platform did not do what was asked."""


class Busy(PlatformError):
    """Nothing happened; the same call may succeed later."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds


class Rejected(PlatformError):
    """Nothing happened, and the same call never will succeed."""

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Unclear(PlatformError):
    """It may have happened: look before asking again."""


class Unreachable(PlatformError):
    """Nothing was sent, or a read gave up after its retries."""


class Refused(ReconcilerError):
    """Policy, budget or a moved fact forbids it."""

    exit_code = 6


def _by_place(problem: Problem) -> tuple[str, int, str]:
    path, _, line = problem.where.rpartition(":")
    return (path, int(line), problem.what) if line.isdecimal() else (problem.where, 0, problem.what)
