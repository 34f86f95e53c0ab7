"""
The books of a batch: who works on it, how far it is, how it ended.

As with eval runs a claim carries a fence that grows with every claim, and every entry names its fence:
whoever lost the batch can write nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from reconciler.selfhosted.notices import outbox
from reconciler.selfhosted.storage.store import Row, Tx

BATCH = "batch"
ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings")
UNFINISHED = ("validating", "in_progress", "finalizing", "cancelling")
LEASE = 30.0  # seconds until a batch whose server died may be taken by another


class Lost(Exception):
    """The batch is no longer ours."""


class Claim(NamedTuple):
    """The right to work on a batch."""

    project: str
    id: str
    fence: int
    body: Mapping[str, Any]  # as it was when it was claimed
    output_life: int  # seconds


def fresh(output_life: int) -> dict[str, Any]:
    """What is kept beside a batch that nobody has claimed. Pure."""
    return {"worker": None, "lease_until": 0.0, "fence": 0, "output_life": output_life}


def claim(tx: Tx, worker: str, held: frozenset[str]) -> Claim | None:
    """The oldest batch that nobody works on."""
    for found in tx.all(BATCH, *UNFINISHED):
        row = None if found.id in held else tx.get(found.project, BATCH, found.id, lock=True)
        if row is None or row.status not in UNFINISHED:
            continue
        hidden = row.hidden()
        if hidden["worker"] in (None, worker) or hidden["lease_until"] < tx.now():
            hidden |= {"worker": worker, "lease_until": tx.now() + LEASE, "fence": hidden["fence"] + 1}
            tx.update(row, private=hidden)
            return Claim(row.project, row.id, hidden["fence"], row.wire(), hidden["output_life"])
    return None


def enter(tx: Tx, claim: Claim, **changes: Any) -> Row:
    """Change the batch that we hold, and hold it for as long again; the row before. Raises Lost."""
    row = tx.get(claim.project, BATCH, claim.id, lock=True)
    if row is None or row.hidden()["fence"] != claim.fence or row.status not in UNFINISHED:
        raise Lost(claim.id)
    change(tx, row, private=row.hidden() | {"lease_until": tx.now() + LEASE}, **changes)
    return row


def release(tx: Tx, claim: Claim) -> None:
    """Let the next worker go on at once. Raises Lost."""
    row = enter(tx, claim)
    tx.update(row, private=row.hidden() | {"worker": None})


def change(tx: Tx, row: Row, *, private: Mapping[str, Any] | None = None, **changes: Any) -> None:
    """Change fields of the batch, which has only those that are known; a new status gets its time."""
    status = changes.get("status")
    if status is not None and status != row.status:
        changes[f"{status}_at"] = int(tx.now())
        if status not in UNFINISHED:
            outbox.say(tx, row.project, f"batch.{status}", row.id)
    body = row.wire() | {name: value for name, value in changes.items() if value is not None}
    kept = {} if private is None else {"private": private}
    tx.update(row, body=body, status=body["status"], **kept)
