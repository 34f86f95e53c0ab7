"""
Several processes for one job, as torchrun would start them: the same program with a rank each.

The process that was started launches the others, waits, and answers for all of them: one that dies is the
end of all, and a crash of the job, which goes on when it is started again. What they have in common is the
folder's lock, which nobody can take before the last of them is gone. Free of torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reconciler.selfhosted.training.failures import Failure, Stopped
from reconciler.selfhosted.training.folder import JobFolder

STOPPED = os.EX_TEMPFAIL  # the exit code of a process that was asked to stop
FAILED = os.EX_DATAERR  # of a rank that said why the job cannot succeed
LEAVING = 30.0  # seconds that the others may take to stop when one has
_LOOK = 0.05  # seconds


class Rank(NamedTuple):
    """One of `of` processes; what it cannot do is said into `pipe`, for the disk may be full."""

    number: int
    of: int
    pipe: int

    def refuse(self, failure: Failure) -> int:
        """Have the process that launched us tell why the job cannot succeed; our exit code."""
        said = json.dumps([failure.code, failure.message, failure.param])
        os.write(self.pipe, said.encode() + b"\n")
        return FAILED


class Crashed(Exception):
    """One of the processes died; start the job again to go on. `code` is ours, as a shell would have it."""

    def __init__(self, count: int, ended: int) -> None:
        super().__init__(f"one of {count} processes ended with {ended}")
        self.code = ended if ended > 0 else 128 - ended


def together(folder: JobFolder, count: int, lock: int) -> None:
    """Train in `count` processes to the end. Raises Failure, Crashed, or Stopped after a SIGTERM."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as said, _started(folder, count, [lock, writing]) as processes:
        os.close(writing)
        signal.signal(signal.SIGTERM, lambda *_: _send(processes, signal.SIGTERM))
        code = _wait(processes)
        _end(processes)
        if line := said.readline():
            raise Failure(*json.loads(line))
    if code == STOPPED:
        raise Stopped
    if code:
        raise Crashed(count, code)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    stopped_at = None
    while (code := outcome([process.poll() for process in processes])) is None:
        if any(process.returncode == STOPPED for process in processes):
            stopped_at = stopped_at or time.monotonic()
            if time.monotonic() - stopped_at > LEAVING:
                return STOPPED
        time.sleep(_LOOK)
    return code


def outcome(codes: Sequence[int | None]) -> int | None:
    """The exit code of all, None while it is open; one that broke decides for the others. Pure."""
    broken = [code for code in codes if code not in (None, 0, STOPPED)]
    if broken:
        return broken[0]
    if None in codes:
        return None
    return STOPPED if STOPPED in codes else 0


@contextlib.contextmanager
def _started(folder: JobFolder, count: int, shared: list[int]) -> Iterator[list[subprocess.Popen[bytes]]]:
    command = [sys.executable, "-m", "reconciler.selfhosted.training", str(folder.root)]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(count):
            ours = [str(part) for part in Rank(number, count, shared[-1])]
            processes.append(subprocess.Popen([*command, *ours], stdin=subprocess.DEVNULL, pass_fds=shared))
        yield processes
    finally:
        _end(processes)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    _send(processes, signal.SIGKILL)
    for process in processes:
        process.wait()


def _send(processes: Sequence[subprocess.Popen[bytes]], what: signal.Signals) -> None:
    for process in processes:
        process.send_signal(what)  # nothing where it has ended
