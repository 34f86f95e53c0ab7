"""
What of a project may be deleted: what carries its stamp, what no manifest wants any more, and what nothing
that stays still needs. Pure.

Who needs what is read off the objects themselves: whatever names another by its id, or by the model it left
behind, needs it; so a release keeps its model, its runs and all that its lineage names. Old versions of what
is still declared stay as rollback stock unless they are asked for. A fuse that would be exceeded lets nothing
through: it is blown, and a person looks.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from reconciler.kind import Kind, Observed, Removal, Seen, Stamp, State, Unseen
from reconciler.plan import Deletion
from reconciler.protection import Shield, Words
from reconciler.resource import Address, Desired

LEAST_FUSE = 3  # deletions that a pass may always do
ORDER = ("PromotionRule", "EvalRun", "Eval", "FineTuneJob", "Dataset")  # the dependent before what it needs
BLOWN = "the fuse is blown: "
Key = tuple[str, str]  # kind and id


class Policy(NamedTuple):
    """What may go in one pass."""

    superseded: bool = False  # also old versions of what is still declared
    fuse: int | None = None  # how many at most; None: 3, or a tenth of what stands if that is more
    everything: bool = False  # all of the project, its channels and what works included
    before: float = (
        math.inf
    )  # unix seconds: what was made later stays, as an open pull request may have built it


@dataclass(frozen=True)
class Holdings:
    """All that stands of a project on one platform, and what is known of it beside."""

    project: str
    actual: Mapping[str, Seen | Unseen]  # by kind; of every kind
    words: Words = field(default_factory=dict)
    gone: frozenset[str] = frozenset()  # ids that were deleted and that the platform goes on listing
    doubt: str = ""  # why nothing can be deleted now

    def objects(self) -> Iterator[tuple[str, Observed]]:
        """Everything seen, ours or not, with its kind."""
        for kind, seen in self.actual.items():
            if isinstance(seen, Seen):
                yield from ((kind, each) for hits in seen.by_fingerprint.values() for each in hits)
                yield from ((kind, each) for each in seen.unstamped.values())

    def ours(self) -> Iterator[tuple[str, Observed]]:
        for kind, each in self.objects():
            if each.stamp and each.stamp.project == self.project and each.id not in self.gone:
                yield kind, each

    @property
    def why_not(self) -> str:
        """Why nothing can be deleted now; empty where something can."""
        unseen = ((kind, seen.why) for kind, seen in self.actual.items() if isinstance(seen, Unseen))
        kind, why = next(unseen, ("", ""))
        return f"nothing is deleted while {kind} cannot be seen: {why}" if kind else self.doubt


def decide(
    desired: Desired, manifests: Desired, kinds: Mapping[str, Kind], holdings: Holdings, policy: Policy
) -> tuple[Deletion, ...]:
    """
    What is deleted, the dependent before what it needs, and then what stays although no manifest wants it.

    `desired` is what is wanted, with what is so because of what stands; `manifests` is what was written.
    """
    standing = found(kinds, holdings)
    asked = {(address.kind, wanted.fingerprint) for address, wanted in desired.items()}
    doomed = {
        key: why for key, each in standing.items() if (why := _unwanted(key[0], each, desired, asked, policy))
    }
    shield, kept = Shield(manifests, holdings.words), dict[Key, str]()
    for key in doomed:
        each = standing[key]
        if (
            why := holdings.why_not
            or shield.over(each)
            or _young(each, policy)
            or _holds(key[0], each, policy)
        ):
            kept[key] = why
    _needed(holdings, standing, doomed, kept)
    goes = [key for key in doomed if key not in kept]
    limit = policy.fuse if policy.fuse is not None else max(LEAST_FUSE, len(standing) // 10)
    if len(goes) > limit and not policy.everything:
        why = f"{BLOWN}{len(goes)} would go, one pass lets {limit} through; look, then say --fuse {len(goes)}"
        kept |= dict.fromkeys(goes, why)
    told = [Deletion(key[0], standing[key], doomed[key], kept.get(key, "")) for key in doomed]
    return tuple(sorted(told, key=_in_order))


def found(kinds: Mapping[str, Kind], holdings: Holdings) -> dict[Key, Observed]:
    """What stands of a project that can be deleted, now or once it has ended."""
    return {(kind, each.id): each for kind, each in holdings.ours() if _ends(kind, each, kinds, holdings)}


def emptied(desired: Desired, kinds: Mapping[str, Kind], holdings: Holdings) -> Iterator[tuple[str, Removal]]:
    """The ids of what nobody wants, is listed, and left behind something that is not."""
    asked = {(address.kind, wanted.fingerprint) for address, wanted in desired.items()}
    for kind, each in holdings.ours():
        unwanted = each.stamp is not None and (kind, each.stamp.fingerprint) not in asked
        left = kinds[kind].removal(each) if unwanted else None
        if left and not _ends(kind, each, kinds, holdings):
            yield each.id, left


def obstacles(
    deletions: Iterable[Deletion], manifests: Desired, holdings: Holdings, *, releases: bool
) -> Iterator[str]:
    """Why a project is not destroyed. `releases` takes channels off the air as well."""
    if holdings.why_not:
        yield holdings.why_not
        return
    shield = Shield(manifests, holdings.words)
    for each in deletions:
        if why := shield.over(each.observed):
            yield f"{each.observed.id}: {why}"
        elif each.kind == "PromotionRule" and not releases:
            yield f"{each.observed.id} is on the air, with {each.observed.body['model']}; say --releases to take it off"


def _ends(kind: str, each: Observed, kinds: Mapping[str, Kind], holdings: Holdings) -> bool:
    """Whether there is anything of it to delete, now or once it has ended."""
    if each.state is State.WORKING:
        return True
    removal, models = kinds[kind].removal(each), holdings.actual.get("Model")
    if removal and removal.collection == kinds["Model"].collection and isinstance(models, Seen):
        return removal.id in models.unstamped  # a job stays listed when its model is gone
    return removal is not None


def _young(each: Observed, policy: Policy) -> str:
    """Why something is too new to go by itself; empty where it is not."""
    if each.created_at < policy.before:
        return ""
    return "made lately, perhaps by a pull request that is open; prune_after says how long such things stay"


def _unwanted(kind: str, each: Observed, desired: Desired, asked: Collection[Key], policy: Policy) -> str:
    """Why nobody wants it; empty where somebody does. `asked` are the kinds and fingerprints that are wanted."""
    assert each.stamp is not None  # or it would not be ours
    if policy.everything:
        return f"made for {each.stamp.address}"
    if (kind, each.stamp.fingerprint) in asked:
        return ""
    if Address.parse(each.stamp.address) not in desired:
        return f"no manifest wants {each.stamp.address}"
    return f"an old version of {each.stamp.address}" if policy.superseded else ""


def _holds(kind: str, each: Observed, policy: Policy) -> str:
    """What keeps it of itself."""
    if policy.everything:
        return ""
    if kind == "PromotionRule":
        return f"applications may call {each.id}; a channel goes with `reconciler destroy` alone"
    return "it still works; it can go when it has ended" if each.state is State.WORKING else ""


def _needed(
    holdings: Holdings, standing: Mapping[Key, Observed], doomed: Mapping[Key, str], kept: dict[Key, str]
) -> None:
    """Add to `kept` what something that stays needs, and what that needs in turn."""
    named = {name: key for key in doomed for name in names(standing[key])}
    needs = {
        (kind, each.id): {named[t] for t in texts(each.body) if t in named} - {(kind, each.id)}
        for kind, each in holdings.objects()
        if not _is_left(kind, each, named)
    }
    inert = {(kind, each.id) for kind, each in holdings.ours()} - standing.keys()
    inert |= {(kind, each.id) for kind, each in holdings.objects() if each.id in holdings.gone}
    stays = [key for key in needs if key not in inert and (key not in doomed or key in kept)]
    stamps = {(kind, each.id): each.stamp for kind, each in holdings.objects()}
    while stays:
        key = stays.pop()
        for need in needs[key] - kept.keys():
            kept[need] = _say(*key, stamps[key], holdings.project)
            stays.append(need)


def _is_left(kind: str, each: Observed, named: Mapping[str, Key]) -> bool:
    """Whether it is the very model that one of the doomed left behind."""
    return kind == "Model" and each.id in named


def names(each: Observed) -> Iterable[str]:
    return filter(None, (each.id, each.body.get("fine_tuned_model")))


def _say(kind: str, id: str, stamp: Stamp | None, project: str) -> str:
    whose = f" of the project {stamp.project}" if stamp and stamp.project != project else ""
    if kind == "PromotionRule":
        return f"release {id}{whose} leads to it, or led to it before"
    return f"{stamp.address if stamp else kind}{whose} needs it ({id})"


def texts(value: Any) -> Iterator[str]:
    """Every text in an object; of an object's keys none."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one


def _in_order(each: Deletion) -> tuple[bool, int, float, str]:
    rank = ORDER.index(each.kind) if each.kind in ORDER else len(ORDER)
    return bool(each.kept), rank, -each.observed.created_at, each.observed.id
