"""
A request that the platform makes of itself: through the same endpoint, checks and all, but no socket.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import structlog
from starlette.types import ASGIApp, Message

from reconciler.selfhosted import wire
from reconciler.selfhosted.context import Caller

log = structlog.get_logger("reconciler.selfhosted")


class Reply(NamedTuple):
    """What the endpoint answered."""

    status: int
    request_id: str
    body: Mapping[str, Any]


async def post(app: ASGIApp, project: str, path: str, body: Mapping[str, Any], key: str) -> Reply:
    """POST as a caller of this project, once per Idempotency-Key where the endpoint keeps something."""
    request_id = "req_" + secrets.token_hex(16)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"idempotency-key", key.encode())],
        "client": None,
        "server": None,
        "caller": Caller(project, private=False),
        "request_id": request_id,
    }
    unread = [wire.encode(body)]
    status, received = 500, bytearray()

    async def receive() -> Message:
        if not unread:
            await asyncio.Event().wait()  # nobody hangs up
        return {"type": "http.request", "body": unread.pop(), "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            received.extend(message.get("body", b""))

    try:
        await app(scope, receive, send)
    except Exception:  # the outermost frame of this request, as the server's shell is of others
        log.exception("request.failed", request_id=request_id, method="POST", path=path)
    return Reply(status, request_id, msgspec.json.decode(received) if received else {})
