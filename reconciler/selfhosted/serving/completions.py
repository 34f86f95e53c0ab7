"""
Stored chat completions: what was asked with `store: true`, kept with its answer until it is deleted.

A completion is stored before the client has its end, in one transaction with the Idempotency-Key if one
came. Metadata is all that can change afterwards. Messages are those that were sent; the answer is in the
completion itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.storage.store import Record, Row, Tx
from reconciler.selfhosted.wire import Answer

COMPLETION = "completion"


async def keep(request: Request, body: Mapping[str, Any], made: Mapping[str, Any]) -> Response:
    """Store a completion and answer it; with a known Idempotency-Key answer the first one instead."""
    project = context.project(request)
    stored = as_stored(body, made, request.scope["request_id"])

    def insert(tx: Tx) -> Answer:
        tx.insert(_record(project, stored, body["messages"]))
        return Answer(wire.encode({**made, "metadata": stored["metadata"]}))

    return await idempotency.once(request, idempotency.digest_of(body), insert)


async def keep_streamed(request: Request, body: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Store a completion that went out in pieces."""
    stored = as_stored(body, made, request.scope["request_id"])
    record = _record(context.project(request), stored, body["messages"])
    await context.of(request).store.write(lambda tx: tx.insert(record))


def as_stored(body: Mapping[str, Any], made: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    """A completion with what it was asked by, as lists and gets answer it. Pure."""
    return {
        **made,
        "request_id": request_id,
        "seed": body.get("seed"),
        "temperature": 1.0 if body.get("temperature") is None else body["temperature"],
        "top_p": 1.0 if body.get("top_p") is None else body["top_p"],
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "input_user": body.get("user"),
        "tools": body.get("tools"),
        "tool_choice": body.get("tool_choice"),
        "metadata": wire.checked_metadata(body.get("metadata")),
        "response_format": body.get("response_format"),
    }


def _record(project: str, stored: dict[str, Any], messages: Sequence[Mapping[str, Any]]) -> Record:
    return Record(
        COMPLETION,
        stored["id"],
        project,
        stored,
        stored["created"],
        label=stored["model"],
        private={"messages": messages},
        marks=stored["metadata"],
    )


async def list_completions(request: Request) -> Response:
    model = request.query_params.get("model")
    asked = wire.listing(request, COMPLETION, context.project(request), order="asc", label=model)
    return wire.answer_list(await context.of(request).store.read(lambda tx: tx.page(asked)), ends=True)


async def get(request: Request) -> Response:
    return wire.answer(await context.of(request).store.read(lambda tx: _existing(tx, request)))


async def update(request: Request) -> Response:
    """Replace the metadata; nothing else of a completion can change."""
    body = await wire.body_json(request)
    if not isinstance(body.get("metadata"), dict):
        raise wire.bad("Missing required parameter: 'metadata'.", "metadata", "missing_required_parameter")
    metadata = wire.checked_metadata(body["metadata"])

    def change(tx: Tx) -> dict[str, Any]:
        row = _existing(tx, request, lock=True)
        changed = row.wire() | {"metadata": metadata}
        tx.update(row, body=changed, marks=metadata)
        return changed

    return wire.answer(await context.of(request).store.write(change))


async def delete(request: Request) -> Response:
    await context.of(request).store.write(lambda tx: tx.delete(_existing(tx, request, lock=True)))
    return wire.answer(
        {"object": "chat.completion.deleted", "id": request.path_params["id"], "deleted": True}
    )


async def list_messages(request: Request) -> Response:
    row = await context.of(request).store.read(lambda tx: _existing(tx, request))
    messages = row.hidden()["messages"]
    return wire.answer_values(request, [_shown(row.id, *each) for each in enumerate(messages)], order="asc")


def _shown(completion: str, position: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """A stored message: content that came as parts stays in parts. Pure."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    return {
        "name": None,
        "refusal": None,
        **message,
        "id": f"{completion}-{position}",
        "content": None if parts else content,
        "content_parts": parts,
    }


def _existing(tx: Tx, request: Request, *, lock: bool = False) -> Row:
    id = request.path_params["id"]
    row = tx.get(context.project(request), COMPLETION, id, lock=lock)
    if row is None:
        raise wire.missing("ChatCompletion", id)
    return row


routes = [
    Route("/v1/chat/completions", list_completions, methods=["GET"]),
    Route("/v1/chat/completions/{id}", get, methods=["GET"]),
    Route("/v1/chat/completions/{id}", update, methods=["POST"]),
    Route("/v1/chat/completions/{id}", delete, methods=["DELETE"]),
    Route("/v1/chat/completions/{id}/messages", list_messages, methods=["GET"]),
]
