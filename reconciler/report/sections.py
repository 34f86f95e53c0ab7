"""The parts of the page that need no script: rates, graders, slices, speed, cards, lineage. Pure."""

from collections.abc import Iterable, Sequence

from reconciler.report import counts, figure
from reconciler.report.counts import Rate
from reconciler.report.limits import limits
from reconciler.report.markup import Markup, join, tag
from reconciler.report.values import BASELINE, Card, Report, Run

WILSON = "Bars and brackets are 95 % Wilson intervals, for looking around; verdicts rest on the gates' own."


def rates(report: Report) -> Markup:
    """What share of the items each run passes."""
    rows = [
        [tag("th", _subject(run), scope="row"), *_rate(counts.overall(run))]
        for name in report.evals
        for run in report.of(name)
    ]
    return _table(("subject", *RATE_HEADS), rows, "rates")


def graders(report: Report) -> Markup:
    """Every grader of every eval, subject by subject."""
    parts = []
    for name in report.evals:
        rows = []
        for run in report.of(name):
            found = [("all graders", counts.overall(run)), *counts.by_grader(run)]
            for index, (grader, rate) in enumerate(found):
                first = [tag("th", _subject(run), scope="rowgroup", rowspan=len(found))] if index == 0 else []
                mean = "" if rate.mean is None else f"{rate.mean:.3f}"
                rows.append(
                    [*first, tag("td", grader, class_="who"), *_rate(rate),
                     tag("td", mean, class_="number mean", data_label="mean score")]
                )  # fmt: skip
        heads = ("subject", "grader", *RATE_HEADS, "mean score")
        parts += [tag("h3", name), _table(heads, rows, "rates grouped")]
    return join([*parts, tag("p", WILSON, class_="note")])


def slices(report: Report) -> Markup | None:
    """Pass rates by the values of item fields that have few of them."""
    parts: list[Markup] = []
    for name in report.evals:
        runs = report.of(name)
        fields = counts.sliceable(runs)
        if fields:
            parts += [tag("h3", name), *(_sliced(runs, field) for field in fields)]
    return join(parts) if parts else None


def _sliced(runs: Sequence[Run], field: str) -> Markup:
    by_run = [{each.value: each.rate for each in counts.slices(run, field)} for run in runs]
    values = list(dict.fromkeys(value for found in by_run for value in found))
    rows = []
    for value in values:
        for index, (run, found) in enumerate(zip(runs, by_run, strict=True)):
            first = [tag("th", value or "(empty)", scope="rowgroup", rowspan=len(runs))] if index == 0 else []
            rate = found.get(value, counts.rate(0, 0))
            who = [tag("td", _subject(run), class_="who")] if len(runs) > 1 else []
            rows.append([*first, *who, *_rate(rate)])
    heads = ("value", *(("subject",) if len(runs) > 1 else ()), *RATE_HEADS)
    return _table(heads, rows, "rates grouped", caption=field)


def speed(report: Report) -> Markup:
    """How long and how many tokens, run by run; judges' tokens beside."""
    rows = []
    for name in report.evals:
        for run in report.of(name):
            times = [item.latency_ms for item in run.items if item.latency_ms is not None]
            sampled = [item.completion_tokens for item in run.items]
            rows.append(
                [
                    tag("th", tag("span", name, class_="over"), " ", _subject(run), scope="row"),
                    _number(_ms(times, 0.5), "p50"),
                    _number(_ms(times, 0.95), "p95"),
                    _number(f"{sum(i.prompt_tokens for i in run.items):,}", "tokens in"),
                    _number(f"{sum(sampled):,}", "tokens out"),
                    _number(f"{sum(sampled) / len(sampled):.1f}" if sampled else "–", "out per item"),
                ]
            )
            rows += [
                [tag("th", tag("span", name, class_="over"), f" judge {judge.model}", scope="row"),
                 _number("–", "p50"), _number("–", "p95"), _number(f"{judge.prompt_tokens:,}", "tokens in"),
                 _number(f"{judge.completion_tokens:,}", "tokens out"),
                 _number(f"{judge.completion_tokens / judge.requests:.1f}" if judge.requests else "–", "out per item")]
                for judge in run.usage if judge.model != run.model
            ]  # fmt: skip
    heads = ("run", "p50", "p95", "tokens in", "tokens out", "out per item")
    note = "Latency is that of the batch an item was sampled in. Nothing here is priced."
    return join([_table(heads, rows, "speed"), tag("p", note, class_="note")])


def cards(report: Report) -> Markup:
    """How each subject was made and measured, and what nobody measured."""
    said = tag("ul", *(tag("li", sentence) for sentence in limits(report)), class_="limits")
    cards = [_card(report, card) for card in report.cards]
    return join([*cards, tag("h3", "Limits of this evidence"), said])


def _card(report: Report, card: Card) -> Markup:
    facts = [part for name, value in card.facts for part in (tag("dt", name), tag("dd", value))]
    measured = [
        f"{run.eval}: {counts.percent(rate.value)} of {rate.n} items pass "
        f"[{counts.percent(rate.low)}, {counts.percent(rate.high)}]"
        for run in report.runs
        if run.subject == card.subject
        for rate in (counts.overall(run),)
    ]
    facts += [tag("dt", "measured"), tag("dd", join(tag("div", line) for line in measured))]
    parts = [tag("h3", card.subject, tag("small", f" {card.model}")), tag("dl", *facts, class_="facts")]
    if card.checkpoints:
        names = list(dict.fromkeys(name for each in card.checkpoints for name in each))
        rows = [
            [_number(f"{each[name]:g}" if name == "step" else f"{each[name]:.4f}" if name in each else "–", name)
             for name in names]
            for each in card.checkpoints
        ]  # fmt: skip
        parts += [tag("h4", "Checkpoints"), _table(names, rows, "speed")]
    return tag("div", *parts, class_="card")


def lineage(report: Report) -> Markup:
    """Everything the results came from, by what identifies it."""
    rows = [
        [
            tag("th", tag("span", origin.what, class_="over"), " ", origin.address, scope="row"),
            tag("td", tag("code", origin.id) if origin.id else "–", data_label="id"),
            tag("td", origin.detail or "–", data_label="what it is"),
            tag("td", tag("code", origin.digest[:16], title=origin.digest), data_label="digest"),
        ]
        for origin in report.origins
    ]
    runs = [
        f"{run.address}: " + ", ".join(f"{name} {value}" for name, value in run.sampling)
        for run in report.runs
        if run.sampling
    ]
    note = "A digest is of what was asked for, down to the bytes of every file; hover for all of it."
    sampled = [tag("p", "Sampling: " + "; ".join(runs) + ".", class_="note")] if runs else []
    return join(
        [
            _table(("resource", "id", "what it is", "digest"), rows, "wide"),
            tag("p", note, class_="note"),
            *sampled,
        ]
    )


RATE_HEADS = ("passed", "interval", "rate")


def _rate(rate: Rate) -> list[Markup]:
    """Three cells: how many of how many, drawn, and in numbers."""
    if not rate.n:
        return [tag("td", "no items", colspan=3)]
    errored = tag("span", f" {rate.errored} errored", class_="errored") if rate.errored else ""
    numbers = f" [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
    return [
        tag("td", f"{rate.passed} of {rate.n}", errored, class_="number passed"),
        tag("td", figure.bar(rate.low, rate.value, rate.high), class_="drawn"),
        tag("td", tag("b", counts.percent(rate.value)), tag("span", numbers, class_="range"),
            class_="number rate"),
    ]  # fmt: skip


def _subject(run: Run) -> Markup:
    part = tag("span", f" {run.part}", class_="part") if run.part in (BASELINE,) else ""
    return tag("span", run.subject, part)


def _ms(times: Sequence[float], share: float) -> str:
    return f"{counts.percentile(times, share):,.0f} ms" if times else "not measured"


def _number(text: str, label: str) -> Markup:
    return tag("td", text, class_="number", data_label=label)


def _table(heads: Iterable[str], rows: Iterable[Iterable[Markup]], class_: str, caption: str = "") -> Markup:
    named = [tag("caption", caption)] if caption else []
    head = tag(
        "thead",
        tag("tr", *(tag("th", name, scope="col", class_=f"head-{name.split()[0]}") for name in heads)),
    )
    body = tag("tbody", *(tag("tr", *row) for row in rows))
    return tag("div", tag("table", *named, head, body, class_=class_), class_="scroll")
