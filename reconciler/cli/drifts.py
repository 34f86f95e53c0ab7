"""`drift`: what has come about since the last apply, sorted by what has to happen next."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from reconciler import drift, engine, ownership, pruning
from reconciler import plan as planning
from reconciler.cli import render, session
from reconciler.cli.markup import code, text
from reconciler.drift import Drift, Finding
from reconciler.errors import Unreachable
from reconciler.project import load

FOUND = 3  # exit code


def tell(folder: Path, output: str, platform: str | None, days: int) -> int:
    """Say every difference; `days` is how early a model that is switched off is one."""
    project = load(folder)
    name = session.chosen(project, platform)
    with session.reading(project, name) as world:
        sight = engine.look(project.desired, world)
        if sight.unseen:
            raise Unreachable(next(iter(sight.unseen.values())))
        journal = session.peek(project)
        holdings = ownership.survey(sight, world, journal, time.time(), empty=True)
        steps = planning.make(
            sight.desired, world.kinds, sight.actual, sight.evidence, {}, world.guards
        ).steps
    memory = journal.remembered(name) if journal else {}
    found = drift.classify(steps, holdings.actual, memory, time.time(), days)
    ends = {id for _, id in pruning.found(world.kinds, holdings)}  # of jobs, only their models can go
    told = [each for each in found if each.drift is not Drift.UNMANAGED or each.object in ends]
    say = {"json": _json, "markdown": _markdown}.get(output, _text)
    print(say(told, project.name, name))
    return FOUND if told else 0


def _text(found: Sequence[Finding], project: str, platform: str) -> str:
    if not found:
        return f"{project} on {platform}: nothing differs"
    rows = [(each.drift, each.address, each.why) for each in found]
    return "\n".join([f"{project} on {platform}", "", *render.table(rows)])


def _markdown(found: Sequence[Finding], project: str, platform: str) -> str:
    if not found:
        return f"### {project} on {platform}\n\nNothing differs."
    rows = [f"| {each.drift} | {code(each.address)} | {text(each.why)} |" for each in found]
    return "\n".join(
        [f"### {project} on {platform}", "", "| drift | resource | why |", "|---|---|---|", *rows]
    )


def _json(found: Sequence[Finding], project: str, platform: str) -> str:
    told = [
        {"drift": each.drift, "address": each.address, "why": each.why, "id": each.object, "days": each.days}
        for each in found
    ]
    document = {"version": render.VERSION, "project": project, "platform": platform, "drift": told}
    return json.dumps(document, indent=2, ensure_ascii=False)
