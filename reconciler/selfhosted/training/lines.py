"""
A file of JSON lines that only grows, and survives being cut.

A process killed in the middle of a write leaves a torn last line: readers skip it, and the next writer
cuts it off. A line is flushed when it is said, so that others can follow; it is forced to the disk only
when asked (`sync`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """Every whole line of the file, [] when there is no file."""
    if not path.exists():
        return []
    whole = path.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]
    found = []
    for line in kept.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # a block the disk lost in a power failure; what it said will be said again
            continue
    return found


class Lines:
    """Appends lines."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        _cut_torn_line(path)

    def add(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def sync(self) -> None:
        """Return when everything added is on the disk."""
        os.fsync(self._file.fileno())


def _cut_torn_line(path: Path) -> None:
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    if end != len(whole):
        os.truncate(path, end)
