"""
The report for a pull request: verdicts and numbers, no text of an item unless it was asked for. Pure.

Names and numbers only, so nothing an item says can mention, link or draw. With items each text stands
in a fence that is longer than any it holds. What does not fit under LONGEST is left out, and said to be.
"""

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from reconciler.gates import Verdict
from reconciler.report import counts
from reconciler.report.counts import Flip, Rate
from reconciler.report.limits import limits
from reconciler.report.markup import visible
from reconciler.report.values import BASELINE, Item, Report, Run

LONGEST = 65_000  # UTF-16 units; GitHub takes 65,536
LONGEST_TEXT = 1_500  # characters of one item's text
SIGNS = {Verdict.PASS: "✅ pass", Verdict.FAIL: "❌ fail", Verdict.INCONCLUSIVE: "❔ undecided"}
LINKING = re.compile(
    "(?<=[@#])|(?<=:)(?=//)|(?<=www)|(?<=GH)(?=\\\\?-)", re.IGNORECASE
)  # an invisible space here, and nothing is mentioned or linked

CUT = "\n*Cut here: {left} more blocks do not fit into a comment; the HTML report has them all.*\n"


def markdown(report: Report, texts: bool) -> str:
    """As many whole blocks as fit; `texts` shows the items that changed sides."""
    blocks = list(_blocks(report, texts))
    room, kept = LONGEST - _units(CUT) - 10, 0
    for block in blocks:
        room -= _units(block) + 1
        if room < 0:
            break
        kept += 1
    left = len(blocks) - kept
    return "\n".join(blocks[:kept]) + (CUT.format(left=left) if left else "")


def plain(text: str) -> str:
    """A text that stays itself in Markdown: no markup, no HTML, no mention, no link, no line break."""
    text = re.sub(r"\s+", " ", visible(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", text)
    return LINKING.sub("\u200b", text)


def fenced(text: str) -> str:
    """A text as a code block that it cannot end."""
    text = visible(text)
    text = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}text\n{text}\n{fence}"


def _blocks(report: Report, texts: bool) -> Iterator[str]:
    sign = f"{SIGNS[report.verdict]} · " if report.verdict else ""
    yield f"### {sign}{plain(report.headline)}\n\n{plain(report.detail)}\n"
    yield f"{plain(report.project)} on {plain(report.platform)} · {_code(report.address)}\n"
    for trial in report.trials:
        rows = [
            (SIGNS[j.verdict], plain(f"{gate.name}: {gate.wanted}"), plain(j.sentence))
            for gate, j in zip(report.gates, trial.judgements, strict=True)
        ]
        yield f"**{_code(trial.candidate)}** {SIGNS[trial.verdict]}\n\n{_table(('', 'gate', 'measured'), rows)}"
    for name in report.evals:
        rates = [row for run in report.of(name) for row in _rates(run)]
        yield f"**{plain(name)}**\n\n{_table(('subject', 'grader', 'passed', 'rate', '95 % Wilson'), rates)}"
    yield from _flips(report)
    yield _table(
        ("run", "p50", "p95", "tokens in", "tokens out"),
        [_speed(run) for n in report.evals for run in report.of(n)],
    )
    origins = [
        (o.what, _code(o.address), _code(o.id) if o.id else "–", _code(o.digest[:16])) for o in report.origins
    ]
    yield _folded("Lineage", _table(("", "resource", "id", "digest"), origins))
    yield _folded("Limits of this evidence", "\n".join(f"- {plain(each)}" for each in limits(report)) + "\n")
    if texts:
        for before, after in report.pairs:
            for flip in counts.flips(before, after):
                yield _flip(before, after, flip)
        for run in report.runs if not report.gates else ():
            yield from (_item(run, item) for item in run.items if item.status != "pass")


def _rates(run: Run) -> Iterator[tuple[str, ...]]:
    who = _code(run.subject) + (" (baseline)" if run.part == BASELINE else "")
    for grader, rate in [("all graders", counts.overall(run)), *counts.by_grader(run)]:
        yield (
            who,
            plain(grader),
            _passed(rate),
            counts.percent(rate.value),
            f"{100 * rate.low:.1f} – {100 * rate.high:.1f}",
        )


def _passed(rate: Rate) -> str:
    return f"{rate.passed} of {rate.n}" + (f", {rate.errored} errored" if rate.errored else "")


def _flips(report: Report) -> Iterator[str]:
    lines = []
    for before, after in report.pairs:
        found = counts.flips(before, after)
        gained = sum(flip.gained for flip in found)
        lines.append(
            f"- {plain(after.eval)}: {_code(after.subject)} against {_code(before.subject)}: "
            f"▲ {gained} gained, ▼ {len(found) - gained} lost, of {len(after.items)}"
        )
    if lines:
        yield "\n".join([*lines, ""])


def _speed(run: Run) -> tuple[str, ...]:
    times = [item.latency_ms for item in run.items if item.latency_ms is not None]
    shares = [
        f"{counts.percentile(times, share):,.0f} ms" if times else "not measured" for share in (0.5, 0.95)
    ]
    tokens = (sum(i.prompt_tokens for i in run.items), sum(i.completion_tokens for i in run.items))
    return (f"{plain(run.eval)} {_code(run.subject)}", *shares, *(f"{count:,}" for count in tokens))


def _flip(before: Run, after: Run, flip: Flip) -> str:
    title = f"{'▲ gained' if flip.gained else '▼ lost'}: {after.eval} item {flip.after.id}"
    parts = [_fields(flip.after), f"{_code(before.subject)} answered", fenced(flip.before.answer)]
    return _folded(
        title, "\n\n".join([*parts, f"{_code(after.subject)} answered", fenced(flip.after.answer)]) + "\n"
    )


def _item(run: Run, item: Item) -> str:
    body = "\n\n".join([_fields(item), f"{_code(run.subject)} answered", fenced(item.answer)])
    return _folded(f"{item.status}: {run.eval} item {item.id}", body + "\n")


def _fields(item: Item) -> str:
    return fenced("\n".join(f"{name}: {counts.shown(value)}" for name, value in item.fields.items()))


def _folded(title: str, body: str) -> str:
    """A block behind its title; the title is HTML, where Markdown's escapes mean nothing."""
    said = LINKING.sub("\u200b", html.escape(re.sub(r"\s+", " ", visible(title))))
    return f"<details><summary>{said}</summary>\n\n{body}\n</details>\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """A name as code; what would end the code or the cell is replaced."""
    return "`" + re.sub("[`|]", "?", re.sub(r"\s+", " ", visible(text))) + "`"


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
