"""
Bytes on disk: a blob is complete and durable under its name, or it is not there.

Content goes to a temporary file, is fsynced, renamed, and the folder is fsynced. Nothing is held in
memory: a 512 MB upload costs the same as a small one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

CHUNK = 1 << 20  # bytes per write and per read


class Stored(NamedTuple):
    bytes: int
    sha256: str


class Blobs:
    """A folder of blobs, each under an id that its owner chose."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        for leftover in self._incoming.iterdir():  # of a process that died while it received
            leftover.unlink()

    def path(self, id: str) -> Path:
        """Where the blob lies; two levels, so that no folder grows beyond a few thousand names."""
        return self.folder / hashlib.sha256(id.encode()).hexdigest()[:2] / id

    def receive(self, id: str) -> Incoming:
        """Begin to receive a blob; nothing is visible until `keep`."""
        return Incoming(self._incoming / f"{id}.{secrets.token_hex(4)}", self.path(id))

    async def store(self, id: str, content: bytes) -> Stored:
        """Keep bytes that are already in memory."""
        async with self.receive(id) as incoming:
            await incoming.write(content)
            return await incoming.keep()

    def delete(self, id: str) -> None:
        self.path(id).unlink(missing_ok=True)

    def older_than(self, moment: float) -> list[str]:
        """The ids of blobs that were kept before a Unix time."""
        shelves = [shelf for shelf in self.folder.iterdir() if shelf != self._incoming]
        return [blob.name for shelf in shelves for blob in shelf.iterdir() if blob.stat().st_mtime < moment]

    async def read(self, id: str) -> AsyncIterator[bytes]:
        """The blob in chunks; FileNotFoundError if it is not there."""
        file = await asyncio.to_thread(self.path(id).open, "rb")
        try:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk
        finally:
            file.close()


class Incoming:
    """A blob on its way in: `write` any number of times, then `keep`; leaving without `keep` drops it."""

    def __init__(self, temporary: Path, final: Path) -> None:
        self._temporary, self._final = temporary, final
        self._file = temporary.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._pending: list[bytes] = []
        self._waiting = 0
        self.bytes = 0

    async def write(self, chunk: bytes) -> None:
        self._pending.append(chunk)
        self._waiting += len(chunk)
        self.bytes += len(chunk)
        if self._waiting >= CHUNK:
            await asyncio.to_thread(self._flush)

    async def keep(self) -> Stored:
        """Make the blob durable and visible."""
        await asyncio.to_thread(self._finish)
        return Stored(self.bytes, self._digest.hexdigest())

    async def __aenter__(self) -> Incoming:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        for chunk in self._pending:
            self._digest.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) :]
        self._pending, self._waiting = [], 0

    def _finish(self) -> None:
        self._flush()
        os.fsync(self._file.fileno())
        if not self._final.parent.exists():
            self._final.parent.mkdir(exist_ok=True)
            sync_folder(self._final.parent.parent)
        os.replace(self._temporary, self._final)
        sync_folder(self._final.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and unlinks in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
