"""
What is to be told to webhooks, kept until it was told: an event enters in the transaction that makes it true.

An event has one id for one thing that happened, however often it is sent; receivers tell repeats by it.
A message that nobody took within seventy-two hours is dropped.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from reconciler.selfhosted import wire
from reconciler.selfhosted.storage.store import Record, Row, Tx

ENDPOINT, MESSAGE = "webhook", "message"
EVENTS = (
    *(f"fine_tuning.job.{status}" for status in ("succeeded", "failed", "cancelled")),
    *(f"eval.run.{status}" for status in ("succeeded", "failed", "canceled")),
    *(f"batch.{status}" for status in ("completed", "failed", "expired", "cancelled")),
)
PATIENCE = 72 * 3600  # seconds
PAUSES = (5, 60, 300, 1800, 7200, 18_000, 36_000)  # seconds after each failure; the last one repeats
IN_FLIGHT = 60.0  # seconds until a message whose sender died is sent again


class Message(NamedTuple):
    """One event for one endpoint, with what is needed to send it."""

    project: str
    id: str  # of the message's own record
    endpoint: str
    event: dict[str, Any]
    attempts: int
    created_at: int


def say(tx: Tx, project: str, type: str, about: str) -> None:
    """Tell the endpoints that asked for it that this happened to the object."""
    event = event_of(type, about, int(tx.now()))
    for endpoint in tx.all(ENDPOINT, project=project):
        if type in endpoint.wire()["event_types"]:
            tx.put(
                Record(
                    MESSAGE,
                    f"{event['id']}/{endpoint.id}",
                    project,
                    event,
                    event["created_at"],
                    parent=endpoint.id,
                    status="waiting",
                    private={"next_at": 0.0, "attempts": 0},
                )
            )


def event_of(type: str, about: str, now: int) -> dict[str, Any]:
    """The event as receivers read it. Pure."""
    id = "evt_" + hashlib.sha256(f"{type}/{about}".encode()).hexdigest()[:32]
    return {"id": id, "object": "event", "created_at": now, "type": type, "data": {"id": about}}


def sample(type: str, now: int) -> dict[str, Any]:
    """An event about nothing, to try an endpoint with."""
    return event_of(type, wire.new_id("sample_"), now)


def take(tx: Tx, most: int) -> list[Message]:
    """The messages that are due, which nobody else takes for a minute."""
    due = [row for row in tx.all(MESSAGE, "waiting") if row.hidden()["next_at"] <= tx.now()][:most]
    for row in due:
        tx.update(row, private=row.hidden() | {"next_at": tx.now() + IN_FLIGHT})
    return [
        Message(row.project, row.id, row.parent, row.wire(), row.hidden()["attempts"], row.created_at)
        for row in due
    ]


def has_due(tx: Tx) -> bool:
    return any(row.hidden()["next_at"] <= tx.now() for row in tx.all(MESSAGE, "waiting"))


def settle(tx: Tx, message: Message, *, taken: bool) -> None:
    """The message was taken, or is to be sent again later, or has waited long enough."""
    row = tx.get(message.project, MESSAGE, message.id, lock=True)
    if row is None:
        return
    next_at = tx.now() + PAUSES[min(message.attempts, len(PAUSES) - 1)]
    if taken or next_at > message.created_at + PATIENCE:
        tx.delete(row)
        return
    tx.update(row, private={"next_at": next_at, "attempts": message.attempts + 1})


def drop(tx: Tx, endpoint: Row) -> None:
    """Forget an endpoint and what waits for it."""
    for row in tx.all(MESSAGE, project=endpoint.project, parent=endpoint.id):
        tx.delete(row)
    tx.delete(endpoint)
