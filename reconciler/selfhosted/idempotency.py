"""
`Idempotency-Key`: one effect per key, however often it is asked.

The answer is stored in the transaction that makes the effect, so a crash between the two is impossible.
A key belongs to a project and a path; with another body it is refused; it is kept for thirty days.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from reconciler.selfhosted import context, wire
from reconciler.selfhosted.storage.store import Tx, tables
from reconciler.selfhosted.wire import Answer, WireError

KEPT = 30 * 24 * 3600  # seconds
LONGEST = 255  # characters of a key

answers = sa.Table(
    "answers",
    tables,
    sa.Column("project", sa.String, primary_key=True),
    sa.Column("path", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)


async def once(request: Request, digest: str, act: Callable[[Tx], Answer]) -> Response:
    """
    Do `act` in one transaction and answer; with a known Idempotency-Key answer as the first time instead.

    `digest` stands for what was asked. An error raised by `act` undoes it and keeps nothing.
    """
    key = request.headers.get("idempotency-key")
    store = context.of(request).store
    if key is None:
        return (await store.write(act)).response()
    if not 1 <= len(key) <= LONGEST:
        raise wire.bad(f"the Idempotency-Key has {len(key)} characters; use 1 to {LONGEST}")
    project, path = context.project(request), request.url.path

    def act_once(tx: Tx) -> tuple[Answer, bool]:
        known = _known(tx, project, path, key, digest)
        if known is not None:
            return known, True
        made = act(tx)
        row: dict[str, Any] = {"project": project, "path": path, "key": key, "digest": digest}
        row |= {"status": made.status, "body": made.body, "created_at": int(tx.now())}
        tx.connection.execute(sa.insert(answers).values(**row))
        return made, False

    made, replayed = await store.write(act_once)
    return made.response({"idempotent-replayed": "true"} if replayed else None)


async def replayed(request: Request, digest: str) -> Response | None:
    """The answer that this Idempotency-Key had already; for whoever works long before `once`."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    project, path = context.project(request), request.url.path
    known = await context.of(request).store.read(lambda tx: _known(tx, project, path, key, digest))
    return known.response({"idempotent-replayed": "true"}) if known else None


def digest_of(*parts: object) -> str:
    """One digest over what was asked, whatever the order of its keys. Pure."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def forget_old(tx: Tx) -> None:
    """Drop the keys that are past their thirty days."""
    tx.connection.execute(sa.delete(answers).where(answers.c.created_at < int(tx.now()) - KEPT))


def _known(tx: Tx, project: str, path: str, key: str, digest: str) -> Answer | None:
    found = tx.connection.execute(
        sa.select(answers).where(answers.c.project == project, answers.c.path == path, answers.c.key == key)
    ).first()
    if found is None:
        return None
    if found.digest != digest:
        raise WireError(
            422,
            "this Idempotency-Key was used with another body; use a new key for a new request",
            type="idempotency_error",
            code="idempotency_key_reused",
        )
    return Answer(found.body, found.status)
