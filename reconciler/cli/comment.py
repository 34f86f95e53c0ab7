"""
A plan as one comment of a pull request: headline, table, then every resource folded. Pure.

It opens with a marker by which it is found again and edited in place. Nothing in it is Markdown, so that
nothing in a manifest can be (`markup`); it stays under what GitHub takes, and says what was left out.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler import cost
from reconciler.cli.markup import code, text
from reconciler.compare import Compared, Removed
from reconciler.cost import Estimate
from reconciler.kind import Action
from reconciler.plan import Change, Plan, Step
from reconciler.resource import Address, Wanted
from reconciler.rowshapes import Example

LIMIT = 65_000  # bytes; GitHub takes 65,536 characters
ROWS_LIMIT = 30_000  # bytes of the table
FIELDS = 20  # fields of one resource that are told
Locate = Callable[[Wanted, Change], str]  # `path:line` of a field


@dataclass(frozen=True)
class Subject:
    """What a comment is about. `base` names what it is compared with, `note` says what is odd about that."""

    project: str
    platform: str
    base: str
    compared: Compared
    note: str = ""
    estimates: Mapping[Address, Estimate] = field(default_factory=dict)
    examples: Mapping[Address, Sequence[Example]] = field(default_factory=dict)
    detectable: Sequence[
        tuple[str, float | None]
    ] = ()  # by each deciding gate: its metric, the least it can tell


def marker(project: str, platform: str) -> str:
    """The first line of a comment, the same for every plan of a project on a platform."""
    name = hashlib.sha256(f"{project}\0{platform}".encode(errors="replace")).hexdigest()[:16]
    return f"<!-- reconciler:plan:{name} -->"


def comment(subject: Subject, locate: Locate) -> str:
    """The whole comment."""
    compared = subject.compared
    head = [
        marker(subject.project, subject.platform),
        f"<h3>{text(subject.project)} on {text(subject.platform)}</h3>",
        f"<p><b>{text(headline(subject))}</b><br>compared with {code(subject.base)}</p>",
    ]
    head += [f"<p>{text(subject.note, 1000)}</p>"] if subject.note else []
    if not compared.shown and not compared.removed:
        return "\n\n".join([*head, "<p>nothing to do, and nothing that differs</p>"]) + "\n"
    rows = [_row(step, subject) for step in compared.shown]
    told = _within(rows, ROWS_LIMIT)
    parts = [
        *head,
        *([_table(rows[:told])] if told else []),
        *_gone(compared.removed),
        *_deletions(compared.plan),
    ]
    details = [_details(step, subject, locate) for step in compared.shown[:told]]
    room = LIMIT - sum(len(part.encode()) + 2 for part in parts) - 200
    full = _within(details, room)
    parts += details[:full]
    left = len(compared.shown) - full
    parts += [f"<p>… {left} more resources, run <code>reconciler plan</code> for all</p>"] if left else []
    return "\n\n".join(parts) + "\n"


def headline(subject: Subject) -> str:
    """The plan in one line: how much of what, for how much money and time, and what the gates could tell."""
    plan = subject.compared.plan
    counts = plan.counts
    created = counts[Action.CREATE] - plan.replaced
    parts = [f"{created} to create", f"{plan.replaced} replaced"]
    parts += [f"{counts[Action.UPDATE]} to move"] if counts[Action.UPDATE] else []
    parts += [f"{counts[Action.DELETE]} deleted"]
    parts += [f"{counts[Action.WAIT]} in progress"] if counts[Action.WAIT] else []
    parts += [f"{counts[Action.BLOCK]} blocked"] if counts[Action.BLOCK] else []
    if counts[Action.CREATE] or counts[Action.UPDATE]:
        parts.append(_cost(subject))
    parts += [f"gates can detect {_detects(subject.detectable)}"] if subject.detectable else []
    return " · ".join(parts)


def _cost(subject: Subject) -> str:
    estimates = subject.estimates
    acting = [
        step.address for step in subject.compared.plan.steps if step.action in (Action.CREATE, Action.UPDATE)
    ]
    known = [estimates[address] for address in acting if address in estimates]
    if not any(each.usd or each.seconds for each in known):
        return "cost unknown"
    unknown = [Estimate(why="nobody knows")] * (len(acting) - len(known))
    return cost.said_total([*known, *unknown]) or "costs nothing"


def _detects(gates: Sequence[tuple[str, float | None]]) -> str:
    """What the weakest of each metric can tell."""
    said = []
    for metric in dict.fromkeys(metric for metric, _ in gates):
        least = [each for name, each in gates if name == metric]
        known = [each for each in least if each is not None]
        if len(known) < len(least):
            said.append(f"nothing on {metric}")
        else:
            said.append(
                f"{max(known):.3f} of {metric}"
                if metric == "mean_score"
                else f"{100 * max(known):.1f} points"
            )
    return ", ".join(said)


def _within(parts: Sequence[str], limit: int) -> int:
    """How many of them, from the first, fit in so many bytes."""
    used = 0
    for count, part in enumerate(parts):
        used += len(part.encode()) + 2
        if used > limit:
            return count
    return len(parts)


def _table(rows: Iterable[str]) -> str:
    heads = "<tr><th></th><th>resource</th><th>why</th><th>cost and time</th></tr>"
    return "\n".join(["<table>", heads, *rows, "</table>"])


def _row(step: Step, subject: Subject) -> str:
    price = _price(step, subject)
    cells = [str(step.action), code(step.address), text(_why(step, subject.compared)), text(price)]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _price(step: Step, subject: Subject) -> str:
    estimate = subject.estimates.get(step.address)
    return cost.said(estimate).removeprefix("about ") if estimate else ""


def _why(step: Step, compared: Compared) -> str:
    if step.action is Action.CREATE and step.replaces:
        causes = dict.fromkeys(change.ref for change in step.changes if change.ref)
        said = f"made anew, because {', '.join(causes) or 'it'} changed"
    elif step.address in compared.renamed:
        said = f"was {compared.renamed[step.address]}; the same under a new name"
    elif step.action is Action.KEEP and step.decision.duplicates:
        said = "made twice"
    elif step.action is Action.KEEP:
        observed = step.decision.observed
        stands = observed and observed.id != str(step.address)
        said = ("changed" if step.replaces else "new") + (
            f"; made already, as {observed.id}" if stands and observed else ""
        )
    else:
        since = "wanted before, and not made yet" if step.address in compared.known else "new"
        said = step.decision.why or since
    twice = ", ".join(each.id for each in step.decision.duplicates)
    first = ", ".join(map(str, step.after[:3])) + (" …" if len(step.after) > 3 else "")
    return "; ".join(filter(None, [said, first and f"after {first}", twice and f"cancels {twice}"]))


def _gone(removed: Sequence[Removed]) -> list[str]:
    if not removed:
        return []
    told = [
        f"<li>{code(each.address)} ({code(each.where)})"
        + (f": {code(each.now)} now" if each.now else "")
        + "</li>"
        for each in removed[:FIELDS]
    ]
    more = [f"<li>… {len(removed) - FIELDS} more</li>"] if len(removed) > FIELDS else []
    return ["\n".join(["<p>Wanted no more:</p>", "<ul>", *told, *more, "</ul>"])]


def _deletions(plan: Plan) -> list[str]:
    goes = [each for each in plan.deletions if not each.kept]
    told = [
        f"<li>{text(each.kind)} {code(each.observed.id)}: {text(each.why)}</li>" for each in goes[:FIELDS]
    ]
    more = [f"<li>… {len(goes) - FIELDS} more</li>"] if len(goes) > FIELDS else []
    return ["\n".join(["<p>Deleted:</p>", "<ul>", *told, *more, "</ul>"])] if goes else []


def _details(step: Step, subject: Subject, locate: Locate) -> str:
    why = _why(step, subject.compared)
    lines = [
        f"<li>written in {code(step.wanted.where)}{' by implication' if step.wanted.implied else ''}</li>"
    ]
    lines += _changes(step, subject, locate)
    if price := _price(step, subject):
        estimate = subject.estimates[step.address]
        lines.append(
            f"<li>{text(f'takes {price}' + (f' ({estimate.why})' if estimate.usd and estimate.why else ''))}</li>"
        )
    if waiting := subject.compared.unblocks.get(step.address):
        more = f" and {len(waiting) - 5} more" if len(waiting) > 5 else ""
        lines.append(f"<li>unblocks {', '.join(map(code, waiting[:5]))}{more}</li>")
    lines += [f"<li>{text(note)}</li>" for note in step.notes[:FIELDS]]
    for trial in step.decision.evidence or ():
        lines += [
            f"<li><b>{text(str(j.verdict).upper())}</b> {code(trial.candidate)}: {text(j.sentence)}</li>"
            for j in trial.judgements
        ]
    summary = f"<summary>{step.action} {code(step.address)} {text(why)}</summary>"
    return "\n".join([f"<details>{summary}", "<ul>", *lines, "</ul>", "</details>"])


def _changes(step: Step, subject: Subject, locate: Locate) -> Iterator[str]:
    for change in step.changes[:FIELDS]:
        if step.rows and change.at == "/facts/sha256":
            yield _rows(step, subject.examples.get(step.address, ()))
        else:
            values = f"{code(_value(change.before))} → {code(_value(change.after))}"
            yield f"<li>{code(change.field)}: {values} ({code(locate(step.wanted, change))})</li>"
    if len(step.changes) > FIELDS:
        yield f"<li>… {len(step.changes) - FIELDS} more fields</li>"


def _rows(step: Step, examples: Sequence[Example]) -> str:
    assert step.rows is not None
    rows = step.rows
    counts = [(rows.added, "added"), (rows.removed, "removed"), (rows.changed, "changed")]
    said = ", ".join(f"{count} {word}" for count, word in counts if count) or "the same, written otherwise"
    told = [f"<li>{each.how}, line {each.line}: {_example(each)}</li>" for each in examples]
    return (
        "\n".join([f"<li>rows: {said}", "<ul>", *told, "</ul>", "</li>"])
        if told
        else f"<li>rows: {said}</li>"
    )


def _example(example: Example) -> str:
    return " → ".join(code(each) for each in (example.before, example.after) if each is not None)


def _value(value: Any) -> str:
    if isinstance(value, dict) and "ref" in value:
        return f"{value['ref']} {value['is'][:8]}"
    said = "unset" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return said if len(said) <= 80 else f"{said[:79]}…"
