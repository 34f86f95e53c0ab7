"""A server that can be killed while its batch waits for an answer; prints its port, and `blocked` then."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from eval_base import FakeEngine, Server, echo

from reconciler.selfhosted.engine import Answer, Ask


class SlowEngine(FakeEngine):
    """Writes down what it answers; never answers `stuck` while `sticks` is set."""

    sticks = True

    async def stream(self, ask: Ask) -> AsyncIterator[str | Answer]:
        if echo(ask) == "stuck" and self.sticks:
            await self._stick(ask)
        assert self.log is not None
        with self.log.open("a") as log:
            log.write(echo(ask) + "\n")
        async for piece in super().stream(ask):
            yield piece


def main(data: Path, sticks: bool) -> None:
    engine = SlowEngine()
    engine.log, engine.sticks = data / "answered", sticks
    server = Server(data, engine)
    print(server.socket.getsockname()[1], flush=True)
    threading.Thread(target=lambda: engine.stuck.wait() and print("blocked", flush=True), daemon=True).start()
    server.uvicorn.run(sockets=[server.socket])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "sticks")
