"""
Evals over HTTP: what is measured, by which criteria. A criterion never changes once it is stored.

An eval's runs and their items live and die with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.evaluation import evalbody, graderapi, runbook, runner
from reconciler.selfhosted.serving.sampling import Problem
from reconciler.selfhosted.storage.store import Record, Row, Tx
from reconciler.selfhosted.wire import Answer

ORDERED_BY = ("created_at", "updated_at")


async def create(request: Request) -> Response:
    here, project = context.of(request), context.project(request)
    body = await wire.body_json(request)
    refuse(evalbody.eval_problems(body))
    criteria = body["testing_criteria"]
    places = [f"testing_criteria[{position}]" for position in range(len(criteria))]
    await graderapi.refuse_unable(request, criteria, places)
    made: dict[str, Any] = {
        "id": wire.new_id("eval_"),
        "object": "eval",
        "name": body.get("name") or "",
        "data_source_config": evalbody.stored_config(body["data_source_config"]),
        "testing_criteria": evalbody.stored_criteria(criteria, [uuid4() for _ in criteria]),
        "created_at": here.seconds(),
        "metadata": wire.checked_metadata(body.get("metadata")),
    }

    def keep(tx: Tx) -> Answer:
        tx.insert(Record(runbook.EVAL, made["id"], project, made, made["created_at"], marks=made["metadata"]))
        return Answer(wire.encode(made), 201)

    return await idempotency.once(request, idempotency.digest_of(body), keep)


def refuse(problems: Sequence[Problem]) -> None:
    """Refuse with every problem at once; the first one names the param."""
    if problems:
        raise wire.bad("; ".join(map(str, problems)), problems[0].param, "invalid_value")


async def list_evals(request: Request) -> Response:
    wanted = request.query_params.get("order_by", "created_at")
    if wanted not in ORDERED_BY:
        raise wire.bad(f"order_by is {wanted!r}; use 'created_at' or 'updated_at'", "order_by")
    asked = wire.listing(request, runbook.EVAL, context.project(request), order="asc")
    asked = replace(asked, by_update=wanted == "updated_at")
    return wire.answer_list(await context.of(request).store.read(lambda tx: tx.page(asked)), ends=True)


async def get(request: Request) -> Response:
    find = partial(existing, project=context.project(request), id=request.path_params["eval"])
    return wire.answer(await context.of(request).store.read(find))


def existing(tx: Tx, project: str, id: str) -> Row:
    """The eval, or a 404."""
    row = tx.get(project, runbook.EVAL, id)
    if row is None:
        raise wire.missing("Eval", id)
    return row


async def update(request: Request) -> Response:
    """Name and metadata; nothing else of an eval can change."""
    project, id = context.project(request), request.path_params["eval"]
    body = await wire.body_json(request)
    refuse(evalbody.name_and_metadata_problems(body))
    changes = {key: body[key] for key in ("name", "metadata") if body.get(key) is not None}

    def change(tx: Tx) -> Answer:
        row = existing(tx, project, id)
        changed = row.wire() | changes
        tx.update(row, body=changed, marks=changed["metadata"])
        return Answer(wire.encode(changed))

    return (await context.of(request).store.write(change)).response()


async def delete(request: Request) -> Response:
    here, project, id = context.of(request), context.project(request), request.path_params["eval"]

    def forget(tx: Tx) -> list[str]:
        row = existing(tx, project, id)
        runs = tx.all(runbook.RUN, project=project, parent=id)
        for run in runs:
            runbook.forget(tx, run)
        tx.delete(row)
        return [run.id for run in runs]

    for run_id in await here.store.write(forget):
        runner.of(request).stop(run_id)
        here.blobs.delete(run_id)
    return wire.answer({"object": "eval.deleted", "deleted": True, "eval_id": id})


routes = [
    Route("/v1/evals", create, methods=["POST"]),
    Route("/v1/evals", list_evals, methods=["GET"]),
    Route("/v1/evals/{eval}", get, methods=["GET"]),
    Route("/v1/evals/{eval}", update, methods=["POST"]),
    Route("/v1/evals/{eval}", delete, methods=["DELETE"]),
]
