"""
The engine as the rest of the platform sees it: an asyncio object that starts the process on first use.

Generation changes nothing in the world, so a call that was in flight when the process died is simply made
once more on a new process. Cheap to import: no torch on this side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

from reconciler.selfhosted.engine import wire
from reconciler.selfhosted.engine.connection import Connection, Lost, Numbered
from reconciler.selfhosted.engine.values import Answer, Ask, Embedding, EngineError, Text

LONGEST_SOCKET_PATH = 107  # bytes; sun_path in unix(7)


class Engine:
    """
    One engine process and a connection to it; belongs to one event loop.

    The process dies with the thread that first used it (so use it from a thread that stays). `uds` is where
    its socket goes, a private temporary folder when None; `log` receives what the process writes to
    standard error.
    """

    def __init__(
        self,
        uds: Path | None = None,
        *,
        threads: int | None = None,
        memory: int | None = None,
        log: Path | None = None,
    ) -> None:
        self._folder = None if uds else Path(tempfile.mkdtemp(prefix="engine-"))
        self._uds = uds or Path(str(self._folder)) / "engine.sock"
        self._threads, self._memory, self._log = threads, memory, log
        self._process: asyncio.subprocess.Process | None = None
        self._connection: Connection | None = None
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The running process, for whoever supervises it."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Make sure a process is running and connected; calls do this themselves."""
        await self._connected()

    async def close(self) -> None:
        """End the process; calls in flight fail."""
        async with self._starting:
            if self._connection:
                await self._connection.close()
                self._connection = None
            await self._end_process()
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)

    async def load(self, model: str) -> None:
        """Have `model` ready to answer; raises `EngineError` if it never will be."""
        await self._final(lambda call: wire.Load(call, model))

    async def generate(self, asks: Sequence[Ask]) -> list[Answer | EngineError]:
        """
        Answer a list as one unit, in its order; the same list gives the same answers (seed what is not
        greedy).

        An ask that cannot be answered gives its error in its place; raises `EngineError` only without an
        engine.
        """
        if not asks:
            return []
        listed = list(asks)
        done = await self._final(lambda call: wire.Generate(call, listed))
        return [_result(outcome) for outcome in done.outcomes]

    async def embed(self, model: str, texts: Sequence[Text]) -> list[Embedding]:
        """One vector per text, in their order; raises `EngineError` when one of them cannot be embedded."""
        if not texts:
            return []
        listed = list(texts)
        return (await self._final(lambda call: wire.Embed(call, model, listed))).embeddings

    async def answer(self, ask: Ask) -> Answer:
        """One answer, in a batch shared with whatever else is asked at the time."""
        async for part in self.stream(ask):
            if isinstance(part, Answer):
                return part
        raise AssertionError("a stream ends with its answer")

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Answer, None]:
        """The text as it comes, then the answer; the pieces make `answer.text`. Closing it early cancels."""
        if ask.seed is None:
            ask = replace(ask, seed=secrets.randbits(62))  # so that a second try repeats the first
        given = ""
        for _ in (1, 2):
            try:
                async with contextlib.aclosing(self._attempt(ask, given)) as parts:
                    async for part in parts:
                        given += part if isinstance(part, str) else ""
                        yield part
                return
            except Lost:
                continue
        raise _died_twice()

    async def _attempt(self, ask: Ask, given: str) -> AsyncGenerator[str | Answer, None]:
        """Stream once, leaving out what an earlier attempt has `given` already."""
        text = ""
        connection = await self._connected()
        async with contextlib.aclosing(connection.call(lambda call: wire.Stream(call, ask))) as replies:
            async for reply in replies:
                if isinstance(reply, wire.Done):
                    result = _result(reply.outcomes[0])
                    if isinstance(result, EngineError):
                        raise result
                    yield result
                    return
                before, text = max(len(text), len(given)), text + reply.text
                if text[: len(given)] != given[: len(text)]:
                    raise EngineError(
                        "engine_unavailable", "the engine process died in the middle of the answer"
                    )
                if text[before:]:
                    yield text[before:]

    async def _final(self, request: Numbered) -> wire.Done:
        for _ in (1, 2):
            connection = await self._connected()
            try:
                async with contextlib.aclosing(connection.call(request)) as replies:
                    async for reply in replies:
                        if isinstance(reply, wire.Done):
                            return reply
            except Lost:
                continue
        raise _died_twice()

    async def _connected(self) -> Connection:
        async with self._starting:
            if self._connection is None or self._connection.lost:
                self._connection = await self._reconnect()
            return self._connection

    async def _reconnect(self) -> Connection:
        """Connect to a new process; one that hung up on us is dying, though its socket may still accept."""
        await self._end_process()
        if len(os.fsencode(self._uds)) > LONGEST_SOCKET_PATH:
            raise EngineError(
                "engine_unavailable",
                f"the socket path {self._uds} is over {LONGEST_SOCKET_PATH} bytes; use a shorter folder",
            )
        await self._start_process()
        try:
            return Connection(*await asyncio.open_unix_connection(self._uds))
        except OSError as error:
            raise EngineError(
                "engine_unavailable", f"the engine's socket {self._uds} does not answer: {error}"
            ) from error

    async def _start_process(self) -> None:
        options = ["--uds", str(self._uds), "--parent", str(os.getpid())]
        options += ["--threads", str(self._threads)] if self._threads else []
        options += ["--memory", str(self._memory)] if self._memory else []
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._log.open("ab")) if self._log else None
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "reconciler.selfhosted.engine", *options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            code = await process.wait()
            where = f"see {self._log}" if self._log else "its standard error says why"
            raise EngineError(
                "engine_unavailable", f"the engine process ended with code {code} at its start; {where}"
            )

    async def _end_process(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()  # it keeps nothing
        await self._process.wait()
        self._process = None


def _result(outcome: wire.Outcome) -> Answer | EngineError:
    if outcome.answer is not None:
        return outcome.answer
    assert outcome.failure is not None
    return outcome.failure.error()


def _died_twice() -> EngineError:
    return EngineError("engine_unavailable", "the engine process died twice during this call; see its log")
