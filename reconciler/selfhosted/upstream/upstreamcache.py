"""
What upstreams have answered, so that nothing is paid for twice: by a run that goes on after a crash, or again.

The key is a digest of the exact request and the place it went to; neither the request nor an API key is kept.
An answer counts as given once it is written, which one transaction does for all that wait. It is a cache:
the oldest go when it is full or a month old, and one that cannot be read or written costs only money.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import structlog

from reconciler.selfhosted.engine.values import Answer

T = TypeVar("T")
LIFE = 30 * 24 * 3600  # seconds: a name may mean another model by then
OVERHEAD = 150  # bytes of a row beside its answer
KEPT_WHEN_FULL = 0.9
SCHEMA = "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, at REAL NOT NULL, answer BLOB NOT NULL)"

log = structlog.get_logger("reconciler.selfhosted")


class _Unkept(NamedTuple):
    key: bytes
    answer: bytes
    kept: asyncio.Future[None]


class Cache:
    """Answers by key in one SQLite file of about `most` bytes; 0 keeps nothing."""

    def __init__(self, path: Path, most: int, now: Callable[[], float] = time.time) -> None:
        self._path, self._most, self._now = path, most, now
        self._thread = ThreadPoolExecutor(1, "upstream-cache")
        self._database: sqlite3.Connection | None = None  # used on the thread only
        self._bytes = 0
        self._unkept: list[_Unkept] = []
        self._keeping: asyncio.Task[None] | None = None

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        """The answers that are known."""
        if not self._most or not keys:
            return {}
        found = await self._on_thread(lambda: self._read(keys))
        return {key: msgspec.json.decode(answer, type=Answer) for key, answer in found}

    async def put(self, key: bytes, answer: Answer) -> None:
        """Keep an answer; it outlives this process when this returns."""
        if not self._most:
            return
        kept = asyncio.get_running_loop().create_future()
        self._unkept.append(_Unkept(key, msgspec.json.encode(answer), kept))
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())
        await kept

    async def close(self) -> None:
        if self._keeping is not None:
            await self._keeping
        await self._on_thread(self._close)
        self._thread.shutdown()

    async def _keep(self) -> None:
        while self._unkept:
            batch, self._unkept = self._unkept, []
            await self._on_thread(lambda batch=batch: self._write(batch))  # type: ignore[misc]
            for each in batch:
                if not each.kept.done():  # whoever asked has gone
                    each.kept.set_result(None)
        self._keeping = None

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _read(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        wanted = f"SELECT key, answer FROM answers WHERE at > ? AND key IN ({','.join('?' * len(keys))})"
        try:
            return self._opened().execute(wanted, (self._now() - LIFE, *keys)).fetchall()
        except sqlite3.Error as error:
            log.warning("upstream.cache_unreadable", error=type(error).__name__)
            return []

    def _write(self, batch: Sequence[_Unkept]) -> None:
        now = self._now()
        rows = [(each.key, now, each.answer) for each in batch]
        try:
            database = self._opened()
            with database:
                database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
                self._bytes += sum(len(each.answer) + OVERHEAD for each in batch)
                if self._bytes > self._most:
                    self._shrink(database)
        except sqlite3.Error as error:  # a full disk, say: the answer itself is there
            log.warning("upstream.cache_unwritable", error=type(error).__name__)

    def _shrink(self, database: sqlite3.Connection) -> None:
        """Delete the oldest; the file keeps its size and their room is used again."""
        spare = _size(database) - self._most * KEPT_WHEN_FULL
        for row, size in database.execute("SELECT rowid, length(answer) FROM answers ORDER BY at, rowid"):
            if spare <= 0:
                break
            spare -= size + OVERHEAD
            last = row
            database.execute("DELETE FROM answers WHERE rowid = ?", (last,))
        self._bytes = _size(database)

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            try:
                self._database = _open(self._path)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                log.warning("upstream.cache_begun_anew", error=type(error).__name__)
                for suffix in ("", "-wal", "-shm"):
                    self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
                self._database = _open(self._path)
            self._bytes = _size(self._database)
        return self._database

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")  # outlives the process; a power cut may cost the last
        database.execute(SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _size(database: sqlite3.Connection) -> int:
    total = database.execute("SELECT coalesce(sum(length(answer) + ?), 0) FROM answers", (OVERHEAD,))
    return int(total.fetchone()[0])
