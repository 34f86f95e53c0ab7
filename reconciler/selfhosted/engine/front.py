"""
The engine's socket: reads calls, hands them to the model thread, writes what comes back.

Everything that needs torch happens on the model thread behind a queue; this loop only moves bytes, so a
client always gets through. A client that hangs up takes its calls with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import queue
import signal
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from reconciler.selfhosted.engine import wire


class Key(NamedTuple):
    """Names one call in the engine: which connection, and the client's number for it."""

    connection: int
    call: int


class Command(NamedTuple):
    """What the model thread is told; cancelling a call it does not know means nothing."""

    key: Key
    request: wire.Request | None  # None: the connection ended, and its calls with it


class Message(NamedTuple):
    """What the model thread says back to whoever made the call."""

    key: Key
    reply: wire.Reply


class Front:
    def __init__(self, inbox: queue.SimpleQueue[Command]) -> None:
        self._inbox = inbox
        self._loop = asyncio.get_running_loop()
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._numbers = itertools.count()

    def post(self, messages: Sequence[Message]) -> None:
        """Send replies; called on the model thread."""
        self._loop.call_soon_threadsafe(self._write, messages)

    def _write(self, messages: Sequence[Message]) -> None:
        for key, reply in messages:
            writer = self._writers.get(key.connection)
            if writer is not None:
                writer.write(wire.frame(reply))

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends or says something that is not a request."""
        connection = next(self._numbers)
        self._writers[connection] = writer
        try:
            while (request := await wire.read(reader, wire.requests)) is not None:
                self._inbox.put(Command(Key(connection, request.call), request))
        except msgspec.DecodeError:
            pass  # not our client; hanging up is the answer
        finally:
            del self._writers[connection]
            self._inbox.put(Command(Key(connection, -1), None))
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def model_thread(inbox: queue.SimpleQueue[Command], front: Front, threads: int | None, memory: int) -> None:
    """Import torch and run the scheduler; the process has no use without it."""
    try:
        from reconciler.selfhosted.engine.scheduler import Scheduler

        Scheduler(inbox, front.post, threads=threads, memory=memory).run()
    except BaseException:
        traceback.print_exc()
        os._exit(70)  # half an engine would keep its callers waiting; a dead one is started again


async def serve(uds: Path, *, threads: int | None, memory: int) -> None:
    """Listen on `uds` until SIGTERM."""
    inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
    front = Front(inbox)
    thread = threading.Thread(
        target=model_thread, args=(inbox, front, threads, memory), name="model", daemon=True
    )
    thread.start()
    uds.unlink(missing_ok=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_unix_server(front.connected, path=uds)
    print("ready", flush=True)
    os.dup2(2, 1)  # nobody reads our standard output any further, and a full pipe would stop us
    await stop.wait()
    server.close()
    uds.unlink(missing_ok=True)
    os._exit(0)  # nothing here outlives its callers, and torch takes its time to tidy up
