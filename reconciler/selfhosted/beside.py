"""Work beside the requests of a server: it lives as long as the server does, and sleeps until it is woken."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine


@contextlib.asynccontextmanager
async def running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Do the work meanwhile; on leaving it is cancelled, and awaited until it has tidied up."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def woken(wake: asyncio.Event, seconds: float) -> None:
    """Until somebody wakes us, or so long at most."""
    # not wait_for: before Python 3.12 it swallows a cancel that comes together with the event
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()
