"""
What becomes of work in flight that a newer manifest of the same address does not want any more. Pure.

`keep` lets both run, `finish` has the new one wait for the end of the old one, `cancel` ends the old one
and starts the new one. Work that another resource of the tree wants as well is nobody's to end.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from reconciler.kind import Action, Decision, Observed, Seen, State
from reconciler.resource import ASKED_BESIDE, COSMETIC, Wanted

OnSupersede = Annotated[
    Literal["keep", "cancel", "finish"],
    COSMETIC,
    Field(description="what becomes of work in flight for an earlier version of this manifest"),
]


def decide(wanted: Wanted, noun: str, seen: Seen, decision: Decision, asked: Collection[str]) -> Decision:
    """The decision, once it respects what works already; `asked` are the fingerprints that anybody wants."""
    policy = wanted.body.get("on_supersede", "keep")
    if policy == "keep" or decision.action is not Action.CREATE:
        return decision
    old = tuple(_superseded(wanted, seen, asked))
    if not old:
        return decision
    named = f"{noun} {', '.join(each.id for each in old)}"
    if policy == "finish":
        why = f"waits for the end of {named}, which an earlier manifest asked for (on_supersede: finish)"
        return Decision(Action.WAIT, why)
    why = f"{named} is cancelled, an earlier manifest asked for it (on_supersede: cancel)"
    return replace(decision, why=why, duplicates=old)


def _superseded(wanted: Wanted, seen: Seen, asked: Collection[str]) -> Iterator[Observed]:
    wants = {*asked, *wanted.facts.get(ASKED_BESIDE, ())}
    for fingerprint, hits in seen.by_fingerprint.items():
        for each in hits:
            own = each.stamp is not None and each.stamp.address == str(wanted.address)
            if own and each.state is State.WORKING and fingerprint not in wants:
                yield each
