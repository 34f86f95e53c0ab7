"""
What a journal remembers of ownership: what manifests said last about protection, and what was deleted
although its platform goes on listing it (a job without its model).
"""

from collections.abc import Mapping

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    String,
    Table,
    Text,
    delete,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import IntegrityError

from reconciler.journal import Journal, intents, memory, metadata
from reconciler.protection import Word

words = Table(
    "protections", metadata,
    Column("platform", String(200), primary_key=True),
    Column("address", Text, primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("protect", Boolean, nullable=False),
)  # fmt: skip
gone = Table(
    "gone", metadata,
    Column("platform", String(200), primary_key=True),
    Column("object_id", String(200), primary_key=True),
    Column("at", Float, nullable=False),
)  # fmt: skip


class OwnBook:
    """Ownership, as a journal knows it. Reading makes no table."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def words(self, platform: str) -> dict[str, Word]:
        """By address, what its manifest said last."""
        with self._journal.read() as db:
            if not _has(db, words):
                return {}
            rows = db.execute(select(words).where(words.c.platform == platform)).all()
        return {row.address: Word(row.fingerprint, row.protect) for row in rows}

    def speak(self, platform: str, fresh: Mapping[str, Word]) -> None:
        """Remember what manifests say now."""
        if not fresh:
            return
        with self._journal.write() as db:
            words.create(db, checkfirst=True)
            here = words.c.platform == platform
            db.execute(delete(words).where(here, words.c.address.in_(fresh)))
            db.execute(
                insert(words), [{"platform": platform, "address": a} | w._asdict() for a, w in fresh.items()]
            )

    def gone(self, platform: str) -> frozenset[str]:
        """The ids of what was deleted, and is listed all the same."""
        with self._journal.read() as db:
            if not _has(db, gone):
                return frozenset()
            found = db.execute(select(gone.c.object_id).where(gone.c.platform == platform)).scalars().all()
        return frozenset(found)

    def went(self, platform: str, object_id: str, now: float) -> None:
        """Remember that what is listed under this id is as good as gone."""
        try:
            with self._journal.write() as db:
                gone.create(db, checkfirst=True)
                db.execute(insert(gone).values(platform=platform, object_id=object_id, at=now))
        except IntegrityError:
            pass  # somebody else deleted it too

    def forget(self, platform: str, address: str, fingerprint: str) -> None:
        """Remember no more that this stood for an address, now that it was deleted."""
        with self._journal.write() as db:
            mine = (memory.c.platform == platform) & (memory.c.address == address)
            db.execute(delete(memory).where(mine, memory.c.fingerprint == fingerprint))

    def stood(self, platform: str) -> dict[str, str]:
        """By address that was applied, the id of the object that was made for it last; empty where nobody knows."""
        with self._journal.read() as db:
            here = (intents.c.fingerprint == memory.c.fingerprint) & (intents.c.platform == memory.c.platform)
            query = select(memory.c.address, intents.c.object_id).outerjoin(intents, here)
            rows = db.execute(query.where(memory.c.platform == platform).order_by(intents.c.id)).all()
        return {row.address: row.object_id or "" for row in rows}


def _has(db: Connection, table: Table) -> bool:
    return inspect(db).has_table(table.name)
