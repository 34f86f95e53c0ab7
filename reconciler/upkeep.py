"""What a pass keeps true beside its steps: words about protection, in the journal and on the objects themselves."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from reconciler import protection
from reconciler.errors import PlatformError
from reconciler.kind import Action, Kind, Observed, Seen, Unseen
from reconciler.plan import Step

if TYPE_CHECKING:  # the database library is only loaded by those who write
    from reconciler.creation import Creator
    from reconciler.engine import World
    from reconciler.journal import Journal

See = Callable[[Kind, "World", list[Observed] | Unseen], Seen | Unseen]


def protect(steps: Iterable[Step], project: str, kinds: Mapping[str, Kind], creator: "Creator") -> None:
    """
    Remember what manifests say about protection, and write it on what stands where its platform lets us.

    What cannot be written now is written by the next pass; until then the journal's word counts.
    """
    from reconciler.ownbook import OwnBook

    steps = tuple(steps)
    book, platform = OwnBook(creator.journal), creator.platform
    book.speak(platform.name, protection.spoken(steps, book.words(platform.name), kinds))
    for step in steps:
        observed, says = step.decision.observed, bool(step.wanted.body.get("protect"))
        if step.action is not Action.KEEP or not observed or not observed.stamp:
            continue
        if observed.stamp.project != project or observed.stamp.protect == says:
            continue
        if ask := kinds[step.address.kind].restamp(observed, observed.stamp._replace(protect=says)):
            try:
                platform.create(ask.collection, ask.body, key=f"protect:{observed.id}:{says}:{creator.now()}")
            except PlatformError:
                continue


def settle(actual: Mapping[str, Seen | Unseen], world: "World", see: See, now: float) -> None:
    """Write down what finished things did cost, also of what no manifest asks for any more."""
    if world.accounts is None:
        return
    world.accounts.settle(actual, now)
    for kind, ids in world.accounts.owed(actual).items():
        try:
            found = list(_looked_for(world.kinds[kind], ids, world, see))
        except PlatformError:
            continue  # the next pass looks again
        world.accounts.settle({kind: Seen(unstamped={each.id: each for each in found if each})}, now)
        if None in found:
            world.accounts.lost(ids - {each.id for each in found if each}, now)


def _looked_for(kind: Kind, ids: Collection[str], world: "World", see: See) -> Iterator[Observed | None]:
    """Objects that the lists of a pass left out; None for what is gone. Raises PlatformError."""
    if not kind.under:
        places = [str(kind.collection)]
    else:
        holders = see(world.kinds[kind.under], world, [])
        if isinstance(holders, Unseen) or not holders.by_fingerprint:
            return  # a list that came back empty takes nothing away
        places = [f"evals/{each.id}/runs" for each in holders.objects()]
    for id in ids:
        answers = (world.platform.get(place, id) for place in places)
        found = next(filter(None, answers), None)
        yield kind.observe(found) if found else None


def gone(journal: "Journal", platform: str) -> frozenset[str]:
    """The ids of what was deleted, and what its platform lists all the same."""
    from reconciler.ownbook import OwnBook

    return OwnBook(journal).gone(platform)
