"""
Aliases: a name that leads to a model, moved in one step, with every earlier target kept in its history.

An alias works wherever a model's name does and is resolved when it is used; the model may be one of ours or an
upstream's. Releases are made of them:
`release` and `state` are whoever's who moves it, kept as they are; `release` belongs to the move and goes
into the history, `state` to the name. `revision` counts writes, so that nobody overwrites what they have
not seen.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.registry import models
from reconciler.selfhosted.storage.store import Record, Row, Tx
from reconciler.selfhosted.wire import Answer, WireError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@-]{0,199}")


LONGEST = 256 << 10  # bytes of a release with its state
REMEMBERED = 100  # moves


class Canary(msgspec.Struct):
    model: str
    share: float  # of users


class Wanted(msgspec.Struct):
    name: str
    model: str
    metadata: Any = None
    release: dict[str, Any] = {}
    state: dict[str, Any] = {}
    canary: Canary | None = None
    expected_revision: int | None = None


async def put(request: Request) -> Response:
    """Make the alias, or move it."""
    here, project = context.of(request), context.project(request)
    body = await wire.body_json(request)
    wanted = wire.as_type(body, Wanted)
    metadata = wire.checked_metadata(wanted.metadata)
    if not NAME.fullmatch(wanted.name):
        raise wire.bad(
            "name must be 1 to 200 letters, digits and any of . _ / @ - and begin with one of the first",
            "name",
        )

    if len(wire.encode({"release": wanted.release, "state": wanted.state})) > LONGEST:
        raise wire.bad(f"release and state together have more than {LONGEST >> 10} KiB", "release")

    if wanted.canary and not 0 < wanted.canary.share < 1:
        raise wire.bad(f"share is {wanted.canary.share:g}; it lies between 0 and 1", "canary.share")

    def move(tx: Tx) -> Answer:
        if models.find_row(tx, project, wanted.name) is not None:
            raise WireError(409, f"{wanted.name} is the name of a model; choose another", param="name")
        for model in (wanted.model, *([wanted.canary.model] if wanted.canary else [])):
            elsewhere = models.elsewhere(tx, project, model, here.upstreams)
            chained = elsewhere is not None and elsewhere[0] != model  # an alias leads to no other alias
            if chained or (elsewhere is None and models.find_row(tx, project, model) is None):
                raise models.not_found(model)
        row = tx.get(project, "alias", wanted.name, lock=True)
        revision = row.wire().get("revision", 1) if row else 0
        if wanted.expected_revision not in (None, revision):
            raise WireError(412, f"{wanted.name} was written meanwhile; look at it again", code="alias_moved")
        after = moved(row.wire() if row else None, wanted, metadata, int(tx.now()))
        if row is None:
            tx.insert(Record("alias", wanted.name, project, after, after["created_at"]))
        elif after != row.wire():
            tx.update(row, body=after)
        return Answer(wire.encode(after))

    return await idempotency.once(request, idempotency.digest_of(body), move)


def moved(alias: dict[str, Any] | None, wanted: Wanted, metadata: dict[str, str], now: int) -> dict[str, Any]:
    """The alias after the move; asking for what it is already changes nothing. Pure."""
    before = alias or {"created_at": now, "history": []}
    same = [before.get(key) for key in ("model", "metadata", "release")] == [
        wanted.model,
        metadata,
        wanted.release,
    ]
    canary = msgspec.to_builtins(wanted.canary)
    if alias is not None and same and (alias.get("state"), alias.get("canary")) == (wanted.state, canary):
        return alias
    step = {"model": wanted.model, "metadata": metadata, "release": wanted.release, "at": now}
    return {
        "object": "reconciler.alias",
        "id": wanted.name,
        "name": wanted.name,
        "model": wanted.model,
        "metadata": metadata,
        "release": wanted.release,
        "state": wanted.state,
        "canary": canary,
        "revision": before.get("revision", 1 if alias else 0) + 1,
        "created_at": before["created_at"],
        "updated_at": now,
        "history": before["history"] if same else [*before["history"], step][-REMEMBERED:],
    }


async def list_aliases(request: Request) -> Response:
    asked = wire.listing(request, "alias", context.project(request), limit=100, most=1000, order="asc")
    return wire.answer_list(await context.of(request).store.read(lambda tx: tx.page(asked)), ends=True)


async def get(request: Request) -> Response:
    project, name = context.project(request), request.path_params["name"]
    return wire.answer(await context.of(request).store.read(lambda tx: _existing(tx, project, name)))


async def delete(request: Request) -> Response:
    project, name = context.project(request), request.path_params["name"]
    await context.of(request).store.write(lambda tx: tx.delete(_existing(tx, project, name)))
    return wire.answer({"id": name, "object": "reconciler.alias.deleted", "deleted": True})


def _existing(tx: Tx, project: str, name: str) -> Row:
    row = tx.get(project, "alias", name)
    if row is None:
        raise WireError(404, f"there is no alias named {name[:200]}", param="name", code="alias_not_found")
    return row


routes = [
    Route("/v1/reconciler/aliases", list_aliases, methods=["GET"]),
    Route("/v1/reconciler/aliases", put, methods=["POST"]),
    Route("/v1/reconciler/aliases/{name:path}", get, methods=["GET"]),
    Route("/v1/reconciler/aliases/{name:path}", delete, methods=["DELETE"]),
]
