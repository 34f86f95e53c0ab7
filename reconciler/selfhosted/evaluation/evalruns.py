"""
Eval runs over HTTP: one subject measured by one eval, and the items that came out.

Models are resolved when a run is created, aliases too: a run that was queued measures what its name
meant then. Rows that came in the request are kept as a blob, like a file's, and shown again on every read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.evaluation import evalbody, evallogs, evals, runbook, runner
from reconciler.selfhosted.evaluation.judging import EMBEDDING
from reconciler.selfhosted.serving.sampling import served
from reconciler.selfhosted.storage.blobs import Blobs
from reconciler.selfhosted.storage.store import Page, Record, Row, Tx
from reconciler.selfhosted.wire import Answer

STATUSES = ("queued", "in_progress", "completed", "canceled", "failed")
ITEM_STATUSES = ("pass", "fail", "error")


async def create(request: Request) -> Response:
    here, project = context.of(request), context.project(request)
    body = await wire.body_json(request)
    evals.refuse(evalbody.run_problems(body))
    run_id = wire.new_id("evalrun_")
    source = body["data_source"]
    rows = await _own_rows(request, source["source"])
    if rows is not None:
        await here.blobs.store(run_id, b"".join(wire.encode(row) + b"\n" for row in rows))

    def keep(tx: Tx) -> Answer:
        parent = evals.existing(tx, project, request.path_params["eval"])
        models = _models(tx, project, parent.wire(), source, here)
        if rows is None and tx.get(project, "file", source["source"]["id"]) is None:
            raise wire.missing("File", source["source"]["id"])
        asked = evalbody.asked_model(source)
        model = models[asked] if asked else ""
        made = _queued(request, run_id, body, model, here.seconds())
        kept = made if rows is None else {**made, "data_source": _without_content(source)}
        tx.insert(
            Record(
                runbook.RUN,
                run_id,
                project,
                kept,
                made["created_at"],
                parent=parent.id,
                status="queued",
                private=runbook.fresh(models),
            )
        )
        return Answer(wire.encode(made), 201)

    try:
        response = await idempotency.once(request, idempotency.digest_of(body), keep)
    except BaseException:
        here.blobs.delete(run_id)
        raise
    if "idempotent-replayed" in response.headers:
        here.blobs.delete(run_id)
    runner.of(request).wake()
    return response


async def _own_rows(request: Request, source: Mapping[str, Any]) -> Sequence[Any] | None:
    """The rows that the run itself keeps: those that came with it, or those that are logged now."""
    if source["type"] == "file_content":
        content: Sequence[Any] = source["content"]
        return content
    if source["type"] not in evallogs.SOURCES:
        return None
    project = context.project(request)

    def find(tx: Tx) -> Sequence[Any]:
        config = evals.existing(tx, project, request.path_params["eval"]).wire()["data_source_config"]
        return list(evallogs.rows(tx, project, source, config))

    return await context.of(request).store.read(find)


def _models(
    tx: Tx, project: str, parent: Mapping[str, Any], source: Mapping[str, Any], here: Context
) -> dict[str, str]:
    """Every model that the run will ask: the name in use, the concrete name. Raises a 404 for none."""
    names = evalbody.models_of(parent["testing_criteria"])
    if (asked := evalbody.asked_model(source)) is not None:
        names.append(asked)
    models = {name: served(tx, project, name, here.upstreams).id for name in names}
    if evalbody.compares_embeddings(parent["testing_criteria"]):
        models[EMBEDDING] = served(tx, project, here.embedding_model, here.upstreams).id
    return models


def _queued(request: Request, run_id: str, body: Mapping[str, Any], model: str, now: int) -> dict[str, Any]:
    eval_id = request.path_params["eval"]
    return {
        "id": run_id,
        "object": "eval.run",
        "eval_id": eval_id,
        "status": "queued",
        "model": model,
        "name": body.get("name") or "",
        "created_at": now,
        "report_url": f"{request.base_url}v1/evals/{eval_id}/runs/{run_id}",
        "result_counts": {"total": 0, "errored": 0, "failed": 0, "passed": 0},
        "per_model_usage": None,
        "per_testing_criteria_results": None,
        "data_source": body["data_source"],
        "metadata": wire.checked_metadata(body.get("metadata")),
        "error": None,
    }


def _without_content(source: Mapping[str, Any]) -> dict[str, Any]:
    return {**source, "source": {key: value for key, value in source["source"].items() if key != "content"}}


def _shown(row: Row, blobs: Blobs) -> Row:
    """The run as clients see it, with the rows that came with it."""
    body = row.wire()
    if body["data_source"]["source"]["type"] != "file_content":
        return row
    with blobs.path(row.id).open("rb") as rows:
        body["data_source"]["source"]["content"] = [msgspec.Raw(line) for line in rows]
    return row._replace(body=wire.encode(body))


async def list_runs(request: Request) -> Response:
    here, project = context.of(request), context.project(request)
    parent, status = request.path_params["eval"], _status(request, STATUSES)
    asked = wire.listing(request, runbook.RUN, project, order="asc", parent=parent, status=status)

    def find(tx: Tx) -> Page:
        evals.existing(tx, project, parent)
        return tx.page(asked)

    page = await here.store.read(find)
    shown = Page([_shown(row, here.blobs) for row in page.rows], page.has_more)
    return wire.answer_list(shown, ends=True)


def _status(request: Request, known: tuple[str, ...]) -> str | None:
    status = request.query_params.get("status")
    if status is not None and status not in known:
        raise wire.bad(f"status is {status!r}; use one of {', '.join(known)}", "status")
    return status


def existing(tx: Tx, request: Request) -> Row:
    """The run that the path names, or a 404."""
    eval_id, run_id = request.path_params["eval"], request.path_params["run"]
    row = tx.get(context.project(request), runbook.RUN, run_id)
    if row is None or row.parent != eval_id:
        raise wire.missing("EvalRun", run_id)
    return row


async def get(request: Request) -> Response:
    here = context.of(request)
    row = await here.store.read(lambda tx: existing(tx, request))
    return wire.answer(_shown(row, here.blobs))


async def cancel(request: Request) -> Response:
    here = context.of(request)

    def stop(tx: Tx) -> Row:
        row = existing(tx, request)
        if row.status in runbook.UNFINISHED:
            runbook.cancel(tx, row)
        elif row.status != "canceled":
            raise wire.bad(f"run {row.id} is {row.status} already; only an unfinished run can be cancelled")
        return existing(tx, request)

    row = await here.store.write(stop)
    runner.of(request).stop(row.id)
    return wire.answer(_shown(row, here.blobs))


async def delete(request: Request) -> Response:
    here = context.of(request)

    def forget(tx: Tx) -> str:
        row = existing(tx, request)
        runbook.forget(tx, row)
        return row.id

    run_id = await here.store.write(forget)
    runner.of(request).stop(run_id)
    here.blobs.delete(run_id)
    return wire.answer({"object": "eval.run.deleted", "deleted": True, "run_id": run_id})


async def list_items(request: Request) -> Response:
    project, status = context.project(request), _status(request, ITEM_STATUSES)
    run_id = request.path_params["run"]
    asked = wire.listing(request, runbook.ITEM, project, order="asc", parent=run_id, status=status)

    def find(tx: Tx) -> Page:
        existing(tx, request)
        return tx.page(asked)

    return wire.answer_list(await context.of(request).store.read(find), ends=True)


async def get_item(request: Request) -> Response:
    id = request.path_params["item"]

    def find(tx: Tx) -> Row:
        run = existing(tx, request)
        row = tx.get(run.project, runbook.ITEM, id)
        if row is None or row.parent != run.id:
            raise wire.missing("EvalRunOutputItem", id)
        return row

    return wire.answer(await context.of(request).store.read(find))


RUNS = "/v1/evals/{eval}/runs"
routes = [
    Route(RUNS, create, methods=["POST"]),
    Route(RUNS, list_runs, methods=["GET"]),
    Route(RUNS + "/{run}", get, methods=["GET"]),
    Route(RUNS + "/{run}", cancel, methods=["POST"]),  # the specification's path, and older SDKs'
    Route(RUNS + "/{run}/cancel", cancel, methods=["POST"]),  # newer SDKs'
    Route(RUNS + "/{run}", delete, methods=["DELETE"]),
    Route(RUNS + "/{run}/output_items", list_items, methods=["GET"]),
    Route(RUNS + "/{run}/output_items/{item}", get_item, methods=["GET"]),
]
