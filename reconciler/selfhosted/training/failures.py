"""
How a job ends without a model. A `Failure` is an answer to the person who asked for the job: a code, one
sentence, and the field that is to blame. Whatever is not one is a crash, and a crash is repeated by the
supervisor.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator


class Failure(Exception):
    """The job cannot succeed; running it again would fail the same way."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class Stopped(Exception):
    """Somebody asked the process to stop; what was trained so far is saved."""


OUT_OF_MEMORY = (
    "the job ran out of memory; choose a smaller batch_size, shorter rows, lora tuning or a smaller model"
)
DISK_FULL = (
    "the job could not write its files; as a rule the disk is full: free some space and create it again"
)

_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
_DISK = (
    "no space left on device",
    "disk quota exceeded",
    "iostream error",  # what torch.save says of a write that failed, here and in the next line
    "inline_container",
)


def explain(error: BaseException) -> Failure | None:
    """The failure that a low-level error stands for, None if it is a fault of ours. Pure."""
    for cause in _causes(error):
        if isinstance(cause, Failure):
            return cause
        text = str(cause).lower()
        if isinstance(cause, MemoryError) or any(words in text for words in _MEMORY):
            return Failure("out_of_memory", OUT_OF_MEMORY)
        full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or any(words in text for words in _DISK):
            return Failure("disk_full", DISK_FULL)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
