"""
Datasets as they lie on disk: one JSON object a line, judged and digested in one pass.

However large the file, memory holds a block of it and eight bytes a row. Problems name the file, the
row and the byte, and never quote what stands there: a row may be anybody's words.
"""

import builtins
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from reconciler import rowcheck, rowtypes
from reconciler.errors import Problem
from reconciler.rowcheck import FORMATS

if TYPE_CHECKING:
    from reconciler.itemschema import ItemSchema

__all__ = ["FORMATS", "MIN_ROWS", "ROW_DIGEST_BYTES", "Scan", "scan"]

MIN_ROWS = 10  # that fine-tuning takes
MAX_LINE = 64 * 1024 * 1024  # bytes
ROW_DIGEST_BYTES = 8

_BLOCK = 1024 * 1024  # bytes


@dataclass(frozen=True)
class Scan:
    """What one pass over a file found. Usable as a dataset only without problems."""

    path: str
    rows: int
    bytes: int
    sha256: str  # of the whole file, in hex
    row_digests: (
        builtins.bytes
    )  # ROW_DIGEST_BYTES for each row: the start of its SHA-256, without the newline
    problems: list[Problem]  # the first ones
    total_problems: int

    def report(self) -> list[Problem]:
        """The first problems, and one more that counts the others."""
        rest = self.total_problems - len(self.problems)
        return [*self.problems, *([Problem(self.path, f"{rest:,} more problems like these")] if rest else [])]


def scan(
    path: Path | str,
    fmt: str,
    *,
    item_schema: Mapping[str, Any] | None = None,
    limit: int = 20,
    min_rows: int | None = None,
) -> Scan:
    """
    Judge and digest every row of the file at `path` as `fmt`, one of FORMATS.

    `item_schema` is for `items`; ValueError when it is no JSON Schema. The file must hold `min_rows`:
    unless told otherwise MIN_ROWS for the formats that train, and one for items.
    """
    schema = None
    if item_schema is not None:
        from reconciler.itemschema import ItemSchema  # slow to import, and seldom needed

        schema = ItemSchema(item_schema)
    work = _Pass(str(path), limit)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            work.complain("this is not a file; name a .jsonl file")
        else:
            with open(path, "rb", buffering=0) as stream:
                work.read(stream, fmt, schema)
            least = min_rows if min_rows is not None else 1 if fmt == "items" else MIN_ROWS
            work.expect(least)
    except FileNotFoundError:
        work.complain("no such file")
    except OSError as bad:
        work.complain(f"the file cannot be read: {bad.strerror}")
    return work.result()


class _Pass:
    """One pass over one file, and what it has found so far."""

    def __init__(self, path: str, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.rows = 0
        self.bytes = 0
        self.whole = hashlib.sha256()
        self.row_digests = bytearray()
        self.problems: list[Problem] = []
        self.total = 0

    def read(self, stream: BinaryIO, fmt: str, schema: "ItemSchema | None") -> None:
        decode, is_good = _test(fmt, schema)
        sha256 = hashlib.sha256
        for offset, line in self._lines(stream):
            self.rows += 1
            if line is None:
                self.complain(f"the row has more than {MAX_LINE:,} bytes; shorten it", offset)
                continue
            self.row_digests += sha256(line).digest()[:ROW_DIGEST_BYTES]
            try:
                if (line.isascii() or line.decode()) and is_good(decode(line)):
                    continue
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
            flaws = rowcheck.explain(line, fmt, schema.flaws if schema else None)
            for what, at in islice(flaws, self.limit):
                self.complain(what, offset + at)

    def _lines(self, stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
        """Every line with its offset in bytes; None for one that is too long to hold."""
        start = size = 0  # of the line that is not complete yet
        parts: list[bytes] = []
        while block := stream.read(_BLOCK):
            self.whole.update(block)
            self.bytes += len(block)
            first, *others = block.split(b"\n")
            parts.append(first)
            size += len(first)
            if size > MAX_LINE:
                parts.clear()
            if not others:
                continue
            yield start, b"".join(parts) if size <= MAX_LINE else None
            start += size + 1
            last = others.pop()
            for line in others:
                yield start, line
                start += len(line) + 1
            parts, size = [last], len(last)
        if size:
            yield start, b"".join(parts) if size <= MAX_LINE else None

    def expect(self, least: int) -> None:
        if not self.bytes:
            self.complain("the file is empty")
        elif self.rows < least:
            self.complain(f"the file has {self.rows} rows, at least {least} are needed; add some")

    def complain(self, what: str, offset: int | None = None) -> None:
        """Note what is wrong with the row at `offset`, or with the file as a whole."""
        self.total += 1
        if len(self.problems) < self.limit:
            where = self.path if offset is None else f"{self.path}:{self.rows}"
            self.problems.append(Problem(where, what if offset is None else f"{what} (byte {offset})"))

    def result(self) -> Scan:
        return Scan(
            path=self.path,
            rows=self.rows,
            bytes=self.bytes,
            sha256=self.whole.hexdigest(),
            row_digests=bytes(self.row_digests),
            problems=self.problems,
            total_problems=self.total,
        )


def _test(fmt: str, schema: "ItemSchema | None") -> rowtypes.Test:
    if schema is None:
        return rowtypes.test_for(fmt)
    if schema.type is not None:
        return rowtypes.test_for_items(schema.type)
    return rowtypes.Test(rowtypes.test_for("items").decode, lambda row: schema.takes(row.item))
