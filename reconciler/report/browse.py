"""
The items of a report for the page's script, and the places where it puts them. Pure.

Fields that several runs share are there once. A text longer than LONGEST is cut in the page; CSV and
JSON Lines have all of it.
"""

from typing import Any

from reconciler.report import counts
from reconciler.report.markup import Markup, join, tag, visible
from reconciler.report.values import PASS, Item, Report, Run

LONGEST = 20_000  # characters of one text in the page
NO_SCRIPT = "The items are shown by a script, which is switched off here; the CSV and JSON Lines reports hold them too."


def data(report: Report) -> dict[str, Any]:
    """Everything the script shows."""
    evals: list[dict[str, Any]] = []
    places: dict[str, tuple[int, int]] = {}
    for index, name in enumerate(report.evals):
        runs = report.of(name)
        places |= {run.address: (index, column) for column, run in enumerate(runs)}
        evals.append(
            {
                "name": name,
                "runs": [{"subject": run.subject, "part": run.part, "model": run.model} for run in runs],
                "graders": list(dict.fromkeys(grader for run in runs for grader in run.graders)),
                "items": _rows(runs),
            }
        )
    pairs = [
        {
            "eval": places[before.address][0],
            "before": places[before.address][1],
            "after": places[after.address][1],
        }
        for before, after in report.pairs
    ]
    return {"evals": evals, "pairs": pairs}


def _rows(runs: tuple[Run, ...]) -> list[dict[str, Any]]:
    answers = [{item.id: item for item in run.items} for run in runs]
    first = {id: item for found in reversed(answers) for id, item in found.items()}
    ids = sorted(first, key=lambda id: (len(id), id))
    return [
        {
            "id": id,
            "fields": {cut(str(k)): cut(counts.shown(v)) for k, v in first[id].fields.items()},
            "answers": [_answer(found.get(id)) for found in answers],
        }
        for id in ids
    ]


def _answer(item: Item | None) -> dict[str, Any] | None:
    if item is None:
        return None
    told: dict[str, Any] = {
        "status": item.status,
        "text": cut(item.answer),
        "grades": [
            [grade.grader, "error" if grade.errored else PASS if grade.passed else "fail",
             grade.score if grade.score == grade.score else None, cut(grade.note)]
            for grade in item.grades
        ],
    }  # fmt: skip
    if item.error:
        told["error"] = cut(item.error)
    if item.latency_ms is not None:
        told["ms"] = round(item.latency_ms)
    if item.completion_tokens:
        told["tokens"] = item.completion_tokens
    return told


def cut(text: str) -> str:
    """As much of a text as a page should hold."""
    text = visible(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… (cut here; {len(text):,} characters)"


def flips(report: Report) -> Markup | None:
    """How many items changed sides, and a place for them."""
    lines = []
    for before, after in report.pairs:
        found = counts.flips(before, after)
        gained = sum(flip.gained for flip in found)
        lines.append(
            tag("li", tag("b", f"{after.eval}: "), f"{after.subject} against {before.subject}: ",
                tag("span", f"▲ {gained} gained", class_="gained"), ", ",
                tag("span", f"▼ {len(found) - gained} lost", class_="lost"),
                f", of {len(after.items)}")
        )  # fmt: skip
    if not lines:
        return None
    note = tag("p", "An item passes when every grader passes it.", class_="note")
    return join([tag("ul", *lines, class_="plain"), note, _place("flips")])


def items(report: Report) -> Markup:
    """A place for all items."""
    total = sum(len(rows) for rows in (_ids(report.of(name)) for name in report.evals))
    return join(
        [
            tag("p", f"All {total:,} items with every answer, a page at a time.", class_="note"),
            _place("items"),
        ]
    )


def _ids(runs: tuple[Run, ...]) -> set[str]:
    return {item.id for run in runs for item in run.items}


def _place(what: str) -> Markup:
    return tag("div", tag("noscript", NO_SCRIPT), data_browse=what, class_="browse")
