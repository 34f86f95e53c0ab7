"""
The rows of a run's data source, one at a time, so that memory stays flat whatever their number.

A row's index counts rows from 0 in file order, blank lines left out, and is the item's
identity: it decides the chunk, the seed and the id of what comes out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec

MAX_ROW_BYTES = 16 * 1024 * 1024
SHOWN = 20  # problem rows named in a run's error; the rest is a count
STEPS = 100_000  # back in a text, for a pattern that cannot be matched in one go: a few milliseconds


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `sample` only when the outputs were generated elsewhere."""

    index: int
    item: Mapping[str, Any]
    sample: Mapping[str, Any] | None


class BadRow(Exception):
    """A row that is not `{"item": {...}, "sample"?: {...}}`."""


class BadSchema(Exception):
    """A schema that shows only when it is put to use that it cannot be: a reference to nowhere, say."""


class Census(NamedTuple):
    """How many rows there are, how many are unusable, and the first few reasons."""

    total: int
    bad: int
    reasons: Sequence[str]


def of_file(path: Path) -> Iterator[Row | BadRow]:
    """The rows of a JSONL file."""
    index = offset = 0
    with path.open("rb") as lines:
        for number in range(1, 1 << 62):
            line = lines.readline(MAX_ROW_BYTES + 1)
            if not line:
                return
            if len(line) > MAX_ROW_BYTES:
                yield BadRow(f"line {number} (byte {offset}): is longer than {MAX_ROW_BYTES} bytes")
                return
            if line.strip():
                yield _row(line, index, f"line {number} (byte {offset})")
                index += 1
            offset += len(line)


def _row(line: bytes, index: int, where: str) -> Row | BadRow:
    try:
        return _checked(msgspec.json.decode(line), index, where)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        return BadRow(f"{where}: is no valid JSON: {wrong}")
    except RecursionError:
        return BadRow(f"{where}: is nested too deeply")


def _checked(row: Any, index: int, where: str) -> Row | BadRow:
    if not isinstance(row, dict) or not isinstance(row.get("item"), dict):
        return BadRow(f'{where}: is not of the form {{"item": {{...}}}}')
    if not isinstance(row.get("sample"), dict | None):
        return BadRow(f"{where}: `sample` must be an object")
    return Row(index, row["item"], row.get("sample"))


def validator(item_schema: Mapping[str, Any]) -> jsonschema_rs.Validator:
    """
    What looks at rows, in bounded time whatever the schema's patterns are. Raises BadSchema.

    References are looked up in the schema itself and nowhere else; formats are remarks.
    """
    try:
        return jsonschema_rs.validator_for(
            dict(item_schema),
            offline=True,
            validate_formats=False,
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=STEPS),
        )
    except ValueError as error:
        raise BadSchema(f"the item schema cannot be used: {str(error).splitlines()[0][:200]}") from error


def census(rows: Iterator[Row | BadRow], item_schema: Mapping[str, Any]) -> Census:
    """
    Look at every row once, against the schema of the eval. Raises BadSchema.

    Values are never repeated in a reason.
    """
    looking = validator(item_schema)
    total = bad = 0
    reasons: list[str] = []
    for row in rows:
        total += 1
        reason = str(row) if isinstance(row, BadRow) else _schema_reason(row, looking)
        if reason is not None:
            bad += 1
            if len(reasons) < SHOWN:
                reasons.append(reason)
    return Census(total, bad, reasons)


def _schema_reason(row: Row, looking: jsonschema_rs.Validator) -> str | None:
    if looking.is_valid(row.item):
        return None
    errors = list(islice(looking.iter_errors(row.item), SHOWN))
    if not errors:
        return f"row {row.index}: item cannot be held against the item schema"
    wrong = errors[0]
    where = ".".join(["item", *map(str, wrong.instance_path)])
    match wrong.kind:
        case jsonschema_rs.ValidationErrorKind.Required():
            same = [error for error in errors if error.instance_path == wrong.instance_path]
            missing = [error.kind.property for error in same if isinstance(error.kind, type(wrong.kind))]
            return f"row {row.index}: {where} lacks {', '.join(missing)}"
        case jsonschema_rs.ValidationErrorKind.Type(types=types):
            return f"row {row.index}: {where} must be of type {' or '.join(types)}"
        case jsonschema_rs.ValidationErrorKind.BacktrackLimitExceeded():
            return f"row {row.index}: {where} takes the rule 'pattern' of the item schema too long to match"
        case kind:
            return f"row {row.index}: {where} breaks the rule '{kind.name}' of the item schema"


def chunks(rows: Iterator[Row | BadRow], size: int, done: int) -> Iterator[tuple[int, list[Row]]]:
    """The rows as numbered chunks of `size` in file order, from the first chunk that is not done."""
    good = (row for row in rows if isinstance(row, Row))
    skipped = islice(good, done * size, None)
    number = done
    while chunk := list(islice(skipped, size)):
        yield number, chunk
        number += 1
