"""Golden reports: what a reader gets, byte for byte."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from report_base import FORMULA, LONG, QUESTIONS, example

from reconciler.report import junit, markdown, page, rows
from reconciler.report.values import Report

GOLDEN = Path(__file__).parents[1] / "golden" / "report"
FORMATS: dict[str, Callable[[Report], str]] = {
    "report.md": lambda report: markdown.markdown(report, False),
    "items.md": lambda report: markdown.markdown(report, True),
    "junit.xml": lambda report: "".join(junit.junit(report, False)),
    "items.csv": lambda report: "".join(rows.csv_lines(report)),
    "items.jsonl": lambda report: "".join(rows.jsonl(report)),
    "page.html": lambda report: _without_code(page.html(report)),
}


def _without_code(text: str) -> str:
    """The page without its style, script and their hashes, an element a line."""
    text = re.sub(r"(<style>|<script>).*?(</style>|</script>)", r"\1\2", text, flags=re.DOTALL)
    return re.sub(r"sha256-[\w+/=]*", "sha256", text).replace("><", ">\n<")


@pytest.mark.parametrize("name", FORMATS)
def test_a_report_reads_as_it_did(name: str, report: Report, update_golden: bool) -> None:
    told, golden = FORMATS[name](report), GOLDEN / name
    if update_golden:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_bytes(told.encode())

    assert golden.read_bytes().decode() == told


def test_junit_counts_what_it_holds(report: Report) -> None:
    suites = ET.fromstring("".join(junit.junit(report, False)))

    held = [(len(s), len(s.findall("*/failure")), len(s.findall("*/error"))) for s in suites]
    assert held == [tuple(int(s.attrib[name]) for name in ("tests", "failures", "errors")) for s in suites]
    assert [str(sum(column)) for column in zip(*held, strict=True)] == [
        suites.attrib[name] for name in ("tests", "failures", "errors")
    ]


def test_junit_has_a_case_per_gate_and_per_item_and_grader_of_the_candidate_alone(report: Report) -> None:
    suites = ET.fromstring("".join(junit.junit(report, False)))

    assert [(s.attrib["name"], len(s)) for s in suites] == [
        ("PromotionRule/production gates", 2),
        ("right FineTuneJob/tuned", 11),  # five items by two graders, and one that was never sampled
    ]
    assert "item 0" == suites[1][0].attrib["name"]
    assert "exact: score 0" == suites[1][0][0].attrib["message"]


def test_junit_tells_items_only_when_asked(report: Report) -> None:
    quiet, telling = ("".join(junit.junit(report, texts)) for texts in (False, True))

    assert "alert(1)" not in quiet
    assert f"question: {QUESTIONS[0]}" in ET.fromstring(telling)[1][0][0].text


def test_csv_gives_back_every_text_and_computes_none(report: Report) -> None:
    lines = list(csv.DictReader(io.StringIO("".join(rows.csv_lines(report)), newline="")))

    assert [QUESTIONS[0], f"'{FORMULA}"] == [lines[0]["item.question"], lines[4]["answer"]]
    assert LONG == lines[5]["item.question"]
    assert 12 == len(lines)
    assert [] == [cell for line in lines for cell in line.values() if cell and cell[0] in "=+-@\t\r\n"]


def test_json_lines_give_back_every_item_as_it_was(report: Report) -> None:
    told = [json.loads(line) for line in "".join(rows.jsonl(report)).splitlines()]

    items = [item for name in report.evals for run in report.of(name) for item in run.items]
    assert [(i.id, i.status, i.fields, i.answer) for i in items] == [
        (t["item_id"], t["status"], t["item"], t["answer"]) for t in told
    ]
    assert {"exact": 0.0, "close": 0.25} == {g["grader"]: g["score"] for g in told[1]["grades"]}


def test_a_long_markdown_report_is_cut_between_blocks_and_says_so() -> None:
    told = markdown.markdown(example(400), True)

    assert len(told.encode("utf-16-le")) // 2 < 65_536
    assert re.search(r"\*Cut here: \d+ more blocks do not fit into a comment;", told)
    assert told.count("<details>") == told.count("</details>")


def test_markdown_of_four_byte_characters_is_counted_as_github_counts(report: Report) -> None:
    from dataclasses import replace

    wide = replace(report, detail="😀" * 32_000)

    assert len(markdown.markdown(wide, False).encode("utf-16-le")) // 2 < 65_536
