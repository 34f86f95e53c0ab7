"""
What we know of every release file: what git said of it last, and what we wrote ourselves, in order.

So that a change that somebody made is told from our own. Losing it loses no release: whatever git says
then is taken for old news.
"""

import hashlib
import json
import threading
from pathlib import Path

import msgspec

REMEMBERED = 200  # of our own versions of one file


class Known(msgspec.Struct):
    """Digests of one file's contents."""

    base: str | None = None  # None: git has no such file
    written: list[str] = []

    def wrote(self, digest: str) -> None:
        """We have put this into the file."""
        if digest not in self.written:
            self.written = [*self.written, digest][-REMEMBERED:]

    def ahead(self, digest: str | None) -> bool:
        """Whether it is a version of ours that is newer than git's last one."""
        if digest not in self.written:
            return False
        return self.base not in self.written or self.written.index(digest) > self.written.index(self.base)


class Shelf:
    """Kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lock = threading.RLock()
        self.files: dict[str, Known] = {}
        self.offered: dict[str, str | None] = {}  # what the pull request holds, by file
        try:
            found = json.loads(path.read_bytes())
            self.files = {name: msgspec.convert(each, Known) for name, each in found["files"].items()}
            self.offered = dict(found["offered"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # nothing is known yet

    def keep(self) -> None:
        """Raises OSError."""
        with self.lock:
            known = {"files": {name: msgspec.to_builtins(each) for name, each in self.files.items()}}
            text = json.dumps(known | {"offered": self.offered}, indent=1)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(text)
            temporary.replace(self._path)


def digest(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()
