"""
Responses in the background: kept at once, answered later, and looked at by their id until they are.

What is to be asked is kept with the response, so a server that starts again asks what it had not answered.
Whoever cancels or deletes a response first decides: an answer that comes afterwards is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, cast

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request

from reconciler.selfhosted import wire
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.engine.values import Answer, Ask, EngineError
from reconciler.selfhosted.serving import pictures, responseevents
from reconciler.selfhosted.serving.responsebody import Asked
from reconciler.selfhosted.serving.responseevents import Head
from reconciler.selfhosted.serving.sampling import Sampler
from reconciler.selfhosted.storage.store import Row, Tx
from reconciler.selfhosted.wire import WireError

RESPONSE = "response"
PENDING = "in_progress"

log = structlog.get_logger("reconciler.selfhosted")


@contextlib.asynccontextmanager
async def running(here: Context, sampler: Sampler) -> AsyncIterator[Background]:
    """At work on what an earlier start of this server left, and on what comes."""
    background = Background(here, sampler)
    for row in await here.store.read(lambda tx: tx.all(RESPONSE, PENDING)):
        if row.hidden()["worker"] == here.worker:
            background.begin(row.project, row.id)
    try:
        yield background
    finally:
        await background.close()


def of(request: Request) -> Background:
    return cast(Background, request.app.state.background)


def private(here: Context, asked: Asked, head: Head, ask: Ask) -> dict[str, Any]:
    """What is kept beside a response that is not answered yet."""
    return {
        "items": asked.items,
        "messages": asked.messages,
        "settings": head.settings,
        "ask": msgspec.to_builtins(ask),
        "worker": here.worker,
    }


class Background:
    """The responses that one server answers in the background."""

    def __init__(self, here: Context, sampler: Sampler) -> None:
        self._here, self._sampler = here, sampler
        self._working: dict[str, asyncio.Task[None]] = {}

    def begin(self, project: str, id: str) -> None:
        """Answer a response that is kept; one that is not there, or answered, is left alone."""
        task = asyncio.create_task(self._work(project, id))
        self._working[id] = task
        task.add_done_callback(lambda _: self._working.pop(id, None))

    def stop(self, id: str) -> None:
        """Stop working on a response that was cancelled or deleted."""
        if task := self._working.get(id):
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._working.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, project: str, id: str) -> None:
        try:
            row = await self._here.store.read(lambda tx: tx.get(project, RESPONSE, id))
            if row is None or row.status != PENDING:
                return
            made, messages = await self._answered(row)
            await self._here.store.write(lambda tx: _finish(tx, project, id, made, messages))
        except SQLAlchemyError as error:  # it is answered at the next start
            log.error("response.store_failed", response=id, reason=type(error).__name__)

    async def _answered(self, row: Row) -> tuple[dict[str, Any], list[Mapping[str, Any]]]:
        """The response at its end, and the conversation that the next one goes on from."""
        hidden = row.hidden()
        head = Head(row.id, row.created_at, row.wire()["model"], hidden["settings"])
        ask = msgspec.convert(hidden["ask"], Ask)
        try:
            shown = await pictures.shown(self._here, row.project, ask.messages)
            answer = await whole(self._sampler.stream(replace(ask, messages=shown)))
        except (EngineError, WireError) as error:
            failure = {"code": "server_error", "message": error.message}
            return head.body("failed", error=failure), hidden["messages"]
        output = responseevents.output_of(answer, wire.new_id("msg_"))
        made = responseevents.whole(head, answer, output, self._here.seconds())
        return made, [*hidden["messages"], responseevents.spoken(answer)]


async def whole(pieces: AsyncIterator[str | Answer]) -> Answer:
    """The answer that a stream ends with."""
    async for piece in pieces:
        if isinstance(piece, Answer):
            return piece
    raise AssertionError("a stream ends with its answer")


def _finish(
    tx: Tx, project: str, id: str, made: Mapping[str, Any], messages: list[Mapping[str, Any]]
) -> None:
    row = tx.get(project, RESPONSE, id, lock=True)
    if row is not None and row.status == PENDING:
        private = {"items": row.hidden()["items"], "messages": messages}
        tx.update(row, body=made, status=made["status"], private=private)


def cancel(tx: Tx, row: Row) -> dict[str, Any]:
    """The response as it is after a cancel: one that is not answered yet never will be."""
    body = row.wire()
    if not body["background"]:
        raise wire.bad("Only responses that were created with background can be cancelled.", "id")
    if row.status != PENDING:
        return body
    body |= {"status": "cancelled"}
    private = {"items": row.hidden()["items"], "messages": row.hidden()["messages"]}
    tx.update(row, body=body, status="cancelled", private=private)
    return body
