"""
The books of a job: who may write them, and what they say as training goes on.

A worker holds a lease with a fencing number; every entry is written in a transaction that checks it, so a
worker that was paused and woke up late can write nothing. Names are made from the job's id and the step: a
step that is reported twice leaves one event, one checkpoint and one model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from reconciler.selfhosted.notices import outbox
from reconciler.selfhosted.registry import models
from reconciler.selfhosted.registry.models import ModelRow
from reconciler.selfhosted.storage import files
from reconciler.selfhosted.storage.store import Record, Row, Tx, tables
from reconciler.selfhosted.tuning import jobmethods

WAITING = ("validating_files", "queued", "running")  # has a claim on a worker
PAUSED = "paused"
ENDED = ("succeeded", "failed", "cancelled")
LEASE = 30.0  # seconds a silent worker keeps its job

leases = sa.Table(
    "leases",
    tables,
    sa.Column("job", sa.String, primary_key=True),
    sa.Column("worker", sa.String, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
)


class Lost(Exception):
    """The job is no longer ours: it was cancelled, or another worker has it."""


class Claim(NamedTuple):
    """The right to work on one job."""

    project: str
    job: str
    fence: int


def claim(tx: Tx, worker: str, held: frozenset[str]) -> Claim | None:
    """The oldest job that nobody works on; a worker takes up its own jobs again at once after a restart."""
    now = tx.now()
    for row in tx.all("job", *WAITING):
        if row.id in held:
            continue
        lease = tx.connection.execute(
            sa.select(leases).where(leases.c.job == row.id).with_for_update()
        ).first()
        if lease is None:
            tx.connection.execute(
                sa.insert(leases).values(job=row.id, worker=worker, fence=1, until=now + LEASE)
            )
            return Claim(row.project, row.id, 1)
        if lease.worker == worker or lease.until < now:
            taken = {"worker": worker, "fence": lease.fence + 1, "until": now + LEASE}
            tx.connection.execute(sa.update(leases).where(leases.c.job == row.id).values(**taken))
            return Claim(row.project, row.id, lease.fence + 1)
    return None


def held(tx: Tx, claim: Claim) -> Row:
    """The job, with its lease renewed; Lost when it is not ours any more."""
    renewed = tx.connection.execute(
        sa.update(leases)
        .where(leases.c.job == claim.job, leases.c.fence == claim.fence)
        .values(until=tx.now() + LEASE)
    )
    row = tx.get(claim.project, "job", claim.job, lock=True)
    if renewed.rowcount != 1 or row is None or row.status in ENDED:
        raise Lost(claim.job)
    return row


def release(tx: Tx, claim: Claim) -> None:
    """Let the next worker have the job at once."""
    tx.connection.execute(
        sa.update(leases).where(leases.c.job == claim.job, leases.c.fence == claim.fence).values(until=0.0)
    )


def queue(tx: Tx, taken: frozenset[str]) -> None:
    """Show jobs that wait for a free trainer as queued."""
    for row in tx.all("job", "validating_files"):
        if row.id not in taken:
            change(tx, row, status="queued")


def change(tx: Tx, row: Row, *, private: Mapping[str, Any] | None = None, **changes: Any) -> None:
    """Change fields of the job object that clients see."""
    body = row.wire() | changes
    kept = {"private": dict(private)} if private is not None else {}
    tx.update(row, body=body, status=body["status"], **kept)


def end(tx: Tx, row: Row, status: str, **changes: Any) -> None:
    change(tx, row, status=status, finished_at=int(tx.now()), estimated_finish=None, **changes)
    outbox.say(tx, row.project, f"fine_tuning.job.{status}", row.id)


def fail(tx: Tx, claim: Claim, code: str, message: str, param: str | None = None) -> None:
    """End the job with its reason."""
    end(tx, held(tx, claim), "failed", error={"code": code, "message": message, "param": param})
    say(tx, claim.project, claim.job, "failed", f"Fine-tuning job failed: {message}", level="error")


def say(
    tx: Tx,
    project: str,
    job: str,
    key: str,
    message: str,
    *,
    level: str = "info",
    type: str = "message",
    data: Any = None,
    at: float | None = None,
) -> None:
    """Enter an event; the same key again replaces it."""
    id = "ftevent-" + _short(f"{job}/{key}", 24)
    created_at = int(tx.now() if at is None else at)
    event = {"object": "fine_tuning.job.event", "id": id, "created_at": created_at, "level": level}
    event |= {"message": message, "type": type} | ({} if data is None else {"data": data})
    tx.put(Record("event", id, project, event, created_at, parent=job))


def add_events(tx: Tx, claim: Claim, lines: list[dict[str, Any]]) -> None:
    for line in lines:
        say(
            tx,
            claim.project,
            claim.job,
            str(line["key"]),
            str(line["message"]),
            level=line.get("level", "info"),
            type=line.get("type", "message"),
            data=line.get("data"),
            at=line.get("at"),
        )


def add_checkpoint(tx: Tx, row: Row, line: dict[str, Any], folder: Path) -> None:
    """Enter a checkpoint, which is a model at once."""
    step = int(line["step_number"])
    job, name = row.wire(), checkpoint_name(row, step)
    now = int(tx.now())
    checkpoint: dict[str, Any] = {
        "object": "fine_tuning.job.checkpoint",
        "id": "ftckpt_" + _short(f"{row.id}/{step}", 24),
        "created_at": now,
        "fine_tuned_model_checkpoint": name,
        "step_number": step,
        "metrics": {"step": step, **line.get("metrics", {})},
        "fine_tuning_job_id": row.id,
    }
    private = {"folder": str(folder), "model": name}
    tx.put(
        Record("checkpoint", checkpoint["id"], row.project, checkpoint, now, parent=row.id, private=private)
    )
    _add_model(tx, row, name, folder, "checkpoint", job["organization_id"])


def drop_checkpoints(tx: Tx, row: Row, gone: frozenset[str]) -> None:
    """Forget checkpoints whose folders the trainer has removed, with their models."""
    for checkpoint in tx.all("checkpoint", project=row.project, parent=row.id):
        kept = checkpoint.hidden()
        if kept["folder"] in gone:
            tx.delete(checkpoint)
            model = tx.get(row.project, "model", kept["model"])
            if model is not None:
                tx.delete(model)


def succeed(
    tx: Tx, claim: Claim, result: dict[str, Any], folder: Path, csv: tuple[str, int, str] | None
) -> None:
    """All that a finished job leaves behind, in one step: model, result file, final numbers, events."""
    row = held(tx, claim)
    job, name = row.wire(), final_name(row)
    _add_model(tx, row, name, folder, "tuned", job["organization_id"])
    if csv is not None:
        id, size, sha256 = csv
        file = files.wire_file(id, size, int(tx.now()), f"{row.id}-results.csv", "fine-tune-results")
        tx.put(files.file_record(file, row.project, sha256))
    method = jobmethods.resolved(job["method"], result.get("hyperparameters", {}))
    end(
        tx,
        row,
        "succeeded",
        fine_tuned_model=name,
        trained_tokens=result.get("trained_tokens"),
        hyperparameters=jobmethods.hyperparameters(method),
        method=method,
        result_files=[csv[0]] if csv else [],
    )
    say(tx, row.project, row.id, "model-created", f"New fine-tuned model created: {name}")
    say(tx, row.project, row.id, "done", "The job has successfully completed")


def final_name(row: Row) -> str:
    return f"ft:{_stem(row)}:{_short(row.id, 8)}"


def checkpoint_name(row: Row, step: int) -> str:
    return f"ft:{_stem(row)}:{_short(f'{row.id}/{step}', 8)}:ckpt-step-{step}"


def result_file_id(job: str) -> str:
    return "file-" + _short(f"{job}/results", 24)


def _stem(row: Row) -> str:
    job = row.wire()
    suffix = re.sub(r"[^A-Za-z0-9._-]+", "-", job["user_provided_suffix"] or "")
    return f"{row.hidden()['base']}:{job['organization_id']}:{suffix}"


def _add_model(tx: Tx, row: Row, name: str, folder: Path, kind: str, owner: str) -> None:
    kept = row.hidden()
    adapter = (folder / "adapter_config.json").exists()
    more = {"job": row.id, "parent": kept["model"] if adapter else None}
    made = ModelRow(name, folder, kept["base"], kind)
    base = models.find_row(tx, row.project, kept["base"])
    last_day = base.wire()["shutdown_date"] if base else None
    tx.put(models.model_record(name, row.project, int(tx.now()), owner, made, more, last_day))


def _short(text: str, length: int) -> str:
    """A short stable id of lower-case letters and digits. Pure."""
    number, letters = int.from_bytes(hashlib.sha256(text.encode()).digest()), []
    for _ in range(length):
        number, digit = divmod(number, 36)
        letters.append("0123456789abcdefghijklmnopqrstuvwxyz"[digit])
    return "".join(letters)
