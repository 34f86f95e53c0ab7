"""Databases as we use them: opened by URL, durable, and a sentence for everything that can be wrong with one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import NullPool

from reconciler import holder
from reconciler.errors import ReconcilerError

SQLITE = "sqlite:///"
LOCK = 0x7265636F  # who makes tables holds it
PATIENCE = 30_000  # milliseconds
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={PATIENCE}")
# who is stopped inside a transaction keeps nobody waiting for longer
IMPATIENT = "SET idle_in_transaction_session_timeout = '10s'"


def writing(url: str) -> Engine:
    """A database to write to: every commit of it is durable. Raises ReconcilerError."""
    opened = reading(url)
    if url.startswith(SQLITE):
        event.listen(opened, "connect", _durable)
        event.listen(opened, "begin", lambda db: db.exec_driver_sql("BEGIN IMMEDIATE"))
    elif opened.dialect.name == "postgresql":
        event.listen(opened, "connect", _impatient)
    return opened


def reading(url: str) -> Engine:
    """A database to look at. Raises ReconcilerError."""
    try:
        return create_engine(url, poolclass=NullPool if url.startswith(SQLITE) else None)
    except (ArgumentError, NoSuchModuleError):
        what = "what should be the URL of a database is none"
        raise ReconcilerError(f"{what}; write postgresql://user:password@host/name") from None
    except ModuleNotFoundError as error:
        what = f"the database needs the package {error.name}, which is not installed"
        raise ReconcilerError(f"{what}; install reconciler with its extra `postgres`") from None


def make(opened: Engine, tables: Sequence[Table]) -> None:
    """Those of the tables that are not there yet; several that start at once make them once. Raises ReconcilerError."""
    try:
        with opened.begin() as db:
            if opened.dialect.name == "postgresql":
                db.execute(select(func.pg_advisory_xact_lock(LOCK)))
            for table in tables:
                table.create(db, checkfirst=True)
    except DatabaseError as error:
        raise broken(opened, error) from None


def upserting(db: Connection) -> Callable[..., Any]:
    """The `insert` of this database that knows what to do when another process was first."""
    return postgresql.insert if db.dialect.name == "postgresql" else sqlite.insert


def broken(opened: Engine, error: DatabaseError) -> ReconcilerError:
    """What is wrong with the journal's database, in one sentence that has no password."""
    said = str(error.orig).partition("\n")[0].strip()
    place = opened.url.render_as_string()
    if opened.dialect.name == "sqlite" and "is locked" in said:
        file = Path(opened.url.database or "")
        who = " and ".join(f"process {pid}" for pid in holder.writers(file)) or "another process"
        what = f"{who} has not let go of it for {PATIENCE // 1000} s"
        return ReconcilerError(
            f"the journal at {place} cannot be used: {what}; end that process, or wait for it"
        )
    return ReconcilerError(f"the journal at {place} cannot be used: {said}; {_advice(opened, error)}")


def _advice(opened: Engine, error: DatabaseError) -> str:
    if opened.dialect.name != "sqlite":
        return "see that the database runs and that this user may use it, then run again"
    if isinstance(error, OperationalError):
        return "free the disk or mend its permissions, then run again"
    return "move it away, then run again"


def _durable(connection: Any, _: Any) -> None:
    """WAL, an fsync on every commit, patience with other writers, and transactions that we begin ourselves."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _impatient(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(IMPATIENT)
    cursor.close()
    connection.commit()
