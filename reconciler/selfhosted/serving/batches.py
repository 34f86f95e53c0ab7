"""
Batches over HTTP: a file of requests that is worked through within a day, and answered as files.

A batch is only written down here; the batch runner does the work. Cancelling keeps what is done.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.serving import batchbook, batchrunner
from reconciler.selfhosted.storage.store import Record, Row, Tx
from reconciler.selfhosted.wire import Answer

WINDOW = 24 * 3600  # seconds
OUTPUT_LIFE = 30 * 24 * 3600


class Expiry(msgspec.Struct):
    anchor: Literal["created_at"]
    seconds: Annotated[int, msgspec.Meta(ge=3600, le=2_592_000)]


class Wanted(msgspec.Struct):
    input_file_id: str
    endpoint: str
    completion_window: Literal["24h"]
    metadata: Any = None
    output_expires_after: Expiry | None = None


async def create(request: Request) -> Response:
    project = context.project(request)
    body = await wire.body_json(request)
    wanted = wire.as_type(body, Wanted)
    metadata = wire.checked_metadata(wanted.metadata)
    if wanted.endpoint not in batchbook.ENDPOINTS:
        known = ", ".join(batchbook.ENDPOINTS)
        raise wire.bad(f"endpoint is {wanted.endpoint[:80]!r}; use one of {known}", "endpoint")
    life = wanted.output_expires_after.seconds if wanted.output_expires_after else OUTPUT_LIFE

    def keep(tx: Tx) -> Answer:
        file = tx.get(project, "file", wanted.input_file_id)
        if file is None or file.label != "batch":
            reason = "does not exist" if file is None else f"has the purpose {file.label!r}, not 'batch'"
            raise wire.bad(
                f"File {wanted.input_file_id[:100]} {reason}.", "input_file_id", "invalid_input_file"
            )
        made = _batch(wanted, metadata, int(tx.now()))
        record = Record(
            batchbook.BATCH,
            made["id"],
            project,
            made,
            made["created_at"],
            status=made["status"],
            label=wanted.endpoint,
            private=batchbook.fresh(life),
        )
        tx.insert(record)
        return Answer(wire.encode(made))

    response = await idempotency.once(request, idempotency.digest_of(body), keep)
    batchrunner.of(request).wake()
    return response


def _batch(wanted: Wanted, metadata: dict[str, str], now: int) -> dict[str, Any]:
    return {
        "id": wire.new_id("batch_"),
        "object": "batch",
        "endpoint": wanted.endpoint,
        "input_file_id": wanted.input_file_id,
        "completion_window": wanted.completion_window,
        "status": "validating",
        "created_at": now,
        "expires_at": now + WINDOW,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": metadata,
    }


async def list_batches(request: Request) -> Response:
    asked = wire.listing(request, batchbook.BATCH, context.project(request), order="desc")
    return wire.answer_list(await context.of(request).store.read(lambda tx: tx.page(asked)), ends=True)


async def get(request: Request) -> Response:
    return wire.answer(await context.of(request).store.read(lambda tx: _existing(tx, request)))


async def cancel(request: Request) -> Response:
    def stop(tx: Tx) -> Row:
        row = _existing(tx, request, lock=True)
        if row.status not in batchbook.UNFINISHED:
            raise wire.bad(f"batch {row.id} is {row.status} already; there is nothing to cancel")
        if row.status != "cancelling":
            batchbook.change(tx, row, status="cancelling")
        return _existing(tx, request)

    row = await context.of(request).store.write(stop)
    batchrunner.of(request).wake()
    return wire.answer(row)


def _existing(tx: Tx, request: Request, *, lock: bool = False) -> Row:
    id = request.path_params["id"]
    row = tx.get(context.project(request), batchbook.BATCH, id, lock=lock)
    if row is None:
        raise wire.missing("Batch", id)
    return row


routes = [
    Route("/v1/batches", list_batches, methods=["GET"]),
    Route("/v1/batches", create, methods=["POST"]),
    Route("/v1/batches/{id}", get, methods=["GET"]),
    Route("/v1/batches/{id}/cancel", cancel, methods=["POST"]),
]
