"""
A kind is one file that knows its schema, how to see, when to act and how to act.

`look` touches the world; `decide` and `ask` are pure. `decide` runs twice, to show and to act, and
sees the same values both times. What a kind makes carries a stamp, so the platform is the state.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from reconciler.errors import Problem
from reconciler.resource import Address, Desired, Spec, Wanted
from reconciler.world import Object, Platform


class State(StrEnum):
    READY = "ready"
    WORKING = "working"
    FAILED = "failed"


STAMPED = ("project", "address", "fingerprint")
PROTECT = "reconciler_protect"  # in the metadata of what nobody may delete


class Stamp(NamedTuple):
    """What we write on everything we make: whose it is and what was asked for."""

    project: str
    address: str
    fingerprint: str
    protect: bool = False  # its manifest said that nobody may delete it

    def metadata(self) -> dict[str, str]:
        named = {f"reconciler_{key}": getattr(self, key) for key in STAMPED}
        return named | ({PROTECT: "true"} if self.protect else {})

    @classmethod
    def read(cls, metadata: Mapping[str, str] | None) -> "Stamp | None":
        known = metadata or {}
        found = [known.get(f"reconciler_{key}") for key in STAMPED]
        if not all(found):
            return None
        project, address, fingerprint = map(str, found)
        return cls(project, address, fingerprint, known.get(PROTECT) == "true")


@dataclass(frozen=True)
class Observed:
    """One object that stands on a platform, as far as we care."""

    id: str
    stamp: Stamp | None
    state: State
    body: Object
    created_at: float = 0.0  # unix seconds
    note: str = ""  # why it failed, how it stands


class Unseen(NamedTuple):
    """A collection that could not be listed this pass; never to be taken for an empty one."""

    why: str


@dataclass(frozen=True)
class Seen:
    """All objects of one kind, found by fingerprint; oldest first."""

    by_fingerprint: Mapping[str, list[Observed]] = field(default_factory=dict)
    unstamped: Mapping[str, Observed] = field(default_factory=dict)  # by id; things we did not make

    @classmethod
    def of(cls, objects: Iterable[Observed], project: str) -> "Seen":
        stamped: dict[str, list[Observed]] = {}
        others: dict[str, Observed] = {}
        for each in sorted(objects, key=lambda o: (o.created_at, o.id)):
            if each.stamp and each.stamp.project == project:
                stamped.setdefault(each.stamp.fingerprint, []).append(each)
            else:
                others[each.id] = each
        return cls(stamped, others)

    def objects(self) -> Iterator[Observed]:
        """Those with a fingerprint of ours, adopted ones included."""
        yield from (each for hits in self.by_fingerprint.values() for each in hits)

    def taking(self, fingerprint: str, observed: Observed) -> "Seen":
        """With an object that we did not make standing for what has this fingerprint."""
        others = {id: each for id, each in self.unstamped.items() if id != observed.id}
        hits = [observed, *self.by_fingerprint.get(fingerprint, [])]
        return Seen({**self.by_fingerprint, fingerprint: hits}, others)

    def adding(self, observed: Observed, project: str) -> "Seen":
        """With an object that was made meanwhile, in place of what it was before."""
        objects = [each for hits in self.by_fingerprint.values() for each in hits]
        others = [each for each in (*objects, *self.unstamped.values()) if each.id != observed.id]
        seen = Seen.of([*others, observed], project)
        for fingerprint, hits in self.by_fingerprint.items():
            for adopted in (each for each in hits if each.id in seen.unstamped):
                seen = seen.taking(fingerprint, adopted)
        return seen


class Action(StrEnum):
    CREATE = "+"
    UPDATE = "~"
    DELETE = "-"
    KEEP = "="
    WAIT = "…"
    BLOCK = "!"


class Halt(StrEnum):
    """What keeps a blocked resource where it is."""

    BROKEN = "broken"  # something has to be mended
    FAILED = "failed"  # a gate says no
    INCONCLUSIVE = "inconclusive"  # a gate cannot tell
    REFUSED = "refused"  # somebody said no
    UNAPPROVED = "unapproved"  # somebody has to say yes
    DRIFT = "drift"  # somebody changed what we made, and we leave it
    SUSPENDED = "suspended"  # its manifest says not now
    LATER = "later"  # this apply leaves it for another one
    FORBIDDEN = "forbidden"  # a policy says no


@dataclass(frozen=True)
class Decision:
    """What to do about one resource, and why; `observed` is what it rests on."""

    action: Action
    why: str = ""
    observed: Observed | None = None
    duplicates: tuple[Observed, ...] = ()  # to be cancelled: made twice by somebody, or wanted no more
    evidence: Any = None  # a kind's own: verdicts, measurements
    body: Mapping[str, Any] | None = None  # what to ask for, where a kind that measures knows it
    halt: Halt = Halt.BROKEN  # of what is blocked
    approval: str | None = None  # what a person has to approve, so that it goes on


class Progress(NamedTuple):
    """How far a working object is. `done` and `total` in the kind's own unit."""

    done: float
    total: float
    text: str
    eta: float | None = None  # seconds


class Ask(NamedTuple):
    """The one request that makes an object."""

    collection: str
    body: dict[str, Any]
    project: str = ""  # that asks, so that no other one's request is taken for this one


class Removal(NamedTuple):
    """The one request that deletes an object, or what it left behind where the object itself has to stay."""

    collection: str
    id: str


Needs = Mapping[Address, Observed]  # what stands ready of what a resource refers to


class Kind:
    """The base of every kind. Subclasses override what differs; the rest is content addressing."""

    name: ClassVar[str]
    Spec: ClassVar[type[Spec]]
    noun: ClassVar[str] = "object"  # what it is called on the platform
    collection: ClassVar[str | None] = None  # None: a pure value, nothing on any platform
    under: ClassVar[str | None] = None  # the kind whose objects hold this collection
    measures: ClassVar[bool] = False  # acts only once `decide` knows the body to ask for

    def read(
        self, spec: Any, root: Path, folder: Path, where: Callable[..., str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        What its local files teach: facts that are identity, and facts that are not.

        `root` is the tree's folder, `folder` the manifest's; `where` answers a field with its `path:line`.
        Raises ManifestError.
        """
        return {}, {}

    def implies(self, spec: Any, find: Callable[[Address], Any]) -> Iterable[tuple[Address, dict[str, Any]]]:
        """
        Resources that a manifest of this kind wants without saying so, and so depends on. Pure.

        `find` answers an address with its spec, or None.
        """
        return ()

    def owns(self, spec: Any) -> str | None:
        """What of a platform no two resources of a tree may hold. Pure."""
        return None

    def check(self, wanted: Wanted, spec: Any, needs: Mapping[Address, Wanted]) -> Iterable[Problem]:
        """What is wrong between a resource and those it refers to."""
        return ()

    def look(self, platform: Platform, project: str, parents: Iterable[Observed] = ()) -> list[Observed]:
        """
        Everything of this kind on the platform. Raises PlatformError; never returns a part.

        Where the platform can tell, what other projects made is left out, unless `project` is empty.
        `parents` are the standing objects of the kind named by `under`, for collections inside others.
        """
        return []

    def bind(self, wanted: Wanted, seen: Seen, desired: Desired) -> list[Wanted]:
        """
        The resource once its kind's objects were seen, behind what more it needs because of them. Pure.

        Its fingerprint stays: what somebody wants does not depend on what stands.
        """
        return [wanted]

    def foresee(self, wanted: Wanted, desired: Desired) -> Iterable[str]:
        """What a reader of the plan should know before anything is spent, in sentences. Pure."""
        return ()

    def decide(self, wanted: Wanted, seen: Seen, needs: Needs, evidence: Any = None) -> Decision:
        """Keep what carries the fingerprint, wait for what works, create what is missing. Pure."""
        hits = seen.by_fingerprint.get(wanted.fingerprint, [])
        if not hits:
            return Decision(Action.CREATE)
        alive = [hit for hit in hits if hit.state is not State.FAILED]
        if not alive:
            return Decision(Action.BLOCK, f"{self.noun} {hits[-1].id} failed: {hits[-1].note}", hits[-1])
        first, *rest = alive
        extra = tuple(hit for hit in rest if hit.state is State.WORKING)
        if first.state is State.WORKING:
            return Decision(Action.WAIT, first.note, first, extra)
        return Decision(Action.KEEP, "", first, extra)

    def gather(self, platform: Platform, wanted: Wanted, needs: Needs) -> Any:
        """Measurements that `decide` rests on, once everything needed is ready; None where there are none."""
        return None

    def ask(self, wanted: Wanted, needs: Needs, stamp: Stamp, decision: Decision) -> Ask:
        """The request that makes it. Pure."""
        raise AssertionError(f"{self.name} makes nothing")

    def observe(self, made: Object) -> Observed:
        """An object of the platform as we see it. Pure."""
        raise AssertionError(f"{self.name} has no objects")

    def removal(self, observed: Observed) -> Removal | None:
        """What can be deleted of an object that has ended; None where nothing can. Pure."""
        return Removal(self.place(observed), observed.id) if self.collection else None

    def asked(self, observed: Observed) -> Object:
        """An object's body in the words of the request that makes one. Pure."""
        return observed.body

    def restamp(self, observed: Observed, stamp: Stamp) -> Ask | None:
        """The request that writes another stamp on an object; None where its platform has no such request. Pure."""
        return None

    def place(self, observed: Observed) -> str:
        """The collection that holds one of its objects. Pure."""
        assert self.collection is not None  # or it would have no objects
        return self.collection

    def cancel(self, platform: Platform, duplicate: Observed) -> None:
        """Stop a duplicate from costing more."""

    def progress(self, platform: Platform, observed: Observed) -> Progress | None:
        """How far a working object is, for a person who waits."""
        return None

    def parse(self, body: Mapping[str, Any]) -> Any:
        """The spec in a manifest's body. Raises pydantic's ValidationError."""
        return self.Spec.model_validate(body)

    def spec(self, wanted: Wanted) -> Any:
        return self.parse(wanted.body)
