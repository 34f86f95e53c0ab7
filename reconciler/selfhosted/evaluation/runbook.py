"""
The life of an eval run in the store: queued, claimed, counted, kept chunk by chunk, finished.

A claim carries a fence, a number that grows with every claim and every cancel. Each write names
its fence, so that whoever lost the run, by a lease that ran out or by a cancel, can add nothing.
A chunk's items, the run's counts and the number of finished chunks become true together: a run
that is claimed again goes on at the first chunk that is not there, and ends with the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from reconciler.selfhosted.evaluation.evalitems import Tally, Usage
from reconciler.selfhosted.notices import outbox
from reconciler.selfhosted.storage.store import Record, Row, Tx, objects

EVAL, RUN, ITEM = "eval", "run", "item"
UNFINISHED = ("queued", "in_progress")


class Lost(Exception):
    """The run is no longer ours: cancelled, deleted, or claimed by another."""


@dataclass(frozen=True)
class Claim:
    """The right to work on a run, until the lease ends or the fence moves."""

    project: str
    run_id: str
    eval_id: str
    fence: int
    chunks: int  # how many are finished
    created_at: int
    data_source: Mapping[str, Any]
    item_schema: Mapping[str, Any]
    criteria: Sequence[Mapping[str, Any]]
    models: Mapping[str, str]  # names as written: concrete names, resolved when the run was created


def fresh(models: Mapping[str, str]) -> dict[str, Any]:
    """What is kept beside a run that nobody has claimed yet. Pure."""
    return {"models": dict(models), "worker": None, "lease_until": 0.0, "fence": 0, "chunks": 0}


def claimable(tx: Tx, worker: str) -> list[Row]:
    """Unfinished runs that nobody else works on, oldest first."""
    return [
        row
        for row in tx.all(RUN, *UNFINISHED)
        if row.status == "queued" or _free(row.hidden(), worker, tx.now())
    ]


def _free(hidden: Mapping[str, Any], worker: str, now: float) -> bool:
    return hidden["worker"] in (None, worker) or hidden["lease_until"] < now


def claim(tx: Tx, run: Row, worker: str, lease_seconds: float) -> Claim | None:
    """Take the run, or None when another was faster."""
    row = tx.get(run.project, RUN, run.id, lock=True)
    if row is None or row.status not in UNFINISHED:
        return None
    hidden, body = row.hidden(), row.wire()
    if row.status == "in_progress" and not _free(hidden, worker, tx.now()):
        return None
    parent = tx.get(row.project, EVAL, row.parent)
    if parent is None:
        return None
    hidden |= {"worker": worker, "lease_until": tx.now() + lease_seconds, "fence": hidden["fence"] + 1}
    tx.update(row, status="in_progress", body={**body, "status": "in_progress"}, private=hidden)
    config = parent.wire()
    return Claim(
        project=row.project,
        run_id=row.id,
        eval_id=row.parent,
        fence=hidden["fence"],
        chunks=hidden["chunks"],
        created_at=row.created_at,
        data_source=body["data_source"],
        item_schema=config["data_source_config"]["schema"]["properties"]["item"],
        criteria=config["testing_criteria"],
        models=hidden["models"],
    )


def _held(tx: Tx, claim: Claim) -> Row:
    row = tx.get(claim.project, RUN, claim.run_id, lock=True)
    if row is None or row.status != "in_progress" or row.hidden()["fence"] != claim.fence:
        raise Lost(claim.run_id)
    return row


def renew(tx: Tx, claim: Claim, lease_seconds: float) -> None:
    """Keep the claim for as long again. Raises Lost."""
    row = _held(tx, claim)
    tx.update(
        row, private=row.hidden() | {"lease_until": tx.now() + lease_seconds}, updated_at=row.updated_at
    )


def release(tx: Tx, claim: Claim) -> None:
    """Let the next worker go on at once. Raises Lost."""
    row = _held(tx, claim)
    tx.update(row, private=row.hidden() | {"worker": None}, updated_at=row.updated_at)


def count(tx: Tx, claim: Claim, total: int) -> None:
    """Show how many rows there are. Raises Lost."""
    row = _held(tx, claim)
    body = row.wire()
    body["result_counts"]["total"] = total
    tx.update(row, body={**body, "per_testing_criteria_results": _criteria(body, claim.criteria, Tally())})


def keep(tx: Tx, claim: Claim, items: Sequence[Record], tally: Tally) -> None:
    """Store a finished chunk and what it adds to the run. Raises Lost."""
    row = _held(tx, claim)
    body, hidden = row.wire(), row.hidden()
    tx.insert_all(items)
    counts = body["result_counts"]
    body["result_counts"] = {
        "total": counts["total"],
        "errored": counts["errored"] + tally.errored,
        "failed": counts["failed"] + tally.failed,
        "passed": counts["passed"] + tally.passed,
    }
    body["per_model_usage"] = _usage(body["per_model_usage"] or [], tally.usage)
    body["per_testing_criteria_results"] = _criteria(body, claim.criteria, tally)
    tx.update(row, body=body, private=hidden | {"chunks": hidden["chunks"] + 1})


def finish(tx: Tx, claim: Claim, error: Mapping[str, str] | None = None) -> None:
    """The run is completed, or failed with the reason. Raises Lost."""
    row = _held(tx, claim)
    status = "completed" if error is None else "failed"
    body = row.wire() | {"status": status, "error": error}
    body["per_model_usage"] = body["per_model_usage"] or []
    tx.update(row, status=status, body=body, private=row.hidden() | {"worker": None})
    outbox.say(tx, row.project, "eval.run.failed" if error else "eval.run.succeeded", row.id)


def cancel(tx: Tx, run: Row) -> None:
    """Stop an unfinished run; what is finished of it stays."""
    hidden = run.hidden()
    hidden |= {"fence": hidden["fence"] + 1, "worker": None}
    tx.update(run, status="canceled", body=run.wire() | {"status": "canceled"}, private=hidden)
    outbox.say(tx, run.project, "eval.run.canceled", run.id)


def forget(tx: Tx, run: Row) -> None:
    """Delete the run and its items."""
    of_run = (objects.c.type == ITEM, objects.c.project == run.project, objects.c.parent == run.id)
    tx.connection.execute(sa.delete(objects).where(*of_run))
    tx.delete(run)


def _usage(known: Sequence[Mapping[str, Any]], added: Mapping[str, Usage]) -> list[dict[str, Any]]:
    totals = {
        of["model_name"]: Usage(of["invocation_count"], of["prompt_tokens"], of["completion_tokens"])
        for of in known
    }
    for name, usage in added.items():
        totals[name] = totals[name].plus(usage) if name in totals else usage
    return [
        {
            "model_name": name,
            "invocation_count": usage.invocations,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "cached_tokens": 0,
        }
        for name, usage in totals.items()
    ]


def _criteria(
    body: Mapping[str, Any], criteria: Sequence[Mapping[str, Any]], tally: Tally
) -> list[dict[str, Any]]:
    known = {of["testing_criteria"]: of for of in body["per_testing_criteria_results"] or []}
    summed = []
    for criterion in criteria:
        before = known.get(criterion["id"], {"passed": 0, "failed": 0, "errored": 0})
        passed, failed, errored = tally.criteria.get(criterion["id"], (0, 0, 0))
        summed.append(
            {
                "testing_criteria": criterion["id"],
                "passed": before["passed"] + passed,
                "failed": before["failed"] + failed,
                "errored": before["errored"] + errored,  # beyond OpenAI: neither passed nor failed
            }
        )
    return summed
