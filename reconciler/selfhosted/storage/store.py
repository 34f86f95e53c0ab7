"""
What the platform remembers, in a database. A list or a get never rebuilds an object: it sends its row.

Reads on SQLite run inline (well under a millisecond); writes run one at a time in a thread, each one
transaction, durable when it returns. PostgreSQL gets threads for both. No SQL here is SQLite's alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError

from reconciler.selfhosted.storage import queries
from reconciler.selfhosted.storage.records import (
    SHARED,
    Listing,
    Page,
    Record,
    Row,
    UnknownCursor,
    columns,
    facts,
    marks,
    objects,
    tables,
)

T = TypeVar("T")
SCHEMA = 1  # raise with every change of the tables

__all__ = [
    "SHARED",
    "Listing",
    "Page",
    "Record",
    "Row",
    "Store",
    "Tx",
    "UnknownCursor",
    "marks",
    "objects",
    "tables",
]


class Tx:
    """One transaction: everything in it becomes true together, or nothing does."""

    def __init__(self, connection: sa.Connection, now: Callable[[], float]) -> None:
        self.connection = connection
        self.now = now

    def get(self, project: str, type: str, id: str, *, lock: bool = False) -> Row | None:
        """The object, or None; `lock` before changing what was read (PostgreSQL needs to be told)."""
        asked = {"project": project, "type": type, "id": id, "now": int(self.now())}
        found = self.connection.execute(queries.GET_LOCKED if lock else queries.GET, asked).first()
        return Row(*found) if found else None

    def insert(self, record: Record) -> int:
        """Store a new object and return its place in the order; IntegrityError if the id is taken."""
        added = self.connection.execute(sa.insert(objects).values(**columns(record)))
        seq = int(added.inserted_primary_key[0])  # type: ignore[index]
        if record.marks:
            rows = [{"seq": seq, "key": key, "value": value} for key, value in record.marks.items()]
            self.connection.execute(sa.insert(marks), rows)
        return seq

    def insert_all(self, records: Sequence[Record]) -> None:
        """Store many new objects without marks at once."""
        if records:
            self.connection.execute(sa.insert(objects), [columns(record) for record in records])

    def update(self, row: Row, **changes: Any) -> None:
        """Change columns of an object; `body` and `private` are given as mappings, `marks` replaces all."""
        new_marks = changes.pop("marks", None)
        for name in ("body", "private"):
            if name in changes:
                changes[name] = msgspec.json.encode(changes[name])
        changes.setdefault("updated_at", int(self.now()))
        self.connection.execute(sa.update(objects).where(objects.c.seq == row.seq).values(**changes))
        if new_marks is not None:
            self.connection.execute(sa.delete(marks).where(marks.c.seq == row.seq))
            rows = [{"seq": row.seq, "key": key, "value": value} for key, value in new_marks.items()]
            if rows:
                self.connection.execute(sa.insert(marks), rows)

    def put(self, record: Record) -> None:
        """Store an object under its id: in the place of an earlier one if there is one."""
        changed = self.connection.execute(
            sa.update(objects)
            .where(
                objects.c.project == record.project,
                objects.c.type == record.type,
                objects.c.id == record.id,
            )
            .values(**columns(record))
        )
        if changed.rowcount == 0:
            self.insert(record)

    def delete(self, row: Row) -> None:
        self.connection.execute(sa.delete(marks).where(marks.c.seq == row.seq))
        self.connection.execute(sa.delete(objects).where(objects.c.seq == row.seq))

    def page(self, listing: Listing) -> Page:
        """One page of a list; UnknownCursor when `after` names nothing there."""
        last = None
        if listing.after is not None:
            last = self.get(listing.project, listing.type, listing.after)
            if last is None:
                raise UnknownCursor(listing.after)
        found = self.connection.execute(*queries.page(listing, last, int(self.now()))).all()
        return Page([Row(*row) for row in found[: listing.limit]], len(found) > listing.limit)

    def all(
        self, type: str, *statuses: str, project: str | None = None, parent: str | None = None
    ) -> list[Row]:
        """Every object of a type in order, of all projects unless one is named; for our own housekeeping."""
        asked = sa.select(objects).where(objects.c.type == type, self._alive()).order_by(objects.c.seq)
        if statuses:
            asked = asked.where(objects.c.status.in_(statuses))
        if project is not None:
            asked = asked.where(objects.c.project == project)
        if parent is not None:
            asked = asked.where(objects.c.parent == parent)
        return [Row(*row) for row in self.connection.execute(asked).all()]

    def delete_expired(self, type: str, but: Collection[str] = ()) -> list[str]:
        """Delete the objects of a type that are past their time, but for some, and return their ids."""
        past = objects.c.type == type, objects.c.expires_at <= int(self.now()), objects.c.id.not_in(but)
        ids = list(self.connection.execute(sa.select(objects.c.id).where(*past)).scalars())
        if ids:
            self.connection.execute(sa.delete(objects).where(*past))
        return ids

    def ids(self, *types: str) -> set[str]:
        """The ids of every object of these types, of all projects."""
        return set(
            self.connection.execute(sa.select(objects.c.id).where(objects.c.type.in_(types))).scalars()
        )

    def count(self, project: str, type: str, parent: str) -> int:
        asked = sa.select(sa.func.count()).where(
            objects.c.project == project, objects.c.type == type, objects.c.parent == parent
        )
        return int(self.connection.execute(asked).scalar_one())

    def _alive(self) -> sa.ColumnElement[bool]:
        return sa.or_(objects.c.expires_at.is_(None), objects.c.expires_at > int(self.now()))


class Store:
    """The database behind one server; open it with a SQLAlchemy URL such as sqlite:////data/platform.db."""

    def __init__(self, url: str, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self._engine = sa.create_engine(url, **_pooling(url))
        self._inline = self._engine.dialect.name == "sqlite"
        if self._inline:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(
                self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE")
            )
        self._threads = ThreadPoolExecutor(1 if self._inline else 8, thread_name_prefix="store")
        self._create_tables()
        self._reader: Tx | None = None

    async def read(self, ask: Callable[[Tx], T]) -> T:
        """What `ask` finds."""
        if self._inline:
            return self.read_now(ask)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.read_now, ask)

    async def write(self, act: Callable[[Tx], T]) -> T:
        """
        Do `act` as one durable transaction; an exception in it undoes it.

        On a collision with another writer it is done again, so it must touch nothing but its Tx.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.write_now, act)

    def read_now(self, ask: Callable[[Tx], T]) -> T:
        if not self._inline:
            with self._engine.begin() as connection:
                return ask(Tx(connection, self.now))
        if self._reader is None:
            self._reader = Tx(_sqlite_reader(self._engine.url), self.now)
        return ask(self._reader)

    def write_now(self, act: Callable[[Tx], T], attempts: int = 3) -> T:
        """`write` for callers without an event loop."""
        for attempt in range(attempts):
            try:
                with self._engine.begin() as connection:
                    return act(Tx(connection, self.now))
            except (IntegrityError, DBAPIError) as error:
                collided = isinstance(error, IntegrityError) or "could not serialize" in str(error)
                if not collided or attempt + 1 == attempts:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        if self._reader is not None:
            self._reader.connection.close()
            self._reader.connection.engine.dispose()
        self._engine.dispose()

    def _create_tables(self) -> None:
        tables.create_all(self._engine)
        found = self.write_now(_schema_found)
        if found != SCHEMA:
            raise ValueError(
                f"the store has schema {found}, this version reads {SCHEMA}; use a matching version"
            )


def _schema_found(tx: Tx) -> int:
    found = tx.connection.execute(sa.select(facts.c.value).where(facts.c.name == "schema")).scalar()
    if found is None:
        tx.connection.execute(sa.insert(facts).values(name="schema", value=str(SCHEMA)))
        return SCHEMA
    return int(found)


def _pooling(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"check_same_thread": False, "timeout": 30}}
    return {"pool_size": 8, "pool_pre_ping": True}


def _sqlite_reader(url: sa.URL) -> sa.Connection:
    """A connection apart from the writers' engine: each select sees the latest commit and locks nothing."""
    engine = sa.create_engine(url, **_pooling("sqlite"))
    event.listen(engine, "connect", _prepare_sqlite)
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy says when a transaction begins, not the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
