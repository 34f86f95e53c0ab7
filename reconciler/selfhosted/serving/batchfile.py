"""
A batch on disk: the requests that came, and the two files of answers that grow while it is worked on.

An answer is one line, appended as soon as it is there; a line that a killed server left half-written is
cut off. What has a line is done and is never asked again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

MOST_ROWS = 50_000
SHOWN = 100  # problems named; the rest is a count


class Row(NamedTuple):
    """One request of the input file."""

    custom_id: str
    body: Mapping[str, Any]


class Census(NamedTuple):
    """What the input file holds: how many requests, for which model, and what is wrong with it."""

    total: int
    model: str
    errors: list[dict[str, Any]]


def census(path: Path, endpoint: str) -> Census:
    """Look at every request before the first is made."""
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    model, total = "", 0

    def wrong(code: str, message: str, param: str | None, line: int | None) -> None:
        if len(errors) < SHOWN:
            errors.append({"code": code, "message": message, "param": param, "line": line})

    for number, line in _lines(path):
        total += 1
        row = _decoded(line)
        if row is None:
            wrong("invalid_json_line", "the line is no JSON object", None, number)
            continue
        for code, message, param in _problems(row, endpoint, seen):
            wrong(code, message, param, number)
        body = row.get("body")
        named = body.get("model") if isinstance(body, dict) else None
        if isinstance(named, str) and named:
            model = model or named
            if named != model:
                wrong(
                    "mismatched_model",
                    "all requests of a batch must name the same model",
                    "body.model",
                    number,
                )
    if not total:
        wrong("empty_file", "the input file has no requests", None, None)
    if total > MOST_ROWS:
        wrong(
            "too_many_requests", f"the file has {total} requests; at most {MOST_ROWS} are allowed", None, None
        )
    return Census(total, model, errors)


def _problems(row: Mapping[str, Any], endpoint: str, seen: set[str]) -> Iterator[tuple[str, str, str]]:
    custom_id, body = row.get("custom_id"), row.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        yield "missing_required_parameter", "custom_id is required and must be a string", "custom_id"
    elif custom_id in seen:
        yield "duplicate_custom_id", f"the custom_id {custom_id[:100]!r} is used twice", "custom_id"
    else:
        seen.add(custom_id)
    if row.get("method") != "POST":
        yield "invalid_method", "method must be POST", "method"
    if row.get("url") != endpoint:
        yield "invalid_url", f"url must be {endpoint}, the endpoint of the batch", "url"
    if not isinstance(body, dict):
        yield "missing_required_parameter", "body is required and must be an object", "body"
    elif not isinstance(body.get("model"), str) or not body["model"]:
        yield "missing_required_parameter", "model is required and must be a string", "body.model"
    elif body.get("stream"):
        yield "invalid_request", "a batch does not stream; leave stream out", "body.stream"
    elif body.get("background"):
        yield "invalid_request", "a batch waits for its answers; leave background out", "body.background"


def rows(path: Path) -> Iterator[Row]:
    """The requests of a file that `census` found nothing wrong with."""
    for _, line in _lines(path):
        row = _decoded(line)
        assert row is not None
        yield Row(row["custom_id"], row["body"])


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def _decoded(line: bytes) -> dict[str, Any] | None:
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


@dataclass
class Answers:
    """The answers so far; `open` reads those that an earlier server left."""

    folder: Path
    done: set[str] = field(default_factory=set)
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @classmethod
    def open(cls, folder: Path) -> Answers:
        folder.mkdir(parents=True, exist_ok=True)
        answers = cls(folder)
        for path in (answers.output, answers.errors):
            for line in _whole_lines(path):
                answers._count(line, succeeded=path == answers.output)
        return answers

    @property
    def output(self) -> Path:
        return self.folder / "output.jsonl"

    @property
    def errors(self) -> Path:
        return self.folder / "errors.jsonl"

    def add(self, line: Mapping[str, Any], *, succeeded: bool) -> None:
        """Append an answer; it outlives this process from here on."""
        with (self.output if succeeded else self.errors).open("ab", buffering=0) as file:
            file.write(msgspec.json.encode(line) + b"\n")
        self._count(line, succeeded=succeeded)

    def counts(self) -> dict[str, int]:
        return {"completed": self.completed, "failed": self.failed}

    def usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + self.output_tokens,
        }

    def _count(self, line: Mapping[str, Any], *, succeeded: bool) -> None:
        self.done.add(line["custom_id"])
        self.completed += succeeded
        self.failed += not succeeded
        if succeeded:
            used = line["response"]["body"].get("usage") or {}
            self.input_tokens += used.get("prompt_tokens", used.get("input_tokens", 0))
            self.output_tokens += used.get("completion_tokens", used.get("output_tokens", 0))


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of answers, with a torn end cut off."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = 0
        for line in file:
            value = _decoded(line) if line.endswith(b"\n") else None
            if value is None:
                break
            end += len(line)
            yield value
        file.truncate(end)
        os.fsync(file.fileno())
