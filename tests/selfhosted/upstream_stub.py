"""An OpenAI-compatible server on a real port that answers, refuses, drops and stalls as a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from aiohttp import web

Reply = web.StreamResponse | None  # None: the connection is dropped
Says = Callable[[web.Request, dict[str, Any]], Awaitable[Reply]]


def question(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def completion(text: str, **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "there",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": "tool_calls" if message else "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def said(text: str, **message: Any) -> web.Response:
    return web.json_response(completion(text, **message))


def refused(status: int, message: str = "no", code: str | None = None, **headers: str) -> web.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    error = {"message": message, "type": "error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=named)


async def events(request: web.Request, *chunks: Any, done: bool = True) -> web.StreamResponse:
    """A stream of chunks; one that is not done is broken off."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for chunk in chunks:
        data = chunk if isinstance(chunk, str) else json.dumps(chunk)
        await response.write(f": a comment\n\ndata: {data}\n\n".encode())
    if done:
        await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def delta(finish: str | None = None, **of: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": of, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice]}


async def echo(request: web.Request, body: dict[str, Any]) -> Reply:
    """The question again, whole or as a stream."""
    if body.get("stream"):
        return await events(request, delta(content=question(body)), delta("stop"))
    return said(question(body))


def first_time(trouble: Says, then: Says = echo) -> Says:
    """Trouble when a question comes for the first time."""
    seen: set[str] = set()

    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        key = json.dumps(body, sort_keys=True)
        if key in seen:
            return await then(request, body)
        seen.add(key)
        return await trouble(request, body)

    return says


class Stub:
    """Remembers what it was asked, and how often at once."""

    def __init__(self) -> None:
        self.says: Says = echo
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self.stopped = asyncio.Event()
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"

    def times_asked(self) -> Counter[str]:
        return Counter(json.dumps(body, sort_keys=True) for body in self.bodies)

    async def stuck(self, request: web.Request, body: dict[str, Any]) -> Reply:
        """Never answer, while the stub runs."""
        await self.stopped.wait()
        return None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append({**body, "path": request.path})
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = await self.says(request, body)
        finally:
            self.in_flight -= 1
        if reply is None:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return reply

    async def _run(self, ready: Callable[[], None], end: asyncio.Event) -> None:
        app = web.Application()
        app.router.add_post("/v1/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, self.socket).start()
        ready()
        await end.wait()
        self.stopped.set()
        await runner.cleanup()

    @contextlib.contextmanager
    def running(self) -> Iterator[Stub]:
        loop, end, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
        thread = threading.Thread(target=lambda: loop.run_until_complete(self._run(ready.set, end)))
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join()
            loop.close()
