"""
Per-item results for programs: CSV and JSON Lines, one line per item and run. Pure.

Both hold the items and the answers: that is what they are for. Training rows are never here.
"""

import csv
import io
import json
import math
from collections.abc import Iterator
from typing import Any

from reconciler.report import counts
from reconciler.report.values import Grade, Item, Report, Run

VERSION = 1  # of the JSON Lines
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what makes a spreadsheet compute a cell, or look into it


def jsonl(report: Report) -> Iterator[str]:
    """One JSON object per line, with everything as it was."""
    for run, item in _all(report):
        told = {
            "version": VERSION,
            "eval": run.eval,
            "run": run.id,
            "subject": run.subject,
            "part": run.part,
            "model": run.model,
            "item_id": item.id,
            "status": item.status,
            "item": item.fields,
            "answer": item.answer,
            "grades": [_grade(grade) for grade in item.grades],
            "error": item.error or None,
            "latency_ms": item.latency_ms,
            "prompt_tokens": item.prompt_tokens,
            "completion_tokens": item.completion_tokens,
        }
        yield json.dumps(told, ensure_ascii=False, separators=(",", ":")) + "\n"


def csv_lines(report: Report) -> Iterator[str]:
    """A head and one line per item and run; what a spreadsheet would compute is quoted with an apostrophe."""
    graders = list(dict.fromkeys(grader for run in report.runs for grader in run.graders))
    fields = list(dict.fromkeys(name for _, item in _all(report) for name in item.fields))
    yield _line(
        [
            "eval",
            "run",
            "subject",
            "part",
            "model",
            "item_id",
            "status",
            *(f"item.{name}" for name in fields),
            "answer",
        ]
        + [f"{grader}.{what}" for grader in graders for what in ("passed", "score", "note")]
        + ["error", "latency_ms", "prompt_tokens", "completion_tokens"]
    )
    for run, item in _all(report):
        grades = {grade.grader: grade for grade in item.grades}
        cells: list[Any] = [run.eval, run.id, run.subject, run.part, run.model, item.id, item.status]
        cells += [counts.shown(item.fields[name]) if name in item.fields else "" for name in fields]
        cells.append(item.answer)
        for grader in graders:
            grade = grades.get(grader)
            cells += ["", "", ""] if grade is None else [str(grade.passed).lower(), _score(grade), grade.note]
        yield _line([*cells, item.error, item.latency_ms, item.prompt_tokens, item.completion_tokens])


def _all(report: Report) -> Iterator[tuple[Run, Item]]:
    return ((run, item) for name in report.evals for run in report.of(name) for item in run.items)


def _grade(grade: Grade) -> dict[str, Any]:
    return {
        "grader": grade.grader,
        "passed": grade.passed,
        "score": _score(grade),
        "errored": grade.errored,
        "note": grade.note or None,
    }


def _score(grade: Grade) -> float | None:
    return grade.score if grade.score is not None and math.isfinite(grade.score) else None


def _line(cells: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([_cell(cell) for cell in cells])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value.replace("\0", "\ufffd")
    return "" if value is None else value
