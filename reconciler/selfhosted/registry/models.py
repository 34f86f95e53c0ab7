"""
Models: names that lead to folders of weights.

A base model is packaged, a registered folder, or a hub repository at a revision; a tuned model or a
checkpoint is what a job left behind. Only what a job made can be deleted, and only while nothing needs it.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.registry import hub
from reconciler.selfhosted.serving import batchbook
from reconciler.selfhosted.storage.store import SHARED, Record, Row, Tx
from reconciler.selfhosted.upstream import upstreams
from reconciler.selfhosted.upstream.upstreams import Upstream
from reconciler.selfhosted.wire import Answer, WireError

PACKAGED = "tiny-chat"
GRANT = "grant"  # a record in the project that may use another's model, under the model's name


class ModelRow(NamedTuple):
    """A concrete model: its own name (never an alias), its folder, and the base it grew from."""

    id: str
    path: Path
    base: str
    kind: str  # base | tuned | checkpoint


class Folder(msgspec.Struct, forbid_unknown_fields=True):
    folder: str


class FromHub(msgspec.Struct, forbid_unknown_fields=True):
    hub: str
    revision: str


class Register(msgspec.Struct):
    id: str
    source: dict[str, str]
    shutdown_date: date | msgspec.UnsetType | None = msgspec.UNSET  # unset leaves a known model's as it is


def resolve(tx: Tx, project: str, name: str) -> ModelRow:
    """The model that a name or an alias means now; 404 `model_not_found` for none, and past its shutdown."""
    row = _named(tx, project, name)
    if row is None:
        raise not_found(name)
    kept = row.hidden()
    last = row.wire()["shutdown_date"]
    if last is not None and datetime.fromtimestamp(tx.now(), UTC).date().isoformat() >= last:
        sentence = f"The model `{name[:200]}` was shut down on {last}; use another model."
        raise WireError(404, sentence, param="model", code="model_not_found")
    return ModelRow(row.id, Path(kept["path"]), kept["base"], kept["kind"])


def led_to(tx: Tx, project: str, name: str) -> str:
    """The model's own name, where a name is an alias's."""
    alias = tx.get(project, "alias", name)
    return str(alias.wire()["model"]) if alias else name


def elsewhere(tx: Tx, project: str, name: str, listed: Sequence[Upstream]) -> tuple[str, Upstream] | None:
    """
    The model at an upstream that a name or an alias means, by its own name, and the upstream.

    None for one of ours, even if it was shut down: nobody answers in its place.
    """
    model = led_to(tx, project, name)
    upstream = upstreams.route(listed, model)
    return (model, upstream) if upstream and find_row(tx, project, model) is None else None


def _named(tx: Tx, project: str, name: str) -> Row | None:
    return find_row(tx, project, led_to(tx, project, name))


def find_row(tx: Tx, project: str, id: str) -> Row | None:
    """The row of a concrete model that the project may use: its own, a base, or one that it was granted."""
    return tx.get(project, "model", id) or tx.get(SHARED, "model", id) or _granted(tx, project, id)


def _granted(tx: Tx, project: str, id: str) -> Row | None:
    grant = tx.get(project, GRANT, id)
    return tx.get(grant.hidden()["owner"], "model", id) if grant else None


def not_found(name: str) -> WireError:
    sentence = f"The model `{name[:200]}` does not exist or you do not have access to it."
    return WireError(404, sentence, param="model", code="model_not_found")


def model_record(
    id: str,
    project: str,
    now: int,
    owner: str,
    kept: ModelRow,
    more: Mapping[str, Any] | None = None,
    shutdown_date: str | None = None,  # YYYY-MM-DD, UTC: from that day on it answers nothing
) -> Record:
    """A model as it is stored: `more` goes beside path, base and kind."""
    body = {"id": id, "object": "model", "created": now, "owned_by": owner, "shutdown_date": shutdown_date}
    private = {"path": str(kept.path), "base": kept.base, "kind": kept.kind, **(more or {})}
    return Record("model", id, project, body, now, label=kept.kind, private=private)


def add_packaged(tx: Tx, folder: Path | None) -> None:
    """Make the packaged model's name lead to where this installation keeps it; None: to nowhere."""
    row = tx.get(SHARED, "model", PACKAGED)
    if folder is None:
        if row is not None and row.hidden()["source"] == {"packaged": True}:
            tx.delete(row)
        return
    if row is None or row.hidden()["path"] != str(folder):
        made = ModelRow(PACKAGED, folder, PACKAGED, "base")
        tx.put(
            model_record(PACKAGED, SHARED, int(tx.now()), "reconciler", made, {"source": {"packaged": True}})
        )


def packaged_folder() -> Path | None:
    """The folder of the packaged model, if this installation has its weights."""
    folder = Path(str(importlib.resources.files("reconciler.selfhosted"))) / "tiny"
    return folder if (folder / "model.safetensors").exists() else None


async def list_models(request: Request) -> Response:
    here, project = context.of(request), context.project(request)

    def usable(tx: Tx) -> list[Row]:
        granted = [_granted(tx, project, grant.id) for grant in tx.all(GRANT, project=project)]
        own = tx.all("model", project=SHARED) + tx.all("model", project=project)
        return own + [row for row in granted if row is not None]

    rows = await here.store.read(usable)
    return wire.answer(b'{"object":"list","data":[' + b",".join(row.body for row in rows) + b"]}")


async def get(request: Request) -> Response:
    here, project, name = context.of(request), context.project(request), request.path_params["model"]

    def find(tx: Tx) -> Row | dict[str, Any]:
        row = _named(tx, project, name)
        if row is not None:
            return row
        found = elsewhere(tx, project, name, here.upstreams)
        if found is None:
            raise not_found(name)
        served = {"id": found[0], "object": "model", "created": 0, "owned_by": "upstream"}
        return {**served, "shutdown_date": None}

    return wire.answer(await here.store.read(find))


async def delete(request: Request) -> Response:
    here, project, name = context.of(request), context.project(request), request.path_params["model"]

    def forget(tx: Tx) -> Path:
        row = tx.get(project, "model", name, lock=True)
        if row is None:
            if tx.get(SHARED, "model", name) is not None:
                raise WireError(
                    403, f"{name} is a base model; only tuned models can be deleted", param="model"
                )
            raise not_found(name)
        reason = _needed_by(tx, project, row)
        if reason is not None:
            raise WireError(409, f"{name} is needed: {reason}", param="model", code="model_in_use")
        tx.delete(row)
        return Path(row.hidden()["path"])

    folder = await here.store.write(forget)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return wire.answer({"id": name, "object": "model", "deleted": True})


def _needed_by(tx: Tx, project: str, row: Row) -> str | None:
    for alias in tx.all("alias", project=project):
        if row.id in (alias.wire()["model"], (alias.wire().get("canary") or {}).get("model")):
            return f"alias {alias.id} points at it; move the alias first"
    for job in tx.all("job", "validating_files", "queued", "running", "paused"):
        name = job.id if job.project == project else "of another project"
        if job.hidden()["model"] == row.id:
            return f"job {name} trains from it; cancel the job or wait for its end"
        if row.hidden()["path"] in job.hidden().get("judges", {}).values():
            return f"job {name} is graded by it; cancel the job or wait for its end"
    for other in tx.all("model"):
        if other.hidden().get("parent") == row.id:
            name = other.id if other.project == project else "a model of another project"
            return f"{name} is an adapter on top of it; delete that one first"
    for run in tx.all("run", "queued", "in_progress"):
        if row.id in run.hidden()["models"].values():
            name = run.id if run.project == project else "of another project"
            use = "samples it" if run.wire().get("model") == row.id else "is graded by it"
            return f"eval run {name} {use}; cancel the run or wait for its end"
    for batch in tx.all(batchbook.BATCH, *batchbook.UNFINISHED, project=project):
        if batch.wire().get("model") == row.id:
            return f"batch {batch.id} asks it; cancel the batch or wait for its end"
    return None


async def register(request: Request) -> Response:
    here = context.of(request)
    if not (here.model_sources or context.private(request)):
        raise WireError(
            403, "models are registered on the private socket; or start with --allow-model-sources"
        )
    asked = wire.as_type(await wire.body_json(request), Register)
    if not 1 <= len(asked.id) <= 200 or asked.id.startswith("ft:") or not asked.id.isprintable():
        raise wire.bad("id must be 1 to 200 printable characters and not start with 'ft:'", "id")
    folder = await _folder_of(here, asked)
    last_day = asked.shutdown_date.isoformat() if isinstance(asked.shutdown_date, date) else None

    def keep(tx: Tx) -> Answer:
        row = tx.get(SHARED, "model", asked.id, lock=True)
        if row is not None:
            if row.hidden()["source"] != asked.source:
                raise WireError(409, f"{asked.id} is another model already; choose another id", param="id")
            if asked.shutdown_date is msgspec.UNSET:
                return Answer(row.body)
            for grown in tx.all("model"):  # the base itself and what was tuned from it, whoever owns that
                if grown.hidden()["base"] == asked.id:
                    tx.update(grown, body=grown.wire() | {"shutdown_date": last_day})
            return Answer(wire.encode(row.wire() | {"shutdown_date": last_day}))
        made = ModelRow(asked.id, folder, asked.id, "base")
        more = {"source": asked.source}
        record = model_record(asked.id, SHARED, int(tx.now()), "local", made, more, last_day)
        tx.insert(record)
        return Answer(wire.encode(record.body))

    asked_for = idempotency.digest_of(asked.id, asked.source, last_day)
    return await idempotency.once(request, asked_for, keep)


async def _folder_of(here: Context, asked: Register) -> Path:
    if "hub" in asked.source:
        source = wire.as_type(asked.source, FromHub)
        folder = await asyncio.to_thread(hub.fetch, source.hub, source.revision, here.data / "hub")
    else:
        folder = Path(wire.as_type(asked.source, Folder).folder)
        if not folder.is_absolute():
            raise wire.bad(f"the folder {str(folder)!r} is relative; name it from the root", "source.folder")
    problem = await asyncio.to_thread(folder_problem, folder)
    if problem is not None:
        raise wire.bad(problem, "source", "invalid_model_folder")
    return folder


def folder_problem(folder: Path) -> str | None:
    """Why a folder cannot be a base model, or None."""
    if not folder.is_dir():
        return f"{folder} is no folder on the server"
    if not (folder / "config.json").is_file():
        return f"{folder} has no config.json"
    if not any(folder.glob("*.safetensors")):
        return f"{folder} has no .safetensors file; other weight formats are not loaded"
    if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer_config.json").is_file():
        return f"{folder} has no tokenizer"
    return None


routes = [
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{model:path}", get, methods=["GET"]),
    Route("/v1/models/{model:path}", delete, methods=["DELETE"]),
    Route("/v1/reconciler/models", register, methods=["POST"]),
]
