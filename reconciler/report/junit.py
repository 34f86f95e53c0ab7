"""
The report for a CI server: JUnit XML, one test case per gate and one per item and grader. Pure.

An inconclusive gate is a failure, for it promotes nothing. Baselines are no test, so they are left out.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from reconciler.gates import Verdict
from reconciler.report.values import BASELINE, Grade, Item, Report, Run

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # by XML 1.0


def junit(report: Report, texts: bool) -> Iterator[str]:
    """The document, piece by piece; `texts` puts items and answers into the failures."""
    suites = [(name, cases) for name, cases in _suites(report, texts) if cases]
    tests, failures, errors = (
        sum(column) for column in zip(*(_counts(cases) for _, cases in suites), strict=True)
    )
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield f'<testsuites name={_attr(report.address)} tests="{tests}" failures="{failures}" errors="{errors}">\n'
    at = datetime.fromtimestamp(report.made_at, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    for name, cases in suites:
        tests, failures, errors = _counts(cases)
        yield (f'  <testsuite name={_attr(name)} tests="{tests}" failures="{failures}" errors="{errors}" '
               f'skipped="0" timestamp="{at}">\n')  # fmt: skip
        yield from cases
        yield "  </testsuite>\n"
    yield "</testsuites>\n"


def _suites(report: Report, texts: bool) -> Iterator[tuple[str, list[str]]]:
    yield f"{report.address} gates", list(_gates(report))
    for name in report.evals:
        for run in report.of(name):
            if run.part != BASELINE:
                yield f"{run.eval} {run.subject}", [_case(run, item, grade, texts) for item in run.items
                                                    for grade in item.grades or (None,)]  # fmt: skip


def _gates(report: Report) -> Iterator[str]:
    for trial in report.trials:
        for index, (gate, judgement) in enumerate(zip(report.gates, trial.judgements, strict=True)):
            name = f"gates[{index}] {gate.name} {gate.wanted}"
            wrong = (
                ""
                if judgement.verdict is Verdict.PASS
                else _wrong("failure", judgement.verdict, judgement.sentence)
            )
            yield _element(f"gates.{trial.candidate}", name, wrong)


def _case(run: Run, item: Item, grade: Grade | None, texts: bool) -> str:
    classname, name = f"{run.eval}.{grade.grader if grade else 'sample'}", f"item {item.id}"
    detail = ""
    if texts:
        fields = [f"{name}: {value}" for name, value in item.fields.items()]
        detail = "\n".join(
            [*fields, f"answer: {item.answer}", *filter(None, [grade.note if grade else "", item.error])]
        )
    if grade is None or item.error:
        wrong = _wrong("error", "errored", "the item could not be sampled", detail)
    elif grade.errored:
        wrong = _wrong("error", "errored", f"{grade.grader} could not grade it", detail)
    elif not grade.passed:
        score = "no score" if grade.score is None else f"score {grade.score:.4g}"
        wrong = _wrong("failure", "fail", f"{grade.grader}: {score}", detail)
    else:
        wrong = ""
    return _element(classname, name, wrong, item.latency_ms)


def _element(classname: str, name: str, wrong: str, latency_ms: float | None = None) -> str:
    took = "" if latency_ms is None else f' time="{latency_ms / 1000:.3f}"'
    head = f"    <testcase classname={_attr(classname)} name={_attr(name)}{took}"
    return f"{head}>{wrong}</testcase>\n" if wrong else f"{head}/>\n"


def _wrong(element: str, type_: str, message: str, detail: str = "") -> str:
    return f"<{element} type={_attr(type_)} message={_attr(message)}>{escape(_clean(detail))}</{element}>"


def _counts(cases: list[str]) -> tuple[int, int, int]:
    failures, errors = (sum(f"><{element} " in case for case in cases) for element in ("failure", "error"))
    return len(cases), failures, errors


def _attr(text: str) -> str:
    return quoteattr(_clean(text), {"\n": "&#10;", "\t": "&#9;", "\r": "&#13;"})


def _clean(text: str) -> str:
    return FORBIDDEN.sub("\ufffd", text)
