"""The platform over a stub engine and a stub trainer, remembering every exchange with its route."""

from __future__ import annotations

import contextlib
import http.server
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from eval_base import FakeEngine, Server, echo
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reconciler.selfhosted import app
from reconciler.selfhosted.engine import Answer, Ask, EngineError

TRAINER = Path(__file__).parents[1] / "selfhosted/server_trainer.py"
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


class Exchange(NamedTuple):
    """One request and its answer, with the SDK's own word for how it was sent: `false`, `async:asyncio`."""

    method: str
    route: str  # the path's template; empty where no endpoint is
    asynchronous: str
    status: int
    media: str
    body: bytes
    path: str
    sent: bytes

    def __str__(self) -> str:
        return f"{self.method} {self.route} {self.status}"


class Recorder:
    """Notes what passes; changes nothing."""

    def __init__(self, inner: ASGIApp, routes: Sequence[BaseRoute], exchanges: list[Exchange]) -> None:
        self._inner, self._routes, self._exchanges = inner, routes, exchanges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        status, media, body, sent = 0, "", bytearray(), bytearray()

        async def hear() -> Message:
            message = await receive()
            sent.extend(message.get("body", b""))
            return message

        async def note(message: Message) -> None:
            nonlocal status, media
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = dict(message["headers"])
                media = headers.get(b"content-type", b"").decode().partition(";")[0]
            body.extend(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                asynchronous = dict(scope["headers"]).get(b"x-stainless-async", b"").decode()
                route = template(self._routes, scope)
                said = (status, media, bytes(body), scope["path"], bytes(sent))
                self._exchanges.append(Exchange(scope["method"], route, asynchronous, *said))
            await send(message)

        await self._inner(scope, hear, note)


def template(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """The path template of the endpoint that answers, the first that matches as in the app itself."""
    for route in routes:
        if isinstance(route, Route) and route.matches(scope)[0] is Match.FULL:
            return route.path
    return ""


class ContractEngine(FakeEngine):
    """Echoes; calls a tool when it is given one; never answers `stuck`."""

    async def generate(self, asks: Sequence[Ask]) -> list[Answer | EngineError]:
        for ask in asks:
            if echo(ask) == "stuck":
                await self._stick(ask)
        return await super().generate(asks)

    async def stream(self, ask: Ask) -> AsyncIterator[str | Answer]:
        if echo(ask) == "stuck":
            await self._stick(ask)
        if ask.tools:
            yield Answer("", "tool_calls", [CALL], 1, 1, None)
            return
        async for piece in super().stream(ask):
            yield piece


class Platform(Server):
    """The server of the eval tests that also trains, takes models and remembers."""

    def __init__(self, data: Path, store: str | None = None) -> None:
        super().__init__(
            data,
            ContractEngine(),
            store=store,
            trainer=(sys.executable, str(TRAINER)),
            model_sources=True,
            embedding_model="tiny",
        )
        self.exchanges: list[Exchange] = []
        recorder = Recorder(self.application, app.all_routes(), self.exchanges)
        config = uvicorn.Config(recorder, log_config=None, timeout_graceful_shutdown=1)
        self.uvicorn = uvicorn.Server(config)

    def hold(self, name: str) -> tuple[dict[str, Any], Path]:
        """A plan that keeps the stub trainer at its second step until the file exists."""
        go = self.here.data / f"go-{name}"
        return {"plan": {"hold_at": 2, "go": str(go)}}, go


@contextlib.contextmanager
def listener() -> Iterator[str]:
    """The address of somebody who thanks for every webhook."""

    class Thanks(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Thanks)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
