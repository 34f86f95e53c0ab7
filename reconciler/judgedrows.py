"""
Rows of answers that a judge is calibrated on: each needs its answer, and the truth about it.

What is wrong is told by line and never quoted.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec


class Row(msgspec.Struct):
    item: dict[str, Any]
    sample: dict[str, Any] = {}


class Line(NamedTuple):
    number: int
    row: Row


def _lines(path: str) -> Iterator[Line]:
    decode = msgspec.json.Decoder(Row).decode
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            yield Line(number, decode(line))


def unanswered(path: str) -> str | None:
    """What is wrong with answers that are missing. The file holds items without flaws."""
    lacking = [
        each.number for each in _lines(path) if not isinstance(each.row.sample.get("output_text"), str)
    ]
    return _told(lacking, 'have no answer; write it beside the item as "sample": {"output_text": "..."}')


def unlabelled(path: str, label: str) -> str | None:
    """What is wrong with the truths that people wrote. The file holds items without flaws."""
    truths = [(each.number, each.row.item.get(label)) for each in _lines(path)]
    lacking = [number for number, truth in truths if not isinstance(truth, bool)]
    if lacking:
        return _told(lacking, f"do not say in {label} whether the answer is good, true or false")
    if len({truth for _, truth in truths}) == 1:
        kind = "good" if truths[0][1] else "bad"
        return f"{label} calls every answer {kind}; a judge is measured on good and bad ones"
    return None


def _told(lines: list[int], what: str) -> str | None:
    if not lines:
        return None
    return f"{len(lines)} rows {what}; the first is line {lines[0]}"
