"""
What a CI job writes for people beside the plan's own comment: failures, outcomes, and remarks at lines. Pure.

Like the comment it is HTML, in which nothing from a manifest is more than text.
"""

import html
from collections.abc import Callable, Iterable, Mapping

from reconciler import cost
from reconciler.ci.checks import Level, Remark, placed
from reconciler.cli.markup import code, text
from reconciler.cost import Estimate
from reconciler.errors import ManifestError, Problem, ReconcilerError
from reconciler.kind import Action, Halt
from reconciler.plan import Change, Step
from reconciler.resource import Address, Wanted

MOST = 100  # entries of one list
MARKS: Mapping[Halt | None, Level] = {
    Halt.BROKEN: "failure",
    Halt.FAILED: "failure",
    Halt.REFUSED: "failure",
    Halt.FORBIDDEN: "failure",
    Halt.INCONCLUSIVE: "warning",
    Halt.DRIFT: "warning",
    Halt.UNAPPROVED: "notice",
}
WILL = {Action.CREATE: "will be made", Action.UPDATE: "will be moved", Action.BLOCK: "is blocked"}
Place = Callable[[str], str | None]


def problems_of(error: ReconcilerError) -> tuple[Problem, ...]:
    """Every problem of an error, each with its place if it has one."""
    return error.problems if isinstance(error, ManifestError) else (Problem("", str(error)),)


def failed(what: str, problems: Iterable[Problem]) -> str:
    """Why something could not be done, as a list."""
    problems = list(problems)
    told = [
        f"<li>{code(each.where) + ': ' if each.where else ''}{text(each.what, 1000)}</li>"
        for each in problems[:MOST]
    ]
    more = [f"<li>… {len(problems) - MOST} more</li>"] if len(problems) > MOST else []
    return "\n".join([f"<p><b>{text(what)}</b></p>", "<ul>", *told, *more, "</ul>"])


def outcome(said: str, project: str, platform: str, steps: Iterable[Step], printed: str) -> str:
    """How everything stands after an apply, and the end of what it printed."""
    steps = [each for each in steps if not each.wanted.implied]
    rows = [
        f"<tr><td>{each.action}</td><td>{code(each.address)}</td><td>{_standing(each)}</td></tr>"
        for each in steps[:MOST]
    ]
    more = [f"<p>… {len(steps) - MOST} more</p>"] if len(steps) > MOST else []
    head = f"<h3>{text(project)} on {text(platform)}</h3>\n<p><b>{text(said)}</b></p>"
    lines = [text(each) for each in printed.rstrip().splitlines()[-MOST:]]
    log = ["<details><summary>log</summary>", f"<pre>{'&#10;'.join(lines)}</pre>", "</details>"]
    return "\n".join([head, "<table>", *rows, "</table>", *more, *log])


def footer(commit: str, url: str, digest: str = "") -> str:
    """Which commit this is about, and the job that says it."""
    plan = f"plan <code>{digest[:12]}</code> of " if digest else ""
    return f'<p>{plan}commit <code>{commit[:8]}</code> · <a href="{html.escape(url)}">job</a></p>'


def problem_remarks(problems: Iterable[Problem], place: Place) -> list[Remark]:
    """What is wrong with manifests, beside their lines."""
    found = []
    for each in problems:
        if (at := placed(each.where)) and (path := place(at[0])):
            found.append(Remark(path, at[1], "failure", "invalid manifest", each.what))
    return found


def step_remarks(
    steps: Iterable[Step],
    estimates: Mapping[Address, Estimate],
    place: Place,
    locate: Callable[[Wanted, Change], str],
) -> list[Remark]:
    """What would be done and what is blocked, beside the lines that say so."""
    found = []
    for step in steps:
        level = _level(step)
        where = locate(step.wanted, step.changes[0]) if step.changes else step.wanted.where
        if level and (at := placed(where)) and (path := place(at[0])):
            title = f"{step.address} {WILL[step.action]}"
            found.append(Remark(path, at[1], level, title, _message(step, estimates.get(step.address))))
    return found


def _level(step: Step) -> Level | None:
    if step.action in (Action.CREATE, Action.UPDATE):
        return None if step.wanted.implied else "notice"
    return MARKS.get(step.decision.halt) if step.action is Action.BLOCK else None


def _message(step: Step, estimate: Estimate | None) -> str:
    changed = ", ".join(change.field for change in step.changes[:5])
    said = [step.decision.why, changed and f"changed: {changed}", cost.said(estimate) if estimate else ""]
    return "; ".join(filter(None, said)) or "new"


def _standing(step: Step) -> str:
    observed = step.decision.observed
    said = [text(step.decision.why)] if step.decision.why else []
    said += [code(observed.id)] if observed and observed.id != str(step.address) else []
    return "<br>".join(said)
