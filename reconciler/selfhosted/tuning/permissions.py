"""
Permissions: a project lets others use one of its tuned models or checkpoints, under the same name.

What a project grants stays its own: nobody else can delete it, and it is gone for all when it is deleted.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.registry import models
from reconciler.selfhosted.storage.store import Page, Record, Row, Tx
from reconciler.selfhosted.wire import Answer

PERMISSION = "permission"
OBJECT = "checkpoint.permission"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Wanted(msgspec.Struct):
    project_ids: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=100)]


async def create(request: Request) -> Response:
    project, model = context.project(request), request.path_params["model"]
    body = await wire.body_json(request)
    wanted = wire.as_type(body, Wanted)

    def grant(tx: Tx) -> Answer:
        _check_owned(tx, project, model)
        rows = [_granted(tx, project, model, other) for other in dict.fromkeys(wanted.project_ids)]
        return Answer(bytes(wire.answer_list(Page(rows, False), ends=True).body))

    return await idempotency.once(request, idempotency.digest_of(body), grant)


def _granted(tx: Tx, project: str, model: str, other: str) -> Row:
    """The permission of the other project, made if it had none."""
    for row in tx.all(PERMISSION, project=project, parent=model):
        if row.label == other:
            return row
    now, id = int(tx.now()), wire.new_id("cp_")
    body = {"object": OBJECT, "id": id, "created_at": now, "project_id": other}
    tx.insert(Record(PERMISSION, id, project, body, now, parent=model, label=other))
    tx.put(Record(models.GRANT, model, other, {}, now, private={"owner": project}))
    made = tx.get(project, PERMISSION, id)
    assert made is not None
    return made


async def list_permissions(request: Request) -> Response:
    project, model = context.project(request), request.path_params["model"]
    other = request.query_params.get("project_id")
    asked = wire.listing(request, PERMISSION, project, limit=10, order="desc", parent=model, label=other)

    def find(tx: Tx) -> Page:
        _check_owned(tx, project, model)
        return tx.page(asked)

    return wire.answer_list(await context.of(request).store.read(find), ends=True)


async def delete(request: Request) -> Response:
    project, model, id = context.project(request), request.path_params["model"], request.path_params["id"]

    def revoke(tx: Tx) -> None:
        _check_owned(tx, project, model)
        row = tx.get(project, PERMISSION, id, lock=True)
        if row is None or row.parent != model:
            raise wire.missing("CheckpointPermission", id)
        granted = tx.get(row.label, models.GRANT, model)
        if granted is not None and granted.hidden()["owner"] == project:
            tx.delete(granted)
        tx.delete(row)

    await context.of(request).store.write(revoke)
    return wire.answer({"id": id, "object": OBJECT, "deleted": True})


def _check_owned(tx: Tx, project: str, model: str) -> None:
    if tx.get(project, "model", model) is None:
        raise models.not_found(model)


PERMISSIONS = "/v1/fine_tuning/checkpoints/{model:path}/permissions"
routes = [
    Route(PERMISSIONS, list_permissions, methods=["GET"]),
    Route(PERMISSIONS, create, methods=["POST"]),
    Route(PERMISSIONS + "/{id}", delete, methods=["DELETE"]),
]
