"""What a pass keeps true beside its steps: words about protection, in the journal and on the objects themselves."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from reconciler import protection
from reconciler.errors import PlatformError
from reconciler.kind import Action, Kind
from reconciler.plan import Step

if TYPE_CHECKING:  # the database library is only loaded by those who write
    from reconciler.creation import Creator
    from reconciler.journal import Journal


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


def gone(journal: "Journal", platform: str) -> frozenset[str]:
    """The ids of what was deleted, and what its platform lists all the same."""
    from reconciler.ownbook import OwnBook

    return OwnBook(journal).gone(platform)
