"""
Fine-tuning jobs as clients see them: create, look, list, cancel, pause, resume, events and checkpoints.

A job is only written down here; the supervisor trains it. Rows of its files are checked by the trainer,
while the job is `validating_files`; what can be known at once is refused at once.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field, to_builtins
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.evaluation import graderapi
from reconciler.selfhosted.registry import models
from reconciler.selfhosted.registry.models import ModelRow
from reconciler.selfhosted.serving.sampling import served
from reconciler.selfhosted.storage.store import Record, Row, Tx
from reconciler.selfhosted.tuning import jobbook, jobmethods
from reconciler.selfhosted.wire import Answer

# OpenAI's jobs have these, and its specification has not; no job here has an eval of its own.
UNDOCUMENTED = {"usage_metrics": None, "shared_with_openai": False, "eval_id": None}


class Lora(Struct, tag="lora", forbid_unknown_fields=True):
    rank: Annotated[int, Meta(ge=1, le=1024)] = 16
    alpha: Annotated[float, Meta(gt=0)] = 32
    target: Literal["all-linear"] = "all-linear"


class Full(Struct, tag="full", forbid_unknown_fields=True):
    pass


class Extension(Struct, forbid_unknown_fields=True):
    tuning: Lora | Full = field(default_factory=Lora)


class Wanted(Struct):
    """The body of a create."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2_147_483_647)] | None = None
    method: jobmethods.Method | None = None
    hyperparameters: jobmethods.Hyperparameters | None = None
    integrations: list[dict[str, Any]] | None = None
    metadata: Any = None
    reconciler: Extension = field(default_factory=Extension)


async def create(request: Request) -> Response:
    here, project = context.of(request), context.project(request)
    body = await wire.body_json(request)
    wanted = wire.as_type(body, Wanted)
    metadata = wire.checked_metadata(wanted.metadata)
    _check_supported(wanted)
    method = jobmethods.chosen(wanted.method, wanted.hyperparameters)
    judges = await _judges(request, method, wanted)
    id = wire.new_id("ftjob-")

    def write_down(tx: Tx) -> Answer:
        model = models.resolve(tx, project, wanted.model)
        _check_file(tx, project, "training_file", wanted.training_file)
        if wanted.validation_file is not None:
            _check_file(tx, project, "validation_file", wanted.validation_file)
        job = _job(id, wanted, method, metadata, model, here.organization, int(tx.now()))
        private = {"model": model.id, "path": str(model.path), "base": model.base, "read": {}}
        private["judges"] = {name: served(tx, project, name, here.upstreams).path for name in judges}
        status = job["status"]
        tx.insert(
            Record("job", id, project, job, job["created_at"], status=status, private=private, marks=metadata)
        )
        jobbook.say(tx, project, id, "created", f"Created fine-tuning job: {id}")
        jobbook.say(tx, project, id, "validating", f"Validating training file: {wanted.training_file}")
        return Answer(wire.encode(job))

    response = await idempotency.once(request, idempotency.digest_of(body), write_down)
    here.wake.set()
    return response


async def get(request: Request) -> Response:
    project, id = context.project(request), request.path_params["id"]
    return wire.answer(await context.of(request).store.read(lambda tx: _existing(tx, project, id)))


async def list_jobs(request: Request) -> Response:
    asked = wire.listing(request, "job", context.project(request), order="desc")
    return wire.answer_list(await context.of(request).store.read(lambda tx: tx.page(asked)), ends=False)


async def cancel(request: Request) -> Response:
    here, project, id = context.of(request), context.project(request), request.path_params["id"]

    def stop(tx: Tx) -> tuple[str, Row]:
        row = _unended(tx, project, id, "cancel")
        jobbook.end(tx, row, "cancelled")
        jobbook.say(tx, project, id, "cancelled", "Fine-tuning job cancelled")
        return row.status, _existing(tx, project, id)

    before, row = await here.store.write(stop)
    if before == jobbook.PAUSED:  # nobody works on it who would clear up
        resume_state = here.data / "jobs" / id / "checkpoints"
        await asyncio.to_thread(shutil.rmtree, resume_state, ignore_errors=True)
    here.wake.set()
    return wire.answer(row)


async def pause(request: Request) -> Response:
    """Stop training after the current step; what is learnt so far becomes a checkpoint."""
    here, project, id = context.of(request), context.project(request), request.path_params["id"]

    def hold(tx: Tx) -> Row:
        row = _unended(tx, project, id, "pause")
        if row.status != jobbook.PAUSED:
            jobbook.change(tx, row, status=jobbook.PAUSED, estimated_finish=None)
            jobbook.say(tx, project, id, f"paused-{secrets.token_hex(4)}", "Fine-tuning job paused")
        return _existing(tx, project, id)

    return wire.answer(await here.store.write(hold))


async def resume(request: Request) -> Response:
    """Go on where the job was paused."""
    here, project, id = context.of(request), context.project(request), request.path_params["id"]

    def go_on(tx: Tx) -> Row:
        row = _unended(tx, project, id, "resume")
        if row.status != jobbook.PAUSED:
            raise wire.bad(f"Job {id} is {row.status}, not paused; there is nothing to resume.")
        jobbook.change(tx, row, status="queued")
        jobbook.say(tx, project, id, f"resumed-{secrets.token_hex(4)}", "Fine-tuning job resumed")
        return _existing(tx, project, id)

    row = await here.store.write(go_on)
    here.wake.set()
    return wire.answer(row)


async def events(request: Request) -> Response:
    return await _of_job(request, "event", limit=20, ends=False)


async def checkpoints(request: Request) -> Response:
    return await _of_job(request, "checkpoint", limit=10, ends=True)


async def _of_job(request: Request, type: str, *, limit: int, ends: bool) -> Response:
    project, id = context.project(request), request.path_params["id"]
    asked = wire.listing(request, type, project, limit=limit, order="desc", parent=id)

    def find(tx: Tx) -> Response:
        _existing(tx, project, id)
        return wire.answer_list(tx.page(asked), ends=ends)

    return await context.of(request).store.read(find)


def _existing(tx: Tx, project: str, id: str, *, lock: bool = False) -> Row:
    row = tx.get(project, "job", id, lock=lock)
    if row is None:
        raise wire.WireError(
            404, f"Could not find fine tune: {id}", param="fine_tune_id", code="fine_tune_not_found"
        )
    return row


def _unended(tx: Tx, project: str, id: str, verb: str) -> Row:
    row = _existing(tx, project, id, lock=True)
    if row.status in jobbook.ENDED:
        sentence = f"Job {id} has already {_ended(row.status)}; there is nothing to {verb}."
        raise wire.bad(sentence, None, "job_ended")
    return row


def _ended(status: str) -> str:
    return {"cancelled": "been cancelled"}.get(status, status)


def _check_supported(wanted: Wanted) -> None:
    if wanted.integrations:
        kind = str(wanted.integrations[0].get("type"))[:40]
        raise wire.bad(f"the integration {kind!r} is not supported; leave integrations out", "integrations")


async def _judges(request: Request, method: dict[str, Any], wanted: Wanted) -> list[str]:
    """The names of the models that grade a reinforcement job; refuses one that cannot be graded."""
    grader = jobmethods.grader(method)
    if grader is None:
        return []
    if wanted.validation_file is None:
        raise wire.bad(
            "a reinforcement job needs a validation_file: its checkpoints are chosen by their rewards there",
            "validation_file",
        )
    return await graderapi.accept(request, grader, "method.reinforcement.grader")


def _check_file(tx: Tx, project: str, param: str, id: str) -> None:
    row = tx.get(project, "file", id)
    if row is None:
        raise wire.bad(
            f"File '{id[:100]}' does not exist or you do not have access to it.", param, "file_not_found"
        )
    if row.label != "fine-tune":
        sentence = f"File {id} has the purpose {row.label!r}; upload it with the purpose 'fine-tune'."
        raise wire.bad(sentence, param, "invalid_file_purpose")


def _job(
    id: str,
    wanted: Wanted,
    method: dict[str, Any],
    metadata: dict[str, str],
    model: ModelRow,
    organization: str,
    now: int,
) -> dict[str, Any]:
    """The job object of a new job. Impure only in drawing a seed when none is given."""
    return {
        "object": "fine_tuning.job",
        "id": id,
        "created_at": now,
        "finished_at": None,
        "model": model.id,
        "fine_tuned_model": None,
        "organization_id": organization,
        "status": "validating_files",
        "training_file": wanted.training_file,
        "validation_file": wanted.validation_file,
        "result_files": [],
        "hyperparameters": jobmethods.hyperparameters(method),
        "trained_tokens": None,
        "error": None,
        "seed": secrets.randbelow(2**31) if wanted.seed is None else wanted.seed,
        "estimated_finish": None,
        "integrations": [],
        "method": method,
        "metadata": metadata,
        "user_provided_suffix": wanted.suffix,
        **UNDOCUMENTED,
        "reconciler": to_builtins(wanted.reconciler),
    }


routes = [
    Route("/v1/fine_tuning/jobs", list_jobs, methods=["GET"]),
    Route("/v1/fine_tuning/jobs", create, methods=["POST"]),
    Route("/v1/fine_tuning/jobs/{id}", get, methods=["GET"]),
    Route("/v1/fine_tuning/jobs/{id}/cancel", cancel, methods=["POST"]),
    Route("/v1/fine_tuning/jobs/{id}/pause", pause, methods=["POST"]),
    Route("/v1/fine_tuning/jobs/{id}/resume", resume, methods=["POST"]),
    Route("/v1/fine_tuning/jobs/{id}/events", events, methods=["GET"]),
    Route("/v1/fine_tuning/jobs/{id}/checkpoints", checkpoints, methods=["GET"]),
]
