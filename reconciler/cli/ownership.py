"""What belongs to a project: delete what nobody wants, take down all of it, adopt what was made elsewhere."""

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from reconciler import adopting, engine, ownership, pruning, release
from reconciler.cli import deletions as deleting
from reconciler.cli import render, session
from reconciler.engine import Sight
from reconciler.errors import ReconcilerError, Refused, Unreachable
from reconciler.kind import Kind, Stamp
from reconciler.ownership import Pruned
from reconciler.plan import Deletion
from reconciler.project import Project, load
from reconciler.pruning import Holdings, Policy

PENDING = 2  # exit code


def prune(
    folder: Path, output: str, platform: str | None, policy: Policy, by: str, *, yes: bool, empty: bool
) -> int:
    """Say what nobody wants, or delete it."""
    project = load(folder)
    name = session.chosen(project, platform)
    if yes:
        with session.writing(project, name, trains=False) as (world, creator):
            done = ownership.prune(project.desired, world, creator, policy, by, empty=empty)
        print(_told(project, name, done, output))
        return deleting.code_of(done)
    sight, holdings, kinds = _surveyed(project, name, empty=empty)
    found = pruning.decide(sight.desired, project.desired, kinds, holdings, policy)
    command = f"reconciler prune {folder} --yes"
    print(_planned(project, name, found, output, command, holdings.why_not))
    return _pending(found)


def destroy(
    folder: Path, output: str, platform: str | None, by: str, *, yes: str | None, releases: bool, empty: bool
) -> int:
    """Say what stands of a project, or take all of it down."""
    project = load(folder)
    name = session.chosen(project, platform)
    if yes not in (None, project.name):
        raise ReconcilerError(f"the project is called {project.name}, not {yes}; nothing was done")
    policy = Policy(everything=True)
    if yes is None:
        sight, holdings, kinds = _surveyed(project, name, empty=empty)
        found = pruning.decide(sight.desired, project.desired, kinds, holdings, policy)
        command = f"reconciler destroy {folder} --yes {project.name}"
        print(_planned(project, name, found, output, command, ""))
        _unhindered(found, project, holdings, releases)
        return _pending(found)
    with session.writing(project, name, trains=False) as (world, creator):
        sight = engine.look(project.desired, world)
        holdings = ownership.survey(sight, world, creator.journal, creator.now(), empty=empty)
        found = pruning.decide(sight.desired, project.desired, world.kinds, holdings, policy)
        _unhindered(found, project, holdings, releases)
        done = ownership.carry_out(found, world, creator, by)
    print(_told(project, name, done, output))
    return deleting.code_of(done)


def adopt(address: str, id: str, folder: Path, platform: str | None, by: str) -> int:
    """Let something that was made elsewhere stand for a manifest, if it is what that asks for."""
    project = load(folder)
    wanted = project.find(address)
    name = session.chosen(project, platform)
    with session.writing(project, name, trains=False) as (world, creator):
        kind = world.kinds[wanted.address.kind]
        observed, unlike = adopting.examined(wanted, id, project.desired, world)
        if unlike:
            what = f"{kind.noun} {id} is not what {wanted.address} ({wanted.where}) asks for"
            raise ReconcilerError("; ".join([what, *unlike]))
        stamp = Stamp(project.name, str(wanted.address), wanted.fingerprint, bool(wanted.body.get("protect")))
        if ask := kind.restamp(observed, stamp):
            world.platform.create(ask.collection, ask.body, key=uuid.uuid4().hex)
        elif kind.measures:
            stamp = stamp._replace(fingerprint=adopting.FOUND)
            channel = replace(release.read(observed.body), metadata=stamp.metadata())
            world.platform.create(release.COLLECTION, release.written(channel), key=uuid.uuid4().hex)
        else:
            print(adopting.advice(wanted, id))
            return 0
        creator.journal.record(creator.now(), name, wanted.address, "adopted", {"id": id, "by": by})
    print(f"{kind.noun} {id} is {wanted.address} now")
    return 0


def _surveyed(project: Project, name: str, *, empty: bool) -> tuple[Sight, Holdings, Mapping[str, Kind]]:
    """All that stands, looked at alone."""
    with session.reading(project, name) as world:
        sight = engine.look(project.desired, world)
        if sight.unseen and len(sight.unseen) == len(sight.actual):
            raise Unreachable(next(iter(sight.unseen.values())))
        holdings = ownership.survey(sight, world, session.peek(project), time.time(), empty=empty)
        return sight, holdings, world.kinds


def _unhindered(found: Iterable[Deletion], project: Project, holdings: Holdings, releases: bool) -> None:
    """Raise Refused with everything that stands against a destruction."""
    found = list(found)
    hindered = list(pruning.obstacles(found, project.desired, holdings, releases=releases))
    if found and hindered:
        raise Refused("; ".join([f"{project.name} is not destroyed", *hindered]))


def _pending(found: Iterable[Deletion]) -> int:
    found = tuple(found)
    return (
        PENDING if any(not each.kept for each in found) else deleting.REFUSED if deleting.blown(found) else 0
    )


def _planned(
    project: Project, name: str, found: tuple[Deletion, ...], output: str, command: str, doubt: str
) -> str:
    goes = sum(1 for each in found if not each.kept)
    if output == "json":
        return _json(
            project, name, {"deletions": [deleting.told(each) for each in found], "doubt": doubt or None}
        )
    count = f"{goes} to delete · {len(found) - goes} kept"
    end = f"{count}; `{command}` does it" if goes else count
    if output == "markdown":
        return "\n".join([f"### {project.name} on {name}", "", end, "", *_table(found)])
    if not found:
        return f"{project.name} on {name}: nothing to delete" + (f"; {doubt}" if doubt else "")
    return "\n".join([f"{project.name} on {name}", "", *deleting.lines(found), "", end])


def _told(project: Project, name: str, done: Pruned, output: str) -> str:
    kept = tuple(each for each in done.deletions if each.kept)
    if output == "json":
        told = {"deleted": [deleting.told(each) for each in done.done], "failed": dict(done.failed)}
        return _json(project, name, told | {"kept": [deleting.told(each) for each in kept]})
    failed = [f"! {id}  {why}" for id, why in done.failed.items()]
    count = f"{len(done.done)} deleted · {len(kept)} kept · {len(failed)} still there"
    if output == "markdown":
        return "\n".join(
            [f"### {project.name} on {name}", "", count, "", *_table((*done.done, *kept)), *failed]
        )
    lines = list(deleting.lines((*done.done, *kept)))
    return "\n".join([f"{project.name} on {name}", "", *lines, *(f"  {each}" for each in failed), "", count])


def _table(found: tuple[Deletion, ...]) -> list[str]:
    return ["| | resource | object | why |", "|---|---|---|---|", *deleting.rows(found)] if found else []


def _json(project: Project, name: str, told: Mapping[str, object]) -> str:
    document = {"version": render.VERSION, "project": project.name, "platform": name, **told}
    return json.dumps(document, indent=2, ensure_ascii=False)
