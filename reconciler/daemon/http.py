"""
The daemon's own small server: how it is, what it did, and a knock on its door. Off unless asked for.

It reads what the board shows and never touches a platform. Beyond this machine `/api` wants a bearer
token; a webhook always wants a signature. Bodies are bounded in size and in time.
"""

import asyncio
import hmac
import ipaddress
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from reconciler.daemon import metrics, webhook, wire
from reconciler.daemon.board import Board
from reconciler.errors import ReconcilerError

STUCK = 900.0  # seconds after which a pass that has not ended is taken for a hang
SLOWEST = 10.0  # seconds a body may take
LONGEST = 300.0  # seconds a request for a pass may wait
MOST = 1000  # events in one answer
Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """`HOST:PORT`, `:PORT` or `[::1]:PORT`; the host is this machine unless named. Raises ReconcilerError."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise ReconcilerError(f"--http {text} is no address; write HOST:PORT, such as 127.0.0.1:8321")
        return cls(host.strip("[]") or "127.0.0.1", int(port))

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return _local(self.host)


@dataclass(frozen=True)
class Door:
    """Who may come in: values of environment variables, and what they are called."""

    token: str | None = None
    secret: str | None = None  # of webhooks
    token_env: str = "RECONCILER_HTTP_TOKEN"


class Server:
    """In a thread of its own. `kick` makes the source look; `events` answers what happened lately."""

    def __init__(
        self,
        address: Address,
        door: Door,
        board: Board,
        kick: Callable[[int], None],
        events: Callable[[int], list[dict[str, Any]]],
        alive: Callable[[], bool],
        now: Callable[[], float] = time.time,
    ) -> None:
        if not address.local and not door.token:
            what = f"set {door.token_env} to a token that those who ask have to send, or listen on 127.0.0.1"
            raise ReconcilerError(f"--http {address.host} can be reached from other machines; {what}")
        self._address, self._door, self._board = address, door, board
        self._kick, self._events, self._alive, self._now = kick, events, alive, now
        self.application = Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
                Route("/api/v1/status", self._known(self._status)),
                Route("/api/v1/history", self._known(self._history)),
                Route("/api/v1/reconcile", self._known(self._reconcile), methods=["POST"]),
                Route("/webhook", self._webhook, methods=["POST"]),
            ]
        )

    def start(self) -> int:
        """Listen, and answer the port. Raises ReconcilerError."""
        family = socket.AF_INET6 if ":" in self._address.host else socket.AF_INET
        try:
            listening = socket.create_server((self._address.host, self._address.port), family=family)
        except OSError as error:
            where = f"{self._address.host}:{self._address.port}"
            raise ReconcilerError(f"--http {where} cannot be used: {error.strerror}") from None
        config = uvicorn.Config(
            self.application, log_config=None, access_log=False, lifespan="off", server_header=False,
            limit_concurrency=100, timeout_keep_alive=5, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._uvicorn = uvicorn.Server(config)
        run = threading.Thread(
            target=self._uvicorn.run, kwargs={"sockets": [listening]}, name="http", daemon=True
        )
        run.start()
        return int(listening.getsockname()[1])

    def stop(self) -> None:
        self._uvicorn.should_exit = True

    async def _healthz(self, request: Request) -> Response:
        since = self._board.busy_since
        if not self._alive():
            return PlainTextResponse("the loop has ended", 503)
        if since is not None and self._now() - since > STUCK:
            return PlainTextResponse(f"a pass has not ended for {self._now() - since:.0f} s", 503)
        return PlainTextResponse("ok")

    async def _readyz(self, request: Request) -> Response:
        moment = self._board.moment
        if moment.healthy:
            return PlainTextResponse("ok")
        unseen = next(iter(moment.done.unseen.values()), None) if moment.done else None
        return PlainTextResponse(moment.error or unseen or self._board.source or "no pass has ended yet", 503)

    async def _metrics(self, request: Request) -> Response:
        told = await asyncio.to_thread(metrics.text, self._board)
        return Response(told, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _status(self, request: Request) -> Response:
        status = await asyncio.to_thread(wire.status, self._board)
        return Response(status.model_dump_json(), media_type="application/json")

    async def _history(self, request: Request) -> Response:
        limit = request.query_params.get("limit", "50")
        if not limit.isdecimal() or len(limit) > 9 or not 1 <= int(limit) <= MOST:
            return _error(400, f"limit is a number from 1 to {MOST}")
        events = await asyncio.to_thread(self._events, int(limit))
        return Response(wire.history(events).model_dump_json(), media_type="application/json")

    async def _reconcile(self, request: Request) -> Response:
        """Answer once a pass has ended that began after this was asked, with manifests looked at after it."""
        text = request.query_params.get("timeout", "60")
        if not text.replace(".", "", 1).isdecimal() or float(text) > LONGEST:
            return _error(400, f"timeout is a number of seconds up to {LONGEST:.0f}")
        ticket = self._board.ticket()
        self._kick(ticket)
        until = time.monotonic() + float(text)
        while not self._board.answers(ticket):
            if time.monotonic() > until:
                return _error(504, f"no pass has ended within {text} s; it goes on")
            await asyncio.sleep(0.02)
        return await self._status(request)

    async def _webhook(self, request: Request) -> Response:
        answer = await self._knock(request)
        self._board.webhooks[str(answer.status_code)] += 1
        return answer

    async def _knock(self, request: Request) -> Response:
        if self._door.secret is None:
            return _error(404, "no secret for webhooks is set; see --webhook-secret-env")
        try:
            body = await asyncio.wait_for(_body(request), SLOWEST)
        except TimeoutError:
            return _error(408, f"the body took longer than {SLOWEST:.0f} s")
        except ClientDisconnect:
            return _error(400, "the body did not arrive")
        if body is None:
            return _error(413, f"the body is larger than {webhook.LARGEST} bytes")
        if not webhook.genuine(request.headers, body, self._door.secret):
            return _error(401, "the signature is missing or wrong")
        self._kick(self._board.ticket())
        return JSONResponse({"looking": True}, 202)

    def _known(self, answer: Answer) -> Answer:
        """Only for those who have the token, where there is one, and never for a page in somebody's browser."""

        async def checked(request: Request) -> Response:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            token = self._door.token
            if token and not hmac.compare_digest(given.encode(), token.encode()):
                return _error(401, f"send the token in {self._door.token_env} as Authorization: Bearer")
            if not token and ("origin" in request.headers or not _local(request.url.hostname or "")):
                return _error(403, "web pages may not ask; set a token")
            return await answer(request)

        return checked


def _local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _body(request: Request) -> bytes | None:
    """All of it; None when it is too large."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > webhook.LARGEST:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _error(status: int, why: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    if status == 401:
        headers = {"WWW-Authenticate": "Bearer", **(headers or {})}
    return JSONResponse({"error": why}, status, headers=headers)
