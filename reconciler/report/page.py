"""
The report as one offline page: verdict first, then what it rests on. Pure.

The page asks the network for nothing and forbids itself to: style and script are inline and named by
their hashes, so that nothing which slips into the page could run. Everything but the tables of items
is there without the script.
"""

import base64
import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from reconciler.gates import Trial, Verdict
from reconciler.report import browse, figure, sections
from reconciler.report.markup import Markup, data_block, join, tag
from reconciler.report.values import Report

HERE = Path(__file__).parent
SIGNS = {Verdict.PASS: ("✓", "pass"), Verdict.FAIL: ("✗", "fail"), Verdict.INCONCLUSIVE: ("?", "undecided")}


def html(report: Report) -> str:
    """The whole page."""
    style, script = _inline("page.css"), _inline("page.js")
    parts = [
        ("verdict", "Verdict" if report.gates else "Result", _verdicts(report)),
        ("graders", "Graders", sections.graders(report)),
        ("slices", "Slices", sections.slices(report)),
        ("flips", "Flips", browse.flips(report)),
        ("items", "Items", browse.items(report)),
        ("speed", "Latency and tokens", sections.speed(report)),
        ("card", "Model card", sections.cards(report)),
        ("lineage", "Lineage", sections.lineage(report)),
    ]
    shown = [(id, title, body) for id, title, body in parts if body]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{report.headline} · {report.address}"),
        tag("link", rel="icon", href="data:,"),
        tag("style", style),
    )
    body = tag(
        "body",
        tag("a", "Skip to the result", href="#verdict", class_="skip"),
        _masthead(report, [(id, title) for id, title, _ in shown]),
        tag("main", *(_section(id, title, body) for id, title, body in shown)),
        tag(
            "footer",
            f"Made by reconciler, {_time(report.made_at)}. This file needs no network and asks for none.",
        ),
        data_block("data", browse.data(report)),
        tag("script", script),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _masthead(report: Report, places: Iterable[tuple[str, str]]) -> Markup:
    mark = _badge(report.verdict) if report.verdict else Markup("")
    links = (tag("li", tag("a", title, href=f"#{id}")) for id, title in places)
    return tag(
        "header",
        tag("p", f"{report.project} on {report.platform} · {report.address}", class_="crumb"),
        tag("h1", mark, tag("span", report.headline)),
        tag("p", report.detail, class_="lead"),
        tag("nav", tag("ul", *links), aria_label="Parts of this report"),
    )


def _section(id: str, title: str, body: Markup) -> Markup:
    return tag("section", tag("h2", title, id=f"{id}-title"), body, id=id, aria_labelledby=f"{id}-title")


def _verdicts(report: Report) -> Markup:
    if not report.gates:
        return sections.rates(report)
    asked = report.trials or None
    if asked is None:
        return tag("ul", *(tag("li", f"{gate.eval}: {gate.wanted}") for gate in report.gates), class_="plain")
    return join(_trial(report, trial) for trial in asked)


def _trial(report: Report, trial: Trial) -> Markup:
    rows = []
    for gate, judgement in zip(report.gates, trial.judgements, strict=True):
        title = tag(
            "div",
            tag("h4", f"{gate.eval}", tag("small", f" {gate.grader}") if gate.grader else ""),
            tag("p", gate.wanted, class_="asked"),
            _badge(judgement.verdict),
            class_="gate-title",
        )
        drawn = tag(
            "div",
            figure.interval(judgement),
            tag("p", judgement.sentence, class_="said"),
            class_="gate-drawn",
        )
        rows.append(tag("li", title, drawn, class_="gate-row"))
    head = tag("h3", _badge(trial.verdict), tag("span", trial.candidate))
    return tag("div", head, tag("ol", *rows, class_="gates"), class_="trial")


def _badge(verdict: Verdict) -> Markup:
    sign, word = SIGNS[verdict]
    return tag("span", tag("span", sign, aria_hidden="true"), f" {word}", class_=f"badge {verdict}")


def _policy(*inline: str) -> str:
    """Nothing may be loaded from anywhere, and only these very texts may style and run."""
    style, script = (f"'sha256-{_digest(text)}'" for text in inline)
    rules = ["default-src 'none'", f"style-src {style}", f"script-src {script}", "img-src data:"]
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _inline(name: str) -> Markup:
    """The package's own style or script; it holds no end tag."""
    text = (HERE / name).read_text()
    assert "</" not in text
    return Markup(text)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
