"""
Which saved plans were begun, and which were finished: so that each is carried out once.

A plan that was begun and not finished may be gone on with; one that was finished may not be repeated.
"""

from typing import NamedTuple

from sqlalchemy import Column, Float, String, Table, insert, select, update
from sqlalchemy.exc import IntegrityError

from reconciler.journal import Journal, metadata

plans = Table(
    "plans", metadata,
    Column("digest", String(64), primary_key=True),
    Column("platform", String(200), nullable=False),
    Column("begun_at", Float, nullable=False),
    Column("finished_at", Float),
)  # fmt: skip


class Carried(NamedTuple):
    """What became of a plan; in unix seconds."""

    begun_at: float
    finished_at: float | None


class PlanBook:
    """The plans that a journal knows."""

    def __init__(self, journal: Journal) -> None:
        """Raises ReconcilerError where the journal cannot be written."""
        self._journal = journal
        journal.keep(plans)

    def find(self, digest: str) -> Carried | None:
        """What became of a plan; None where it was never begun."""
        with self._journal.read() as db:
            row = db.execute(select(plans).where(plans.c.digest == digest)).one_or_none()
        return Carried(row.begun_at, row.finished_at) if row else None

    def begin(self, digest: str, platform: str, now: float) -> None:
        """Remember that it is being carried out; no error where somebody else began it meanwhile."""
        try:
            with self._journal.write() as db:
                db.execute(insert(plans).values(digest=digest, platform=platform, begun_at=now))
        except IntegrityError:
            pass  # both go on with it: what one asks for, the other finds claimed or made

    def finish(self, digest: str, now: float) -> None:
        with self._journal.write() as db:
            db.execute(update(plans).where(plans.c.digest == digest).values(finished_at=now))
