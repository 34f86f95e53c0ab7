"""
Channels by hand: see where they lead, hold, lift, roll back, approve.

Each is the move of a pointer. Nothing is trained and nothing is measured, and what was moved away from can
be moved back to.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from reconciler import engine, project, release
from reconciler import plan as planning
from reconciler.cli import render, session
from reconciler.cli.live import Quiet
from reconciler.creation import Creator
from reconciler.engine import World
from reconciler.errors import ReconcilerError, Refused, Unreachable
from reconciler.kind import Action, Stamp
from reconciler.release import COLLECTION, Channel, Word
from reconciler.resource import Address, Desired, Wanted
from reconciler.world import Platform

Change = Callable[[Channel], Channel]


def releases(folder: Path, output: str, platform: str | None) -> int:
    tree = project.outline(folder)
    name = session.chosen(tree, platform)
    with session.reading(tree, name) as world:
        found = _ours(world.platform, tree.name)
    say = {"json": render.releases_json, "markdown": render.releases_markdown}
    print(say.get(output, render.releases_text)(found, tree.name, name))
    return 0


def hold(channel: str, reason: str, by: str, folder: Path, platform: str | None) -> int:
    word = Word(by, _now(), reason)
    held = _move(channel, folder, platform, lambda found: release.held(found, word), "held", word)
    print(
        f"{held.name} is held on {held.model}; nothing automatic moves it until `reconciler lift {channel}`"
    )
    return 0


def lift(channel: str, by: str, folder: Path, platform: str | None) -> int:
    word = Word(by, _now(), "")
    lifted = _move(channel, folder, platform, release.lifted, "lifted", word)
    print(f"{lifted.name} follows its rule again; it leads to {lifted.shown}")
    for gone in lifted.revoked:
        print(f"{gone.shown} was taken back on {gone.at} ({gone.reason}) and needs an approval to return")
    return 0


def rollback(channel: str, to: str | None, reason: str, by: str, folder: Path, platform: str | None) -> int:
    word = Word(by, _now(), reason)

    def back(found: Channel) -> Channel:
        if found.canary and to is None:
            return release.held(release.called_back(found, word), word)
        return release.rolled_back(found, release.target(found, to), word)

    moved = _move(channel, folder, platform, back, "rolled back", word)
    print(f"{moved.name} → {moved.shown}, held until `reconciler lift {channel}`")
    return 0


def approve(rule: str, by: str, folder: Path, platform: str | None) -> int:
    tree = project.load(folder)
    wanted = tree.find(rule)
    name = session.chosen(tree, platform)
    with session.writing(tree, name, trains=False) as (world, creator):
        approved = _approved(_around(tree.desired, wanted), wanted, by, world)
        done = engine.once(
            _around(tree.desired, wanted) | {wanted.address: approved}, world, creator, Quiet()
        )
        step = done.steps[-1]
        if step.action is not Action.KEEP or step.decision.observed is None:
            held = done.deferred.get(wanted.address)
            raise ReconcilerError(held.why if held else step.decision.why)
        now = release.read(step.decision.observed.body)
        detail = {
            "by": by,
            "channel": now.name,
            "model": now.model,
            "id": approved.body["approved_fingerprint"],
        }
        creator.journal.record(creator.now(), name, wanted.address, "approved", detail)
    print(f"{now.name} → {now.shown}, approved by {by}")
    return 0


def _approved(around: Desired, wanted: Wanted, by: str, world: World) -> Wanted:
    """The rule with the approval that it waits for. Raises Refused where it waits for none."""
    sight = engine.look(around, world)
    if sight.unseen:
        raise Unreachable(next(iter(sight.unseen.values())))
    decision = planning.make(sight.desired, world.kinds, sight.actual, sight.evidence, {}).steps[-1].decision
    if decision.approval is None:
        raise Refused(f"{wanted.address} waits for no approval: {decision.why or 'it is as wanted'}")
    return replace(wanted, body=wanted.body | {"approved_fingerprint": decision.approval, "approved_by": by})


def _move(name: str, folder: Path, platform: str | None, change: Change, event: str, word: Word) -> Channel:
    """Write a channel as `change` makes it, and who did in the journal. Raises ReconcilerError."""
    tree = project.outline(folder)
    place = session.chosen(tree, platform)
    with session.writing(tree, place, trains=False) as (world, creator):
        found = {each.name: each for each in _ours(world.platform, tree.name)}
        if name not in found:
            raise ReconcilerError(f"no release is named {name}; there is {', '.join(found) or 'none yet'}")
        after = change(found[name])
        world.platform.create(COLLECTION, release.written(after), key=uuid.uuid4().hex)
        _record(creator, place, after, event, word)
    return after


def _record(creator: Creator, platform: str, channel: Channel, event: str, word: Word) -> None:
    stamp = Stamp.read(channel.metadata)
    address = Address.parse(stamp.address if stamp else f"Release/{channel.name}")
    detail = {"by": word.by, "reason": word.reason, "channel": channel.name, "model": channel.model}
    creator.journal.record(creator.now(), platform, address, event, detail)


def _ours(platform: Platform, project_name: str) -> list[Channel]:
    """Our channels, and those that nobody has stamped. Raises PlatformError."""
    aliases: Iterable[Mapping[str, Any]] = platform.list(COLLECTION)
    stamps = ((each, Stamp.read(each.get("metadata"))) for each in aliases)
    return [release.read(each) for each, stamp in stamps if stamp is None or stamp.project == project_name]


def _around(desired: Desired, wanted: Wanted) -> Desired:
    """The resource and all it rests on, in order; itself at the end."""
    found = {wanted.address}
    for each in reversed(desired.values()):
        if each.address in found:
            found |= {need.address for need in each.needs}
    around = {address: each for address, each in desired.items() if address in found}
    return {address: each for address, each in around.items() if address != wanted.address} | {
        wanted.address: wanted
    }


def _now() -> str:
    return release.stamp_of_time(time.time())
