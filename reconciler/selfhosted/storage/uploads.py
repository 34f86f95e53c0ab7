"""
Uploads: a large file sent as parts, in any order and at once, and put together when the client names the order.

An upload lives for one hour. A part counts only when `complete` names it, so a part that was sent twice
does no harm; what `complete` did once it answers again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.storage import files, multipart
from reconciler.selfhosted.storage.store import Record, Row, Tx
from reconciler.selfhosted.wire import Answer

UPLOAD, PART = "upload", "part"
LIFE = 3600  # seconds
LARGEST = 8 * 1024**3  # bytes of the whole
LARGEST_PART = 64 * 1024 * 1024


class Expiry(msgspec.Struct):
    anchor: str
    seconds: int


class Wanted(msgspec.Struct):
    filename: Annotated[str, msgspec.Meta(min_length=1)]
    purpose: str
    bytes: Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]
    mime_type: str
    expires_after: Expiry | None = None


class Complete(msgspec.Struct):
    part_ids: Annotated[list[str], msgspec.Meta(min_length=1)]
    md5: str | None = None


async def create(request: Request) -> Response:
    here, project = context.of(request), context.project(request)
    body = await wire.body_json(request)
    wanted = wire.as_type(body, Wanted)
    files.check_kind(wanted.purpose, wanted.filename, wanted.bytes)
    _file_expiry(wanted.expires_after, wanted.purpose, 0)
    now = here.seconds()
    upload = {
        "id": wire.new_id("upload_"),
        "object": "upload",
        "bytes": wanted.bytes,
        "created_at": now,
        "filename": wanted.filename,
        "purpose": wanted.purpose,
        "status": "pending",
        "expires_at": now + LIFE,
        "file": None,
    }
    private: dict[str, Any] = {"expires_after": body.get("expires_after"), "parts": []}

    def keep(tx: Tx) -> Answer:
        tx.insert(Record(UPLOAD, str(upload["id"]), project, upload, now, status="pending", private=private))
        return Answer(wire.encode(upload))

    return await idempotency.once(request, idempotency.digest_of(body), keep)


def _file_expiry(asked: Expiry | None, purpose: str, now: int) -> int | None:
    anchor, seconds = (asked.anchor, str(asked.seconds)) if asked else (None, None)
    return files.expiry(anchor, seconds, purpose, now)


async def add_part(request: Request) -> Response:
    here, project, upload = context.of(request), context.project(request), request.path_params["id"]
    total = (await here.store.read(lambda tx: _pending(tx, project, upload))).wire()["bytes"]
    id = wire.new_id("part_")
    async with here.blobs.receive(id) as incoming:
        form = await multipart.receive(request, incoming, min(LARGEST_PART, total), "data")
        if form.filename is None:
            raise wire.bad("Missing required parameter: 'data'.", "data", "missing_required_parameter")
        stored = await incoming.keep()
    part = {"id": id, "object": "upload.part", "created_at": here.seconds(), "upload_id": upload}

    def keep(tx: Tx) -> Answer:
        _pending(tx, project, upload)
        private = {"bytes": stored.bytes}
        tx.insert(Record(PART, id, project, part, here.seconds(), parent=upload, private=private))
        return Answer(wire.encode(part))

    try:
        response = await idempotency.once(request, idempotency.digest_of(stored.sha256), keep)
    except BaseException:
        here.blobs.delete(id)
        raise
    if "idempotent-replayed" in response.headers:
        here.blobs.delete(id)
    return response


async def complete(request: Request) -> Response:
    here, project, upload = context.of(request), context.project(request), request.path_params["id"]
    asked = wire.as_type(await wire.body_json(request), Complete)
    if asked.md5 is not None and not re.fullmatch(r"[0-9a-fA-F]{32}", asked.md5):
        raise wire.bad("md5 must be 32 hexadecimal digits", "md5")
    row = await here.store.read(lambda tx: _existing(tx, project, upload))
    if row.status == "completed" and row.hidden()["parts"] == asked.part_ids:
        return wire.answer(row)
    await here.store.read(lambda tx: _check_parts(tx, project, upload, asked.part_ids))
    id = wire.new_id("file-")
    sha256 = await _put_together(here, id, asked)
    try:
        made = await here.store.write(lambda tx: _finish(tx, project, upload, id, sha256, asked.part_ids))
    except BaseException:
        here.blobs.delete(id)
        raise
    await _drop_parts(here, project, upload)
    return wire.answer(made)


def _check_parts(tx: Tx, project: str, upload: str, part_ids: Sequence[str]) -> None:
    total = _pending(tx, project, upload).wire()["bytes"]
    sizes = {part.id: part.hidden()["bytes"] for part in tx.all(PART, project=project, parent=upload)}
    for id in part_ids:
        if id not in sizes:
            raise wire.bad(f"{id[:100]!r} is no part of upload {upload}", "part_ids")
    if len(set(part_ids)) != len(part_ids):
        raise wire.bad("part_ids names a part twice; name each part once, in order", "part_ids")
    received = sum(sizes[id] for id in part_ids)
    if received != total:
        raise wire.bad(
            f"the parts have {received} bytes together and the upload was announced with {total}", "part_ids"
        )


async def _put_together(here: Context, id: str, asked: Complete) -> str:
    """Make the file's blob of the parts; its SHA-256. A 400 when the md5 is another."""
    digest = hashlib.md5(usedforsecurity=False)
    async with here.blobs.receive(id) as incoming:
        for part in asked.part_ids:
            async for chunk in here.blobs.read(part):
                digest.update(chunk)
                await incoming.write(chunk)
        if asked.md5 is not None and asked.md5.lower() != digest.hexdigest():
            raise wire.bad(f"the md5 of the parts is {digest.hexdigest()}, not {asked.md5}", "md5")
        return (await incoming.keep()).sha256


def _finish(
    tx: Tx, project: str, upload: str, id: str, sha256: str, part_ids: Sequence[str]
) -> dict[str, Any]:
    row, now = _pending(tx, project, upload, lock=True), int(tx.now())
    body, hidden = row.wire(), row.hidden()
    asked = hidden["expires_after"]
    expires_at = _file_expiry(Expiry(**asked) if asked else None, body["purpose"], now)
    file = files.wire_file(id, body["bytes"], now, body["filename"], body["purpose"], expires_at)
    tx.insert(files.file_record(file, project, sha256))
    changed = {**body, "status": "completed", "file": file}
    tx.update(row, body=changed, status="completed", private={**hidden, "parts": part_ids})
    return changed


async def cancel(request: Request) -> Response:
    here, project, upload = context.of(request), context.project(request), request.path_params["id"]

    def stop(tx: Tx) -> dict[str, Any]:
        row = _existing(tx, project, upload, lock=True)
        if row.status == "cancelled":
            return row.wire()
        changed = _pending(tx, project, upload).wire() | {"status": "cancelled"}
        tx.update(row, body=changed, status="cancelled")
        return changed

    made = await here.store.write(stop)
    await _drop_parts(here, project, upload)
    return wire.answer(made)


async def sweep(here: Context) -> None:
    """End uploads past their hour and remove parts that nobody can use any more."""

    def expire(tx: Tx) -> list[tuple[str, str]]:
        for row in tx.all(UPLOAD, "pending"):
            if row.wire()["expires_at"] <= tx.now():
                tx.update(row, body=row.wire() | {"status": "expired"}, status="expired")
        pending = {row.id for row in tx.all(UPLOAD, "pending")}
        return [(part.project, part.parent) for part in tx.all(PART) if part.parent not in pending]

    for project, upload in dict.fromkeys(await here.store.write(expire)):
        await _drop_parts(here, project, upload)


async def _drop_parts(here: Context, project: str, upload: str) -> None:
    """Bytes first, books second: what a crash leaves between the two is dropped by the next sweep."""
    parts = await here.store.read(lambda tx: tx.all(PART, project=project, parent=upload))
    for part in parts:
        here.blobs.delete(part.id)

    def forget(tx: Tx) -> None:
        for part in parts:
            tx.delete(part)

    await here.store.write(forget)


def _existing(tx: Tx, project: str, id: str, *, lock: bool = False) -> Row:
    row = tx.get(project, UPLOAD, id, lock=lock)
    if row is None:
        raise wire.missing("Upload", id)
    return row


def _pending(tx: Tx, project: str, id: str, *, lock: bool = False) -> Row:
    """The upload while parts may come; a 400 once it has ended."""
    row = _existing(tx, project, id, lock=lock)
    if row.status == "pending" and row.wire()["expires_at"] > tx.now():
        return row
    ended = "expired" if row.status == "pending" else row.status
    raise wire.bad(f"upload {id} is {ended}; create a new one", "upload_id", f"upload_{ended}")


routes = [
    Route("/v1/uploads", create, methods=["POST"]),
    Route("/v1/uploads/{id}/parts", add_part, methods=["POST"]),
    Route("/v1/uploads/{id}/complete", complete, methods=["POST"]),
    Route("/v1/uploads/{id}/cancel", cancel, methods=["POST"]),
]
