"""
Which rows of a dataset differ, as examples that may be shown to anybody: their shape and never their content.

A shape is keys, roles and lengths. Only where a project says `show_rows` is a row itself shown.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.compare import gone_lines
from reconciler.plan import RowChanges

MOST = 3  # examples
LONGEST = 1_000_000  # bytes of a row that is looked at
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
SHOWN = 300  # characters of a row, where rows may be shown
KEYS, DEEP = 8, 4  # of an object, and of objects in objects


class Example(NamedTuple):
    """One row that differs. `line` is the new file's, or the old one's for a row that is gone."""

    how: str  # added, removed, changed
    line: int
    before: str | None
    after: str | None


def examples(
    rows: RowChanges, old: tuple[Path, bytes], new: tuple[Path, bytes], show: bool
) -> tuple[Example, ...]:
    """At most MOST of them; `old` and `new` are the files and the digests of their rows."""
    say = _cut if show else _told
    if rows.changed:
        lines = rows.lines[:MOST]
        before, after = _read(old[0], lines), _read(new[0], lines)
        return tuple(Example("changed", n, say(before.get(n)), say(after.get(n))) for n in lines)
    came, gone = rows.lines[:MOST], gone_lines(old[1], new[1])[:MOST]
    read = _read(new[0], came)
    added = [Example("added", n, None, say(read.get(n))) for n in came]
    read = _read(old[0], gone)
    removed = [Example("removed", n, say(read.get(n)), None) for n in gone]
    few = added[: MOST - min(len(removed), MOST // 2)]
    return (*few, *removed[: MOST - len(few)])


def shape(value: Any, deep: int = 0) -> str:
    """Keys, roles and lengths of a JSON value. Pure."""
    if isinstance(value, str):
        return _many(len(value), "character")
    if isinstance(value, bool) or value is None or isinstance(value, int | float):
        return {bool: "true or false", type(None): "null"}.get(type(value), "a number")
    if isinstance(value, list):
        if value and all(isinstance(each, dict) and each.get("role") in ROLES for each in value):
            return ", ".join(_message(each, deep) for each in value[:KEYS]) + (
                " …" if len(value) > KEYS else ""
            )
        return _many(len(value), "entry", "entries")
    if deep >= DEEP:
        return _many(len(value), "field")
    told = [f"{str(key)[:40]}: {shape(each, deep + 1)}" for key, each in islice(value.items(), KEYS)]
    return "{" + "; ".join(told) + (" …" if len(value) > KEYS else "") + "}"


def _many(count: int, word: str, words: str = "") -> str:
    return f"1 {word}" if count == 1 else f"{count} {words or f'{word}s'}"


def _message(message: dict[str, Any], deep: int) -> str:
    rest = {key: each for key, each in message.items() if key not in ("role", "content")}
    content = message.get("content")
    said = shape(content, deep + 1) if content is not None else "nothing"
    return f"{message['role']} {said}" + (f" and {', '.join(sorted(map(str, rest)))[:60]}" if rest else "")


def _told(row: bytes | None) -> str:
    try:
        return shape(json.loads(row or b"")) if row and len(row) < LONGEST else "too long to be told"
    except ValueError:
        return "not readable any more"


def _cut(row: bytes | None) -> str:
    text = (row or b"").decode(errors="replace").strip()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _read(path: Path, lines: Iterable[int]) -> dict[int, bytes]:
    """So many lines of a file, by their numbers; empty where it cannot be read any more."""
    wanted = set(lines)
    if not wanted:
        return {}
    try:
        with path.open("rb") as file:
            return dict(_picked(file, wanted))
    except OSError:
        return {}


def _picked(file: Iterable[bytes], wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(file, start=1):
        if number in wanted:
            yield number, line
        if number >= max(wanted):
            return
