"""
Calls over one socket to the engine, told apart by number.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable

import msgspec

from reconciler.selfhosted.engine import wire
from reconciler.selfhosted.engine.values import EngineError

Numbered = Callable[[int], wire.Request]  # makes a request of its call number


class Lost(Exception):
    """The connection ended while a call was in flight."""


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lost = False
        self._writer = writer
        self._numbers = itertools.count()
        self._calls: dict[int, asyncio.Queue[wire.Reply | None]] = {}
        self._listening = asyncio.create_task(self._listen(reader))

    async def close(self) -> None:
        """Hang up; calls in flight are lost."""
        self._writer.close()
        await self._listening

    async def call(self, request: Numbered) -> AsyncGenerator[wire.Delta | wire.Done, None]:
        """The replies to one request, `Done` last; raises its failure or `Lost`. Leaving early cancels it."""
        number = next(self._numbers)
        queue: asyncio.Queue[wire.Reply | None] = asyncio.Queue()
        self._calls[number] = queue
        asked = ended = False
        try:
            if self.lost:
                raise Lost
            self._writer.write(_frame(request(number)))
            asked = True
            while not ended:
                reply = await queue.get()
                ended = not isinstance(reply, wire.Delta)
                if reply is None:
                    raise Lost
                if isinstance(reply, wire.Failed):
                    raise reply.failure.error()
                yield reply
        finally:
            del self._calls[number]
            if asked and not ended and not self.lost:
                self._writer.write(wire.frame(wire.Cancel(number)))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while (reply := await wire.read(reader, wire.replies)) is not None:
                if queue := self._calls.get(reply.call):
                    queue.put_nowait(reply)
        except msgspec.DecodeError:
            pass  # not an engine of ours; as good as gone
        finally:
            self.lost = True
            self._writer.close()
            for queue in self._calls.values():
                queue.put_nowait(None)


def _frame(request: wire.Request) -> bytes:
    """
    The request's bytes; `invalid_request` for what the engine could not read.

    Read here, because the engine hangs up on what is no request, and on all other calls with it.
    """
    try:
        frame = wire.frame(request)
        wire.requests.decode(memoryview(frame)[wire.HEADER :])
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        raise EngineError("invalid_request", f"the engine cannot be asked this: {error}") from error
    return frame
