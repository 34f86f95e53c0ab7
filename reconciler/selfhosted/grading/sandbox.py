"""
A pool of sandboxed workers that run strangers' `grade(sample, item)`.

A worker belongs to one source for its whole life, and each item runs in a process of its own inside it:
an item can spoil its own score and nothing else. We hand in JSON and take back one number; nothing that comes
out is ever unpickled, evaluated or trusted to be short. Where workers cannot be isolated nothing runs,
unless the pool was made `unsafe`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from . import isolation
from .isolation import NoIsolation

Kind = Literal["unavailable", "died", "raised", "no_answer", "not_a_number", "timeout", "forged", "syntax"]

MAX_FRAME = 64 << 20  # bytes of one item with its sample
MAX_REPLY = 64 << 10
STARTING_SECONDS = 30.0  # importing scikit-learn from a cold disk takes a while
GRACE_SECONDS = 10.0  # beyond the wall limit, which the worker itself enforces


class GraderFailed(Exception):
    """No score came out. `unavailable` and `died` are our fault, the other kinds the grader's."""

    def __init__(self, kind: Kind, details: str) -> None:
        super().__init__(details)
        self.kind = kind
        self.details = details


@dataclass(frozen=True)
class Limits:
    """What one item may take. Its processor time is bounded by its wall time, for it has one thread."""

    wall_seconds: float = 120.0
    memory_bytes: int = 2 << 30


class _WorkerDied(Exception):
    """The worker ended, or broke the protocol; the message is what it left on stderr."""


class Sandbox:
    """Runs graders on `turns` items at once (default: one per processor), keeping `workers` of them warm."""

    def __init__(
        self,
        *,
        turns: int | None = None,
        workers: int = 8,
        limits: Limits | None = None,
        unsafe: bool = False,
    ) -> None:
        self._turns = asyncio.Semaphore(turns or os.cpu_count() or 1)
        self._room = max(workers, turns or os.cpu_count() or 1)
        self._limits = limits or Limits()
        self._unsafe = unsafe
        self._idle: list[_Worker] = []  # least recently used first
        self._live: set[_Worker] = set()
        self._missing: str | None = None
        self._proven = False

    async def start(self) -> None:
        """Look for what isolation needs. No worker starts before the first grader does."""
        try:
            isolation.launch(unsafe=self._unsafe, seccomp_file=0)
        except NoIsolation as missing:
            self._missing = str(missing)

    async def close(self) -> None:
        """End every worker."""
        self._idle.clear()
        await asyncio.gather(*(self._end(worker) for worker in list(self._live)))

    async def refusal(self) -> str | None:
        """Why graders cannot run here, and what to do about it; None when a worker was seen to start."""
        if self._missing is None and not self._proven:
            try:
                await self._end(await self._begin("def grade(sample, item): return 1.0"))
            except NoIsolation as missing:
                return str(missing)
            except (_WorkerDied, TimeoutError) as died:
                why = f"bubblewrap could not start a sandbox ({died or 'it took too long'})"
                return isolation.HOW_TO_ALLOW.format(why=why)
            self._proven = True
        return self._missing

    async def check(self, source: str) -> str | None:
        """What is wrong with a source before it ever runs: a syntax error, or no sandbox to run it in."""
        async with self._turns:
            try:
                worker = await self._worker_for(source)
            except GraderFailed as failed:
                return failed.details
            self._idle.append(worker)
            return worker.problem

    async def run(self, source: str, item: Mapping[str, Any], sample: Mapping[str, Any]) -> float:
        """The number that `grade(sample, item)` returns. Raises GraderFailed."""
        frame = json.dumps({"item": item, "sample": sample}).encode()
        if len(frame) > MAX_FRAME:
            raise GraderFailed(
                "raised", f"the item has {len(frame)} bytes; a grader takes at most {MAX_FRAME}"
            )
        async with self._turns:
            worker = await self._worker_for(source)
            if worker.problem is not None:
                self._idle.append(worker)
                raise GraderFailed("syntax", worker.problem)
            try:
                reply = await self._asked(worker, frame)
            except BaseException:  # also when cancelled: an answer still to come must not meet the next item
                await asyncio.shield(self._end(worker))
                raise
            self._idle.append(worker)
        return _score(reply)

    async def _asked(self, worker: _Worker, frame: bytes) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(self._limits.wall_seconds + GRACE_SECONDS):
                return await worker.ask(frame)
        except _WorkerDied as died:
            raise GraderFailed("died", f"the sandbox ended while it graded: {died}") from died
        except TimeoutError:
            raise GraderFailed("timeout", f"no answer in {self._limits.wall_seconds:g} s") from None

    async def _worker_for(self, source: str) -> _Worker:
        """A worker that never ran another source: a warm one, or a new one in the place of the oldest."""
        digest = _digest(source)
        for worker in [idle for idle in self._idle if idle.digest == digest][::-1]:
            self._idle.remove(worker)
            if worker.is_alive:
                return worker
            await self._end(worker)  # ended from outside while it waited
        refusal = await self.refusal()
        if refusal is not None:
            raise GraderFailed("unavailable", refusal)
        try:
            return await self._begin(source)
        except _WorkerDied as died:
            raise GraderFailed("died", f"the sandbox ended while it read the source: {died}") from died
        except TimeoutError:
            why = f"the source and its imports took longer than {STARTING_SECONDS:g} s"
            raise GraderFailed("timeout", why) from None

    async def _begin(self, source: str) -> _Worker:
        while len(self._live) >= self._room and self._idle:
            await self._end(self._idle.pop(0))
        worker = await _Worker.begin(source, self._limits, self._unsafe)
        self._live.add(worker)
        try:
            async with asyncio.timeout(STARTING_SECONDS):
                await worker.ready()
        except BaseException:  # also when cancelled
            await asyncio.shield(self._end(worker))
            raise
        return worker

    async def _end(self, worker: _Worker) -> None:
        self._live.discard(worker)
        await worker.end()


class _Worker:
    """One process outside, one source inside."""

    def __init__(self, process: asyncio.subprocess.Process, digest: str) -> None:
        self._process = process
        self.digest = digest
        self.problem: str | None = None

    @classmethod
    async def begin(cls, source: str, limits: Limits, unsafe: bool) -> _Worker:
        filter_file, sink = os.pipe()
        try:
            launch = isolation.launch(unsafe=unsafe, seccomp_file=filter_file)
            os.write(sink, launch.worker_filter)  # a kilobyte: the pipe holds it
            process = await asyncio.create_subprocess_exec(
                *launch.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=launch.environment,
                pass_fds=(filter_file,),
                start_new_session=True,  # Ctrl-C in our terminal is for us
            )
        finally:
            os.close(sink)
            os.close(filter_file)
        worker = cls(process, _digest(source))
        hello = {
            "source": source,
            "limits": {"wall_seconds": limits.wall_seconds, "memory_bytes": limits.memory_bytes},
            "libraries": launch.libraries,
            "filter": launch.item_filter.hex(),
        }
        worker._send(json.dumps(hello).encode())
        return worker

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def ready(self) -> None:
        hello = await self._receive()
        self.problem = None if hello.get("ready") is True else str(hello.get("details"))

    async def ask(self, frame: bytes) -> Mapping[str, Any]:
        self._send(frame)
        return await self._receive()

    async def end(self) -> None:
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.communicate()

    def _send(self, body: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(len(body).to_bytes(4, "big") + body)

    async def _receive(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        try:
            size = int.from_bytes(await self._process.stdout.readexactly(4), "big")
            if size > MAX_REPLY:
                raise _WorkerDied(f"it announced a reply of {size} bytes")
            reply = json.loads(await self._process.stdout.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise _WorkerDied(await self._last_words()) from None
        except (ValueError, RecursionError):
            raise _WorkerDied("its reply is not JSON") from None
        if not isinstance(reply, dict):
            raise _WorkerDied("its reply is not an object")
        return reply

    async def _last_words(self) -> str:
        assert self._process.stderr is not None
        text = (await self._process.stderr.read(2_000)).decode("utf-8", "replace").strip()
        return text.splitlines()[-1] if text else "it said nothing"


def _score(reply: Mapping[str, Any]) -> float:
    """The number in a worker's reply, checked once more on this side. Pure."""
    score = reply.get("score")
    if isinstance(score, float) and math.isfinite(score):
        return score
    kind = reply.get("failed")
    if kind not in ("raised", "no_answer", "not_a_number", "timeout", "forged"):
        raise GraderFailed("died", "the sandbox gave neither a score nor a reason")
    raise GraderFailed(kind, str(reply.get("details"))[:2_000])


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
