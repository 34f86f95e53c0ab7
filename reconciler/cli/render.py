"""What people and programs read: values in, text out. Pure, and golden-tested."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from reconciler import cost, release
from reconciler.cli import deletions
from reconciler.cost import Estimate
from reconciler.engine import Pass
from reconciler.gates import Trial
from reconciler.kind import Action, Halt, State
from reconciler.kinds.promotionrule import told
from reconciler.plan import Change, Plan, Step
from reconciler.release import Channel
from reconciler.resource import Address, Desired, Wanted

VERSION = 1  # of every JSON document here
Locate = Callable[[Wanted, Change], str]  # `path:line` of a field
Costs = Mapping[Address, Estimate]
UNKNOWN: Costs = MappingProxyType({})

WORDS = {
    Action.CREATE: "to create",
    Action.UPDATE: "to move",
    Action.DELETE: "to delete",
    Action.WAIT: "in progress",
    Action.BLOCK: "blocked",
    Action.KEEP: "unchanged",
}
NEXT = {
    Halt.FAILED: "train a better candidate",
    Halt.INCONCLUSIVE: "measure on more items; the gate cannot tell yet",
    Halt.REFUSED: "a person has to decide; the line above says how",
    Halt.UNAPPROVED: "a person has to approve it; the line above says how",
    Halt.SUSPENDED: "nothing; it is suspended",
    Halt.FORBIDDEN: "change what it asks for, or the policy; the line above says which",
    Halt.LATER: "another apply does it; this one was told not to",
    Halt.DRIFT: "put the release file back, or say on_drift: restore",
}


def plan_text(plan: Plan, project: str, platform: str, locate: Locate, costs: Costs = UNKNOWN) -> str:
    """A plan for a terminal; `costs` are known of what would act."""
    lines = [f"{project} on {platform}", ""]
    shown = [step for step in plan.steps if _acts(step)]
    wide = max((len(str(step.address)) for step in shown), default=0)
    for step in shown:
        about = _about(step, costs)
        lines.append(f"  {step.action} {step.address!s:<{wide}}  {'; '.join(filter(None, about))}".rstrip())
        lines += [f"      {line}" for line in _details(step, plan, locate)]
    lines += deletions.lines([each for each in plan.deletions if not each.kept])
    if not plan.pending and not shown:
        return f"{project} on {platform}: nothing to do, {len(plan.steps)} resources are as wanted"
    return "\n".join([*lines, "", headline(plan, costs)])


def headline(plan: Plan, costs: Costs = UNKNOWN) -> str:
    """A plan in one line."""
    parts = []
    for action, words in WORDS.items():
        count = plan.counts[action] - (plan.replaced if action is Action.CREATE else 0)
        if action is Action.CREATE:
            parts += [f"{count} {words}", f"{plan.replaced} made anew"]
        elif count or action is Action.DELETE:
            parts.append(f"{count} {words}")
    return " · ".join([*parts, *filter(None, [cost.said_total(costs.values())])])


def plan_markdown(plan: Plan, project: str, platform: str, locate: Locate, costs: Costs = UNKNOWN) -> str:
    """A plan for a pull request."""
    lines = [f"### {project} on {platform}", "", headline(plan, costs), ""]
    shown = [step for step in plan.steps if _acts(step)]
    if shown:
        lines += ["| | resource | why |", "|---|---|---|"]
        for step in shown:
            about = _cell("; ".join(filter(None, _about(step, costs))))
            lines.append(f"| {step.action} | `{step.address}` | {about} |")
    if goes := [each for each in plan.deletions if not each.kept]:
        lines += ["", "| | deleted | object | why |", "|---|---|---|---|", *deletions.rows(goes)]
    for step in shown:
        if details := list(_details(step, plan, locate)):
            lines += [
                "",
                f"<details><summary><code>{step.address}</code></summary>",
                "",
                "```text",
                *details,
                "```",
                "",
                "</details>",
            ]
    return "\n".join(lines)


def plan_json(plan: Plan, project: str, platform: str, locate: Locate, costs: Costs = UNKNOWN) -> str:
    """A plan for a program."""
    document = {
        "version": VERSION,
        "project": project,
        "platform": platform,
        "pending": plan.pending,
        "counts": {action.name.lower(): plan.counts[action] for action in Action}
        | {"replaced": plan.replaced},
        "estimate": cost.total(costs.values())._asdict(),
        "steps": [
            _step(step, locate) | {"estimate": asdict(costs[step.address]) if step.address in costs else None}
            for step in plan.steps
        ],
    }
    document["deletions"] = [deletions.told(each) for each in plan.deletions]
    return json.dumps(document, indent=2, ensure_ascii=False)


def status_text(steps: Iterable[Step], project: str, platform: str) -> str:
    """Every resource as it stands."""
    rows = [(str(step.action), str(step.address), _id(step), _standing(step)) for step in steps]
    return "\n".join([f"{project} on {platform}", "", *table(rows)])


def status_markdown(steps: Iterable[Step], project: str, platform: str) -> str:
    rows = [f"| {s.action} | `{s.address}` | `{_id(s)}` | {_cell(_standing(s))} |" for s in steps]
    return "\n".join(
        [f"### {project} on {platform}", "", "| | resource | object | state |", "|---|---|---|---|", *rows]
    )


def pass_json(done: Pass, project: str, platform: str) -> str:
    """The end of an apply for a program."""
    document = {
        "version": VERSION,
        "project": project,
        "platform": platform,
        "settled": done.settled,
        "made": [str(address) for address in done.made],
        "failed": {str(address): why for address, why in done.failed.items()},
        "steps": [_step(step, lambda wanted, _: wanted.where) for step in done.steps],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def explain_text(
    step: Step, plan: Plan, events: Iterable[Mapping[str, Any]], when: Callable[[float], str], locate: Locate
) -> str:
    """One resource: how it stands, why, on what it rests, what happened, what is next."""
    wanted = step.wanted
    by_address = {each.address: each for each in plan.steps}
    lines = [
        f"{step.action} {step.address}  {_standing(step)}",
        f"  written in   {wanted.where}" + (" (implied by a promotion rule)" if wanted.implied else ""),
        f"  fingerprint  {wanted.fingerprint}",
        f"  object       {_id(step) or 'none'}",
    ]
    lines += [
        f"  needs        {by_address[a].action} {a}" for a in dict.fromkeys(n.address for n in wanted.needs)
    ]
    users = [each for each in plan.steps if any(n.address == step.address for n in each.wanted.needs)]
    lines += [f"  needed by    {each.action} {each.address}" for each in users]
    lines += [f"  {line}" for line in _details(step, plan, locate)]
    lines += [f"  {when(each['at'])}  {_event(each)}" for each in events]
    return "\n".join([*lines, f"  next         {_next(step)}"])


def _event(event: Mapping[str, Any]) -> str:
    """What happened, to what, and who did it why."""
    said = [event["event"], event.get("id"), event.get("model"), event.get("by") and f"by {event['by']}"]
    return " ".join(filter(None, said)) + (f": {event['reason']}" if event.get("reason") else "")


def releases_text(channels: Sequence[Channel], project: str, platform: str) -> str:
    """Where every channel leads, since when, by whom, and what stands against moving it."""
    if not channels:
        return f"{project} on {platform}: no channel leads anywhere yet"
    heads = ("channel", "model", "since", "by", "hold", "previous", "file")
    return "\n".join([f"{project} on {platform}", "", *table([heads, *map(_release, channels)])])


def releases_markdown(channels: Sequence[Channel], project: str, platform: str) -> str:
    rows = ["| " + " | ".join(map(_cell, _release(each))) + " |" for each in channels]
    heads = ["| channel | model | since | by | hold | previous | file |", "|---|---|---|---|---|---|---|"]
    return "\n".join([f"### {project} on {platform}", "", *heads, *rows])


def releases_json(channels: Sequence[Channel], project: str, platform: str) -> str:
    found = []
    for each in channels:
        body = release.written(each)
        kept = {key: body[key] for key in ("name", "model", "metadata", "release", "state", "canary")}
        history = [entry._asdict() for entry in each.history]
        found.append(
            kept | {"since": release.stamp_of_time(each.since), "file": each.file, "history": history}
        )
    document = {"version": VERSION, "project": project, "platform": platform, "releases": found}
    return json.dumps(document, indent=2, ensure_ascii=False)


def _release(channel: Channel) -> tuple[str, ...]:
    moved = channel.release.get("moved") or {}
    by = " by ".join(filter(None, [moved.get("how"), moved.get("by")]))
    hold = f"{channel.hold.by}: {channel.hold.reason}" if channel.hold else "-"
    previous = next((entry.shown for entry in channel.earlier()), "-")
    since = release.stamp_of_time(channel.since)
    return channel.name, channel.shown, since, by or "-", hold, previous, channel.file


def mermaid(desired: Desired) -> str:
    """The graph, for Markdown."""
    names = {address: f"n{index}" for index, address in enumerate(desired)}
    lines = ["graph LR", *(f'  {names[address]}["{address}"]' for address in desired)]
    for address, wanted in desired.items():
        lines += [
            f"  {names[need]} --> {names[address]}" for need in dict.fromkeys(n.address for n in wanted.needs)
        ]
    return "\n".join(lines)


def dot(desired: Desired) -> str:
    """The graph, for Graphviz."""
    lines = ["digraph reconciler {", "  rankdir=LR;", *(f'  "{address}";' for address in desired)]
    for address, wanted in desired.items():
        lines += [f'  "{need}" -> "{address}";' for need in dict.fromkeys(n.address for n in wanted.needs)]
    return "\n".join([*lines, "}"])


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Columns as wide as they need to be."""
    rows = list(rows)
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return [
        "  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows
    ]


def _acts(step: Step) -> bool:
    """Whether a step is worth a line: it does something, waits, or cannot."""
    return step.action is not Action.KEEP or bool(step.decision.duplicates)


def _about(step: Step, costs: Costs) -> tuple[str, str]:
    """Why a step is taken, and what it will take."""
    return _why(step), cost.said(costs[step.address]) if step.address in costs else ""


def _why(step: Step) -> str:
    if step.action is Action.CREATE and step.replaces:
        causes = [change.ref for change in step.changes if change.ref]
        because = f"{', '.join(dict.fromkeys(causes))} changed" if causes else "it changed"
        ends = f"; {step.decision.why}" if step.decision.duplicates else ""
        return f"made anew, because {because}{ends}"
    after = (
        f"after {', '.join(map(str, step.after[:3]))}" + (" …" if len(step.after) > 3 else "")
        if step.after
        else ""
    )
    spare = step.decision.duplicates if step.action is not Action.CREATE else ()
    twice = ", ".join(each.id for each in spare)
    return "; ".join(filter(None, [step.decision.why, after, twice and f"made twice: cancels {twice}"]))


def _details(step: Step, plan: Plan, locate: Locate) -> Iterable[str]:
    """Field by field, what differs from what was last applied."""
    for change in step.changes:
        if step.rows and change.at == "/facts/sha256":
            rows, shown = step.rows, ", ".join(map(str, step.rows.lines[:10]))
            counts = [
                f"{n} {word}"
                for n, word in ((rows.changed, "changed"), (rows.added, "added"), (rows.removed, "removed"))
                if n
            ]
            at = f"  {step.wanted.facts['path']}:{shown}" if shown else f"  {step.wanted.facts['path']}"
            yield f"rows: {', '.join(counts) or 'the same, written otherwise'}{at}" + (
                " …" if len(rows.lines) > 10 else ""
            )
        else:
            yield f"{change.field}: {_value(change.before)} → {_value(change.after)}  {locate(step.wanted, change)}"
    values = {each.address: each for each in plan.steps if each.action is Action.KEEP and each.changes}
    for need in dict.fromkeys(n.address for n in step.wanted.needs):
        if need in values and step.changes:
            for change in values[need].changes:
                yield (f"{need} {change.field}: {_value(change.before)} → {_value(change.after)}"
                       f"  {locate(values[need].wanted, change)}")  # fmt: skip
    yield from step.notes


def _value(value: Any) -> str:
    if isinstance(value, dict) and "ref" in value:
        return f"{value['ref']} {value['is'][:8]}"
    text = "unset" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _step(step: Step, locate: Locate) -> dict[str, Any]:
    return {
        "address": str(step.address),
        "action": step.action.name.lower(),
        "why": _why(step),
        "where": step.wanted.where,
        "fingerprint": step.wanted.fingerprint,
        "id": _id(step) or None,
        "after": [str(address) for address in step.after],
        "replaces": step.replaces,
        "changes": [
            {"field": c.field, "before": c.before, "after": c.after, "where": locate(step.wanted, c)}
            for c in step.changes
        ],
        "rows": step.rows._asdict() if step.rows else None,
        "notes": list(step.notes),
        "trials": [_trial(t) for t in step.decision.evidence or []],
        "halt": str(step.decision.halt) if step.action is Action.BLOCK else None,
        "approval": step.decision.approval,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "candidate": trial.candidate,
        "verdict": str(trial.verdict),
        "gates": [told(j) for j in trial.judgements],
    }


def _id(step: Step) -> str:
    observed = step.decision.observed
    return "" if observed is None or observed.id == str(step.address) else observed.id


def _standing(step: Step) -> str:
    observed = step.decision.observed
    if step.action is Action.KEEP:
        return step.decision.why or (
            f"ready {observed.body.get('fine_tuned_model') or ''}".rstrip() if observed else "ready"
        )
    if step.action is Action.WAIT:
        return step.decision.why or State.WORKING
    return _why(step) or WORDS[step.action]


def _next(step: Step) -> str:
    match step.action:
        case Action.KEEP:
            return "nothing; it is as wanted"
        case Action.WAIT:
            return "wait; apply follows it, and stopping apply does not stop it"
        case Action.BLOCK if step.decision.halt in NEXT:
            return NEXT[step.decision.halt]
        case Action.BLOCK if step.decision.observed and step.decision.observed.state is State.FAILED:
            lever = "spec.tries of the eval" if step.wanted.implied else "spec.tries"
            return f"mend the cause and raise {lever if step.address.kind == 'EvalRun' else 'spec.attempt'} by one"
        case Action.BLOCK:
            return "mend what it waits for"
        case _ if step.after:
            return f"apply makes {', '.join(map(str, step.after))} first"
        case _:
            return "apply does it"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("@", "@\u200b")
