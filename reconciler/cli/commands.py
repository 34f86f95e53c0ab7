"""What each command does: open, ask, say. Returns the exit code."""

import json
import os
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from reconciler import engine, loader, upkeep
from reconciler import plan as planning
from reconciler.cli import deletions, render, session
from reconciler.cli.terms import FREE, Terms
from reconciler.engine import Pass
from reconciler.errors import Refused, Unreachable
from reconciler.kind import Action, Halt
from reconciler.plan import Change, Plan, Step
from reconciler.project import Project, load
from reconciler.resource import Wanted
from reconciler.selection import ALL, Choice

PENDING, IN_PROGRESS = 2, 7  # exit codes
HALTED = {
    Halt.BROKEN: 1,
    Halt.FORBIDDEN: 6,
    Halt.FAILED: 4,
    Halt.REFUSED: 6,
    Halt.INCONCLUSIVE: 5,
    Halt.DRIFT: 3,
    Halt.UNAPPROVED: 0,
    Halt.SUSPENDED: 0,
    Halt.LATER: 0,
}  # the worst first


def validate(folder: Path, output: str) -> int:
    desired = load(folder).desired
    rows = sum(wanted.facts.get("rows", 0) for wanted in desired.values())
    written = sum(1 for wanted in desired.values() if not wanted.implied)
    if output == "json":
        print(json.dumps({"version": render.VERSION, "valid": True, "resources": written, "rows": rows}))
    else:
        print(f"{written} resources and {rows} rows are valid")
    return 0


def tell(project: Project, name: str, made: Plan, output: str) -> int:
    """Say what a plan would do."""
    say = {"json": render.plan_json, "markdown": render.plan_markdown}.get(output, render.plan_text)
    print(say(made, project.name, name, locate, session.estimates(project, name, made)))
    return code_of(made)


def status(folder: Path, output: str, platform: str | None, choice: Choice = ALL) -> int:
    project, name, made = planned(folder, platform, choice)
    say = {
        "json": lambda *_: render.plan_json(made, project.name, name, locate),
        "markdown": render.status_markdown,
    }
    print(say.get(output, render.status_text)(made.steps, project.name, name))
    return 0


def explain(address: str, folder: Path, output: str, platform: str | None) -> int:
    project, name, made = planned(folder, platform)
    wanted = project.find(address)
    step = next(each for each in made.steps if each.address == wanted.address)
    events = session.events(project, wanted.address)
    if output == "json":
        document = json.loads(render.plan_json(Plan((step,)), project.name, name, locate))
        print(json.dumps({"version": render.VERSION, **document["steps"][0], "events": events}, indent=2))
    else:
        print(render.explain_text(step, made, events, _when, locate))
    return 0


def apply(
    folder: Path,
    output: str,
    platform: str | None,
    wait: bool,
    timeout: float | None,
    terms: Terms = FREE,
    choice: Choice = ALL,
) -> int:
    from reconciler.cli.live import Live, Quiet
    from reconciler.cli.summary import summary

    project = load(folder).part(choice)
    name = session.chosen(project, platform)
    with session.writing(project, name) as (world, creator):
        if terms is not FREE:
            project = replace(project, whole=False)  # what was not agreed on is not deleted
            terms.accept(project.name, _decide(project, name, world), creator)
            world = replace(world, guards=(*world.guards, *terms.guards))
        before = _decide(project, name, world)
        if output == "text":
            costs = session.estimates(project, name, before)
            print(render.plan_text(before, project.name, name, locate, costs), flush=True)
        if _finished(before):
            creator.journal.remember(name, _unremembered(before, creator.journal.remembered(name)))
            upkeep.protect(before.steps, world.project, world.kinds, creator)
            upkeep.settle({}, world, engine.see, creator.now())
            done = Pass(before.steps)
        else:
            with Live() if output == "text" else Quiet() as watch:
                limit = timeout if wait else 0.0
                done = engine.settle(project.desired, world, creator, watch, time.sleep, limit)
        left = terms.ended(done, creator)
        pruned = deletions.pruned(project, world, creator, done)
    if output == "json":
        print(render.pass_json(done, project.name, name))
    elif output == "markdown":
        print(render.status_markdown(done.steps, project.name, name))
    elif not _finished(before):
        print(summary(done, project, name))
    if left:
        raise Refused(left)
    return _ended(done) or deletions.tell(pruned, output)


def schema(kind: str | None) -> int:
    from reconciler.cli.schemas import schema_of

    print(schema_of(kind))
    return 0


def graph(folder: Path, drawing: str) -> int:
    print((render.dot if drawing == "dot" else render.mermaid)(load(folder).desired))
    return 0


def serve(arguments: list[str]) -> None:
    """Become the platform's own process. Never returns."""
    os.execv(sys.executable, [sys.executable, "-m", "reconciler.selfhosted", *arguments])


def locate(wanted: Wanted, change: Change) -> str:
    """`path:line` of the field that changed, read again from the manifest."""
    parts: list[str | int] = [
        int(p) if p.isdecimal() and len(p) < 10 else p.replace("~1", "/").replace("~0", "~")
        for p in change.at.split("/")[1:]
    ]
    if wanted.implied or not parts or parts[0] in ("facts", "runs"):
        return wanted.where
    return loader.Document(wanted.address.kind, wanted.address.name, {}, wanted.file, wanted.line).where(
        "spec", *parts
    )


def planned(folder: Path, platform: str | None, choice: Choice = ALL) -> tuple[Project, str, Plan]:
    """What would be done for a folder, and on which platform. Raises ReconcilerError."""
    project = load(folder).part(choice)
    name = session.chosen(project, platform)
    with session.reading(project, name) as world:
        return project, name, _decide(project, name, world)


def _decide(project: Project, name: str, world: engine.World) -> Plan:
    sight = engine.look(project.desired, world)
    if sight.unseen:
        raise Unreachable(next(iter(sight.unseen.values())))
    goes = deletions.planned(project, sight, world, lambda: session.peek(project), time.time())
    made = planning.make(sight.desired, world.kinds, sight.actual, sight.evidence, {}, world.guards)
    if not made.pending:
        return made.pruned(goes)
    memory = session.memory(project, name)  # only what changes needs explaining
    held = (*world.guards, *session.unaffordable(project, name, made))
    held = (*held, world.policies.guard(made.pruned(goes))) if world.policies else held
    return planning.make(sight.desired, world.kinds, sight.actual, sight.evidence, memory, held).pruned(goes)


def _finished(before: Plan) -> bool:
    return not before.pending and not before.counts[Action.WAIT]


def _unremembered(before: Plan, remembered: dict[str, str]) -> list[Wanted]:
    steps = (step for step in before.steps if step.action is Action.KEEP)
    return [s.wanted for s in steps if remembered.get(str(s.address)) != s.wanted.fingerprint]


def _ended(done: Pass) -> int:
    return 1 if done.failed else _halted(done.steps) or (0 if done.settled else IN_PROGRESS)


def code_of(made: Plan) -> int:
    """The exit code of a plan; what a policy forbids counts more than what is pending."""
    forbidden = any(step.decision.halt is Halt.FORBIDDEN for step in made.steps)
    return HALTED[Halt.FORBIDDEN] if forbidden else PENDING if made.pending else _halted(made.steps)


def _halted(steps: tuple[Step, ...]) -> int:
    """The exit code of what is blocked: the worst of it."""
    halts = {step.decision.halt for step in steps if step.action is Action.BLOCK}
    return next((code for halt, code in HALTED.items() if halt in halts), 0)


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
