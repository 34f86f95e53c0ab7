"""
What a project has made, seen whole; and how the part of it that may go does go.

One pass looks at everything, decides once and deletes in that order. Nothing is repeated: a delete whose reply
is lost ends the pass, and the next one looks again. What was refused keeps what it needs.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from reconciler import adoption, engine, pruning
from reconciler.creation import WINDOW, Creator
from reconciler.engine import Sight, World
from reconciler.errors import PlatformError, Rejected
from reconciler.journal import Journal
from reconciler.kind import Kind, Observed, Seen, State, Unseen
from reconciler.ownbook import OwnBook
from reconciler.plan import Deletion
from reconciler.pruning import Holdings, Policy
from reconciler.resource import Address, Desired

ASKED = 3  # objects that are asked for by name where a list came back empty


@dataclass(frozen=True)
class Pruned:
    """What became of deletions."""

    deletions: tuple[Deletion, ...]
    done: tuple[Deletion, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)  # id → why it still stands, or may


def survey(
    sight: Sight, world: World, journal: Journal | None, now: float, *, empty: bool = False
) -> Holdings:
    """
    All that stands of a project, also what no manifest declares; nothing is written.

    `now` is in unix seconds; `empty` believes lists that came back empty although something was applied.
    Raises ReconcilerError.
    """
    actual: dict[str, Seen | Unseen] = {}
    kinds = [kind for kind in world.kinds.values() if kind.collection]
    for kind in sorted(kinds, key=lambda each: bool(each.under)):
        actual[kind.name] = engine.see(kind, world, _parents(kind, actual), everybodys=True)
        adoption.take(sight.desired, {kind.name: kind}, world.platform, actual, nested=bool(kind.under))
    if journal is None:
        return Holdings(world.project, actual)
    book, name = OwnBook(journal), world.platform.name
    doubts = [f"{each.address} was asked for and is not seen yet; nothing is deleted until it is"
              for each in journal.open_intents(name).values()
              if now < each.opened_at + WINDOW]  # fmt: skip
    if not empty:
        doubts += _vanished(sight.desired, actual, world, book.stood(name))
    return Holdings(world.project, actual, book.words(name), book.gone(name), next(iter(doubts), ""))


def prune(
    desired: Desired, world: World, creator: Creator, policy: Policy, by: str, *, empty: bool = False
) -> Pruned:
    """Delete what may go of what `desired`, which is all that is declared, does not want any more."""
    sight = engine.look(desired, world)
    holdings = survey(sight, world, creator.journal, creator.now(), empty=empty)
    for id, left in [] if holdings.why_not else pruning.emptied(sight.desired, world.kinds, holdings):
        if world.platform.get(left.collection, left.id) is None:  # a list that lacks it says too little
            OwnBook(creator.journal).went(world.platform.name, id, creator.now())
    deletions = pruning.decide(sight.desired, desired, world.kinds, holdings, policy)
    deletions = world.policies.spare(deletions) if world.policies else deletions
    return carry_out(deletions, world, creator, by)


def carry_out(deletions: tuple[Deletion, ...], world: World, creator: Creator, by: str) -> Pruned:
    """Delete what is not kept, in order; `by` goes into the history."""
    book, journal, name = OwnBook(creator.journal), creator.journal, world.platform.name
    done: list[Deletion] = []
    failed: dict[str, str] = {}
    held: set[str] = set()  # ids that something needs which would not go
    for each in deletions:
        observed, kind = each.observed, world.kinds[each.kind]
        if each.kept:
            continue
        if needing := held.intersection(pruning.names(observed)):
            failed[observed.id] = f"{next(iter(needing))} is needed by what could not be deleted"
            continue
        removal = kind.removal(observed)
        address = Address.parse(observed.stamp.address if observed.stamp else each.kind)
        detail = {"id": observed.id, "by": by, "reason": each.why}
        try:
            if observed.state is State.WORKING:
                _end(kind, world, observed)
            if removal:
                world.platform.delete(removal.collection, removal.id)
        except Rejected as error:
            failed[observed.id] = str(error)
            held.update(pruning.texts(observed.body))
            continue
        except PlatformError as error:
            failed[observed.id] = f"{error}; the next pass looks again"
            journal.record(creator.now(), name, address, "delete unclear", detail)
            break
        journal.record(creator.now(), name, address, "deleted", detail)
        if observed.stamp:
            book.forget(name, observed.stamp.address, observed.stamp.fingerprint)
        if removal is None or removal.id != observed.id:
            book.went(name, observed.id, creator.now())
        done.append(each)
    return Pruned(deletions, tuple(done), failed)


def _end(kind: Kind, world: World, observed: Observed) -> None:
    with suppress(Rejected):  # it has ended meanwhile
        kind.cancel(world.platform, observed)


def _parents(kind: Kind, actual: Mapping[str, Seen | Unseen]) -> list[Observed] | Unseen:
    """The objects of ours, or that stand for something of ours, in which others lie."""
    seen = actual.get(kind.under, Seen()) if kind.under else Seen()
    return (
        seen if isinstance(seen, Unseen) else [each for hits in seen.by_fingerprint.values() for each in hits]
    )


def _vanished(
    desired: Desired, actual: Mapping[str, Seen | Unseen], world: World, stood: Mapping[str, str]
) -> Iterator[str]:
    """Why a list that came back without anything of ours is not believed. Raises PlatformError."""
    for name, seen in actual.items():
        kind = world.kinds[name]
        if isinstance(seen, Unseen) or seen.by_fingerprint or name not in pruning.ORDER:
            continue
        applied = {a: id for a, id in stood.items() if Address.parse(a).kind == name}
        applied |= {
            str(a): str(w.body["channel"]) for a, w in desired.items() if a.kind == name and kind.measures
        }
        for address, id in islice(applied.items(), ASKED):
            if not id:
                yield f"the list of {name} came back empty, though {address} was applied; if it is gone, say --empty"
            elif _stands(kind, world, id, actual):
                yield f"the list of {name} came back without {id}, which stands; nothing is deleted on such a list"


def _stands(kind: Kind, world: World, id: str, actual: Mapping[str, Seen | Unseen]) -> bool:
    places = [str(kind.collection)]
    if kind.under:
        parents = _parents(kind, actual)
        places = [] if isinstance(parents, Unseen) else [f"evals/{each.id}/runs" for each in parents]
    return any(world.platform.get(place, id) for place in places)
