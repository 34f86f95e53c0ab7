"""
The ASGI app: routes of every part, inside one shell that admits callers and never lets an error out bare.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import time
from collections.abc import AsyncIterator, Sequence

import structlog
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reconciler.selfhosted import context, openapi, wire
from reconciler.selfhosted.auth import Door
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.evaluation import evalruns, evals, graderapi, runner
from reconciler.selfhosted.notices import postman, webhooks
from reconciler.selfhosted.registry import aliases, models
from reconciler.selfhosted.serving import (
    background,
    batches,
    batchrunner,
    chat,
    completions,
    embeddings,
    responses,
)
from reconciler.selfhosted.storage import files, uploads
from reconciler.selfhosted.storage.store import UnknownCursor
from reconciler.selfhosted.tuning import jobs, permissions, supervisor
from reconciler.selfhosted.wire import WireError

CAPABILITIES = ["idempotency", "aliases", "model_sources"]

log = structlog.get_logger("reconciler.selfhosted")


async def about(request: Request) -> Response:
    """What this server is; also the readiness probe."""
    here = context.of(request)
    return wire.answer(
        {
            "object": "reconciler.platform",
            "version": here.version,
            "capabilities": CAPABILITIES,
            "organization": here.organization,
            "data": str(here.data) if context.private(request) else None,
        }
    )


def all_routes() -> list[BaseRoute]:
    """Every endpoint; a part exports `routes`."""
    parts = (
        files,
        uploads,
        jobs,
        models,
        permissions,
        aliases,
        evals,
        evalruns,
        graderapi,
        chat,
        completions,
        responses,
        embeddings,
        batches,
        webhooks,
        openapi,
    )
    return [
        Route("/v1/reconciler", about, methods=["GET"]),
        *(route for part in parts for route in part.routes),
    ]


def make(here: Context, door: Door, routes: Sequence[BaseRoute] | None = None) -> ASGIApp:
    """The app of one server; its lifespan runs the supervisor and the runners of evals and batches."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with (
            supervisor.running(here),
            runner.running(here) as app.state.runner,
            batchrunner.running(here, app) as app.state.batches,
            background.running(here, app.state.runner.sampler) as app.state.background,
            postman.running(here),
        ):
            yield
        await here.engine.close()

    app = Starlette(
        routes=all_routes() if routes is None else routes,
        lifespan=lifespan,
        exception_handlers={
            WireError: _refuse,
            UnknownCursor: _refuse_cursor,
            HTTPException: _refuse_route,
            ClientDisconnect: _leave,
            OSError: _refuse_full_disk,
            OperationalError: _refuse_full_disk,
            Exception: _refuse_unknown,
        },
    )
    app.router.redirect_slashes = False
    app.state.context = here
    return Shell(app, here, door)


class Shell:
    """Admission, request ids, response headers and a log line around every request."""

    def __init__(self, app: ASGIApp, here: Context, door: Door) -> None:
        self._app, self._here, self._door = app, here, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        request_id = scope["request_id"] = "req_" + secrets.token_hex(16)

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                took = b"%d" % ((time.perf_counter() - started) * 1000)
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"openai-version", b"2020-10-01"),
                    (b"openai-organization", self._here.organization.encode()),
                    (b"openai-processing-ms", took),
                ]
            await send(message)

        try:
            scope["caller"] = self._door.admit(scope)
            await self._app(scope, receive, send_marked)
        except WireError as refused:
            await refused.response()(scope, receive, send_marked)
        except Exception:  # the outermost handler: the client has its 500, the operator gets the reason
            log.exception("request.failed", request_id=request_id, method=scope["method"], path=scope["path"])
            if not status:
                await _refuse_unknown_now()(scope, receive, send_marked)
        if status >= 400:
            log.info("request.refused", request_id=request_id, path=scope["path"], status=status)


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, WireError)
    return error.response()


async def _refuse_cursor(_request: Request, error: Exception) -> Response:
    return wire.bad(f"there is no object {str(error)[:100]!r} to continue after", "after").response()


async def _refuse_full_disk(_request: Request, error: Exception) -> Response:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not full and "disk is full" not in str(error):
        raise error
    sentence = "the platform's disk is full and nothing was stored; free some space and ask again"
    return WireError(507, sentence, type="server_error", code="disk_full").response()


async def _leave(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # the client is gone; nobody reads this


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    sentence = {
        404: f"Unknown request URL: {where}. Please check the URL for typos.",
        405: f"Not allowed to {where}; use another method.",
    }.get(error.status_code, str(error.detail))
    code = "unknown_url" if error.status_code == 404 else None
    return WireError(error.status_code, sentence, code=code, headers=error.headers).response()


async def _refuse_unknown(_request: Request, _error: Exception) -> Response:
    return _refuse_unknown_now()


def _refuse_unknown_now() -> Response:
    sentence = (
        "The server had an error while processing your request. The log has the details under x-request-id."
    )
    return WireError(500, sentence, type="server_error").response()
