"""The self-hosted platform on a real port, behind a door that loses, delays and refuses what it is told to."""

import asyncio
import contextlib
import json
import re
import socket
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from eval_base import FakeEngine, add_model

from reconciler.selfhosted import app, auth
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.engine import Ask
from reconciler.selfhosted.storage.blobs import Blobs
from reconciler.selfhosted.storage.store import Store

TRAINER = (sys.executable, str(Path(__file__).parents[1] / "selfhosted" / "server_trainer.py"))
Inside = Callable[[], Awaitable[None]]  # lets the request through and keeps its reply back
Fault = Callable[["Request"], Awaitable[None]]


def says(ask: Ask) -> str:
    """A tuned model knows the number, the base does not."""
    question = str(ask.messages[-1]["content"])
    return question.rpartition(" ")[2] if "/jobs/" in ask.model else "no idea"


class Request:
    """One request at the door, and what can be done with it."""

    def __init__(self, application: Any, scope: Any, receive: Any, send: Any) -> None:
        self.application, self.scope, self.receive, self.send = application, scope, receive, send

    async def effect(self) -> None:
        """What it asks for happens; the reply goes nowhere."""

        async def nowhere(message: Any) -> None: ...

        await self.application(self.scope, self.receive, nowhere)

    async def reply(self, status: int, body: Any, **headers: str) -> None:
        listed = [(b"content-type", b"application/json")]
        listed += [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": listed})
        await self.send({"type": "http.response.body", "body": json.dumps(body).encode()})

    def hang_up(self) -> None:
        self.send.__self__.transport.abort()  # uvicorn's own: an application has no other way to do it

    async def gone(self) -> None:
        """Until the one who asks has given up."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


ERROR = {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}


async def loses_reply(request: Request) -> None:
    await request.effect()
    request.hang_up()


async def loses_request(request: Request) -> None:
    request.hang_up()


async def breaks_reply(request: Request) -> None:
    await request.effect()
    headers = [(b"content-length", b"1000")]
    await request.send({"type": "http.response.start", "status": 200, "headers": headers})
    await request.send({"type": "http.response.body", "body": b'{"id": "ft', "more_body": True})
    request.hang_up()


async def fails_after(request: Request) -> None:
    await request.effect()
    await request.reply(500, ERROR)


async def unavailable(request: Request) -> None:
    await request.reply(503, ERROR)


async def full(request: Request) -> None:
    """As the platform answers when its disk is full."""
    error = {"message": "the platform's disk is full and nothing was stored", "type": "server_error"}
    await request.reply(507, {"error": error | {"param": None, "code": "disk_full"}})


async def no_key(request: Request) -> None:
    error = {"message": "Incorrect API key provided.", "type": "invalid_request_error"}
    await request.reply(401, {"error": error | {"param": None, "code": "invalid_api_key"}})


async def busy(request: Request) -> None:
    await request.reply(429, ERROR, retry_after="7")


async def slow(request: Request) -> None:
    await request.effect()
    await request.gone()


async def empty(request: Request) -> None:
    await request.reply(200, {"object": "list", "data": [], "has_more": False})


class FaultyServer:
    """`faults` by what was asked (`POST files`) are used up one by one; `always` stay."""

    def __init__(self, data: Path, *, plain: bool = False, says: Callable[[Ask], str] = says) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.plain = plain  # without idempotency
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.asked: Counter[str] = Counter()
        self.store = Store(f"sqlite:///{data / 'platform.db'}")
        self.store.write_now(lambda tx: add_model(tx, "tiny-chat", data / "tiny"))
        here = Context(data, self.store, Blobs(data / "blobs"), FakeEngine(says), trainer=TRAINER)
        self.application = app.make(here, auth.Door(self.store))
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        config = uvicorn.Config(self, log_config=None, timeout_graceful_shutdown=1)
        self.uvicorn = uvicorn.Server(config)

    @contextlib.contextmanager
    def running(self) -> Iterator["FaultyServer"]:
        thread = threading.Thread(target=self.uvicorn.run, kwargs={"sockets": [self.socket]})
        thread.start()
        try:
            yield self
        finally:
            self.uvicorn.should_exit = True
            thread.join()
            self.store.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        path = re.sub(r"evals/[^/]+/runs", "runs", scope["path"].removeprefix("/v1/"))
        what = f"{scope['method']} {path}"
        self.asked[what] += 1
        request = Request(self.application, scope, receive, send)
        if what == "GET reconciler" and self.plain:
            await request.reply(200, {"object": "reconciler.platform", "capabilities": ["aliases"]})
        elif waiting := self.faults.get(what):
            await waiting.pop(0)(request)
        elif what in self.always:
            await self.always[what](request)
        else:
            with contextlib.suppress(asyncio.CancelledError):
                await self.application(scope, receive, send)
