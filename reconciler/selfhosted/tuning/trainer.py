"""
One trainer process. It is ours: it dies with us, and it is gone before we go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

GRACE = 0.8  # seconds to save a resume state after SIGTERM, when the server stops


class Trainer:
    """A running trainer; leave `started` and it is stopped."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, command: Sequence[str], folder: Path) -> AsyncIterator[Trainer]:
        with (folder / "trainer.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(folder),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal reaches the server alone
                env={**os.environ, "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000")},
            )
        trainer = cls(process)
        try:
            yield trainer
        except asyncio.CancelledError:  # the server stops: the job goes on after its next start
            await trainer._stop(signal.SIGTERM, GRACE)
            raise
        finally:
            await trainer._stop(signal.SIGKILL, GRACE)

    def ask_to_stop(self) -> None:
        """Have it stop after its current step and save; `wait` tells when it has."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)

    async def wait(self, seconds: float) -> int | None:
        """The exit code, or None if it still runs after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for may swallow a cancel before Python 3.12
                return await self._process.wait()
        return None

    async def _stop(self, how: signal.Signals, grace: float) -> None:
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, how)
        await self.wait(grace)
