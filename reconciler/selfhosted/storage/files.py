"""
Files: bytes with a name and a purpose. What is in them is checked by whoever uses them.

A fine-tune-results CSV is answered as raw bytes, not base64.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.serving import batchbook
from reconciler.selfhosted.storage import multipart
from reconciler.selfhosted.storage.store import Record, Row, Tx
from reconciler.selfhosted.wire import Answer, WireError

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
JSONL_ONLY = ("fine-tune", "batch")
LARGEST = 512 * 1024 * 1024  # bytes of one file
LARGEST_BATCH = 200 * 1024 * 1024
BATCH_LIFE = 30 * 24 * 3600  # seconds until a batch file expires on its own


async def upload(request: Request) -> Response:
    here, project = context.of(request), context.project(request)
    id, now = wire.new_id("file-"), here.seconds()
    async with here.blobs.receive(id) as incoming:
        form = await multipart.receive(request, incoming, LARGEST)
        purpose, expires_at = _checked(form, incoming.bytes, now)
        stored = await incoming.keep()
    asked = idempotency.digest_of(purpose, form.filename, stored.sha256)
    body = wire_file(id, stored.bytes, now, form.filename or "", purpose, expires_at)

    def keep(tx: Tx) -> Answer:
        tx.insert(file_record(body, project, stored.sha256))
        return Answer(wire.encode(body))

    try:
        response = await idempotency.once(request, asked, keep)
    except BaseException:
        here.blobs.delete(id)
        raise
    if "idempotent-replayed" in response.headers:
        here.blobs.delete(id)  # the first answer's file has these bytes
    return response


async def list_files(request: Request) -> Response:
    here = context.of(request)
    asked = wire.listing(
        request,
        "file",
        context.project(request),
        limit=10_000,
        most=10_000,
        order="desc",
        label=request.query_params.get("purpose"),
    )
    return wire.answer_list(await here.store.read(lambda tx: tx.page(asked)), ends=True)


async def get(request: Request) -> Response:
    return wire.answer(await find(context.of(request), context.project(request), request.path_params["id"]))


async def delete(request: Request) -> Response:
    here, project, id = context.of(request), context.project(request), request.path_params["id"]

    def forget(tx: Tx) -> None:
        row = tx.get(project, "file", id, lock=True)
        if row is None:
            raise wire.missing("File", id)
        if user := users(tx).get(id):
            raise WireError(409, f"file {id} is used by {user}; cancel it or wait for its end")
        tx.delete(row)

    await here.store.write(forget)
    here.blobs.delete(id)
    return wire.answer({"id": id, "object": "file", "deleted": True})


def users(tx: Tx) -> dict[str, str]:
    """The files that are being read, or will be, and by whom: an unfinished job, batch or eval run."""
    read: dict[str, str] = {}
    for job in tx.all("job", "validating_files", "queued", "running", "paused"):
        body = job.wire()
        read |= dict.fromkeys((body["training_file"], body["validation_file"]), f"running job {job.id}")
    for batch in tx.all(batchbook.BATCH, *batchbook.UNFINISHED):
        read[batch.wire()["input_file_id"]] = f"batch {batch.id}"
    for run in tx.all("run", "queued", "in_progress"):
        source = run.wire()["data_source"]["source"]
        if source["type"] == "file_id":
            read[source["id"]] = f"eval run {run.id}"
    return read


async def content(request: Request) -> Response:
    here = context.of(request)
    row = await find(here, context.project(request), request.path_params["id"])
    file = row.wire()
    csv = file["filename"].endswith(".csv")
    return StreamingResponse(
        _chunks(here, row.id),
        media_type="text/csv" if csv else "application/octet-stream",
        headers={"content-length": str(file["bytes"])},
    )


async def find(here: Context, project: str, id: str) -> Row:
    """A file of the project; 404 in OpenAI's words."""
    row = await here.store.read(lambda tx: tx.get(project, "file", id))
    if row is None:
        raise wire.missing("File", id)
    return row


def wire_file(
    id: str, size: int, created_at: int, filename: str, purpose: str, expires_at: int | None = None
) -> dict[str, Any]:
    """A file as clients see it; one that never expires does not say when. Pure."""
    file = {"id": id, "object": "file", "bytes": size, "created_at": created_at, "filename": filename}
    file |= {"purpose": purpose, "status": "processed"}
    return file if expires_at is None else {**file, "expires_at": expires_at}


def file_record(body: dict[str, Any], project: str, sha256: str) -> Record:
    return Record(
        "file",
        body["id"],
        project,
        body,
        body["created_at"],
        status=body["status"],
        label=body["purpose"],
        expires_at=body.get("expires_at"),
        private={"sha256": sha256},
    )


def _checked(form: multipart.Form, size: int, now: int) -> tuple[str, int | None]:
    purpose = form.fields.get("purpose")
    if form.filename is None:
        raise wire.bad("Missing required parameter: 'file'.", "file", "missing_required_parameter")
    if purpose is None:
        raise wire.bad("Missing required parameter: 'purpose'.", "purpose", "missing_required_parameter")
    check_kind(purpose, form.filename, size)
    anchor, seconds = (form.fields.get(f"expires_after[{name}]") for name in ("anchor", "seconds"))
    return purpose, expiry(anchor, seconds, purpose, now)


def check_kind(purpose: str, filename: str, size: int) -> None:
    """Refuse a purpose that is none, and a name or a size that does not go with it."""
    if purpose not in PURPOSES:
        raise wire.bad(f"{purpose[:40]!r} is not one of {list(PURPOSES)} - 'purpose'", "purpose")
    if purpose in JSONL_ONLY and os.path.splitext(filename)[1] != ".jsonl":
        raise wire.bad(
            f"Invalid file format for {purpose}: {filename[:80]!r}; the name must end in .jsonl", "file"
        )
    if purpose == "batch" and size > LARGEST_BATCH:
        raise WireError(
            413, f"a batch file may have {LARGEST_BATCH} bytes; this one has {size}", param="file"
        )


def expiry(anchor: str | None, seconds: str | None, purpose: str, now: int) -> int | None:
    """When a file expires by its `expires_after`, or by its purpose when none was sent; None: never."""
    if anchor is None and seconds is None:
        return now + BATCH_LIFE if purpose == "batch" else None
    if anchor != "created_at":
        raise wire.bad(
            f"expires_after.anchor is {anchor!r}; only 'created_at' is known", "expires_after.anchor"
        )
    if (
        seconds is None
        or not (seconds.isascii() and seconds.isdigit())
        or not 3600 <= int(seconds[:9]) <= 2_592_000
    ):
        raise wire.bad("expires_after.seconds must be a number from 3600 to 2592000", "expires_after.seconds")
    return now + int(seconds)


async def _chunks(here: Context, id: str) -> AsyncIterator[bytes]:
    async for chunk in here.blobs.read(id):
        yield chunk


routes = [
    Route("/v1/files", list_files, methods=["GET"]),
    Route("/v1/files", upload, methods=["POST"]),
    Route("/v1/files/{id}", get, methods=["GET"]),
    Route("/v1/files/{id}", delete, methods=["DELETE"]),
    Route("/v1/files/{id}/content", content, methods=["GET"]),
]
