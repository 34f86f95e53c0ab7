"""
What would be done, and why: desired against actual, in dependency order. Pure.

The engine acts on exactly these steps, so a plan cannot say one thing and an apply do another.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from reconciler import adoption, supersede
from reconciler.fingerprint import dotted
from reconciler.kind import Action, Decision, Kind, Needs, Observed, Seen, Unseen
from reconciler.resource import LEFT_OUT, Address, Desired, Wanted

Actual = Mapping[str, Seen | Unseen]  # by kind
DIGEST = 8  # bytes of every row's digest


class Remembered(NamedTuple):
    """What an address stood for when it was last applied."""

    fingerprint: str
    content: Mapping[str, Any]
    row_digests: bytes = b""


class Change(NamedTuple):
    """One field that differs from what was last applied. `at` is its JSON pointer."""

    at: str
    before: Any
    after: Any

    @property
    def field(self) -> str:
        return dotted(self.at)

    @property
    def ref(self) -> str | None:
        """The resource whose change this is, if the field refers to one."""
        return next((v["ref"] for v in (self.after, self.before) if isinstance(v, dict) and "ref" in v), None)


class RowChanges(NamedTuple):
    """How the rows of a dataset differ. `lines` are 1-based lines of the new file."""

    added: int
    removed: int
    changed: int
    lines: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One resource, what is to be done about it, and why."""

    wanted: Wanted
    decision: Decision
    after: tuple[Address, ...] = ()  # what has to stand first
    replaces: str | None = None  # the fingerprint that this address stood for
    changes: tuple[Change, ...] = ()
    rows: RowChanges | None = None
    notes: tuple[str, ...] = ()  # what to know before anything is spent

    @property
    def address(self) -> Address:
        return self.wanted.address

    @property
    def action(self) -> Action:
        return self.decision.action


Guard = Callable[[Step], Decision | None]  # what stops a step that would act; None lets it act


class Deletion(NamedTuple):
    """One object that no manifest wants; `kept` says why it stays all the same, and is empty where it goes."""

    kind: str
    observed: Observed
    why: str
    kept: str = ""


@dataclass(frozen=True)
class Plan:
    steps: tuple[Step, ...]
    counts: Counter[Action] = field(default_factory=Counter)
    deletions: tuple[Deletion, ...] = ()  # in the order in which they are done

    def pruned(self, deletions: tuple[Deletion, ...]) -> "Plan":
        """The plan with what is deleted behind it."""
        goes = sum(1 for each in deletions if not each.kept)
        return replace(self, counts=self.counts + Counter({Action.DELETE: goes}), deletions=deletions)

    @property
    def pending(self) -> bool:
        """Whether an apply would change anything."""
        acts = any(self.counts[action] for action in (Action.CREATE, Action.UPDATE, Action.DELETE))
        return acts or any(step.decision.duplicates for step in self.steps)

    @property
    def replaced(self) -> int:
        return sum(1 for step in self.steps if step.action is Action.CREATE and step.replaces)


def make(
    desired: Desired,
    kinds: Mapping[str, Kind],
    actual: Actual,
    evidence: Mapping[Address, Any],
    memory: Mapping[Address, Remembered],
    guards: Sequence[Guard] = (),
) -> Plan:
    """Every resource's step, needs before the needing."""
    steps: dict[Address, Step] = {}
    ready: dict[Address, Observed] = {}
    asked = {wanted.fingerprint for wanted in desired.values()}
    for wanted in desired.values():
        kind = kinds[wanted.address.kind]
        step = decide(wanted, kind, actual, ready, steps, evidence.get(wanted.address), asked, guards)
        if step.action is Action.KEEP and step.decision.observed:
            ready[wanted.address] = step.decision.observed
        if step.action in (Action.CREATE, Action.UPDATE) or kind.collection is None:
            step = explain(step, memory.get(wanted.address))
            if step.decision.evidence is None and step.decision.body is None:
                step = replace(step, notes=tuple(kind.foresee(wanted, desired)))
        steps[wanted.address] = step
    return Plan(tuple(steps.values()), Counter(step.action for step in steps.values()))


def decide(
    wanted: Wanted,
    kind: Kind,
    actual: Actual,
    ready: Needs,
    steps: Mapping[Address, Step],
    evidence: Any,
    asked: Collection[str],
    guards: Sequence[Guard] = (),
) -> Step:
    """
    One resource's step, given those of everything it needs. Where it would act, every guard has to let it.

    `asked` are the fingerprints that any resource wants.
    """
    step = _unguarded(wanted, kind, actual, ready, steps, evidence, asked)
    if step.action in (Action.CREATE, Action.UPDATE):
        for guard in guards:
            if stopped := guard(step):
                return replace(step, decision=stopped)
    return step


def _unguarded(
    wanted: Wanted,
    kind: Kind,
    actual: Actual,
    ready: Needs,
    steps: Mapping[Address, Step],
    evidence: Any,
    asked: Collection[str],
) -> Step:
    seen = actual.get(kind.name, Seen())
    if isinstance(seen, Unseen):
        return Step(wanted, Decision(Action.BLOCK, f"cannot be seen now: {seen.why}"))
    decision = kind.decide(wanted, seen, ready, evidence)
    if wanted.adopts and decision.action is Action.CREATE and not kind.measures:
        return Step(wanted, Decision(Action.BLOCK, adoption.lacking(wanted, kind, seen)))
    if LEFT_OUT in wanted.facts:
        decision = replace(decision, duplicates=())
    decision = supersede.decide(wanted, kind.noun, seen, decision, asked)
    waiting = tuple(dict.fromkeys(_waiting(wanted, ready, steps)))
    if decision.action is Action.KEEP and decision.observed is None:
        return Step(wanted, decision, waiting)  # a pure value, which is not known before what it needs
    if decision.action not in (Action.CREATE, Action.UPDATE) or not waiting or decision.body is not None:
        return Step(wanted, decision)
    stuck = next((address for address in waiting if steps[address].action is Action.BLOCK), None)
    if stuck:
        halt = steps[stuck].decision.halt
        return Step(
            wanted, Decision(Action.BLOCK, f"waits for {stuck}", decision.observed, halt=halt), waiting
        )
    return Step(wanted, decision, waiting)


def _waiting(wanted: Wanted, ready: Needs, steps: Mapping[Address, Step]) -> Iterator[Address]:
    """What has to stand first; in place of a pure value, what that one waits for."""
    for need in wanted.needs:
        if need.address not in ready:
            step = steps[need.address]
            yield from step.after if step.action is Action.KEEP else (need.address,)


def explain(step: Step, before: Remembered | None) -> Step:
    """The step with what differs from what its address stood for, if anything does."""
    wanted = step.wanted
    if before is None or before.fingerprint == wanted.fingerprint:
        return step
    old, new = before.content, wanted.content
    changes = tuple(
        Change(at, old.get(at), new.get(at))
        for at in sorted(old.keys() | new.keys())
        if old.get(at) != new.get(at)
    )
    digests = wanted.facts.get("row_digests")
    rows = compare_rows(before.row_digests, digests) if digests and before.row_digests else None
    return replace(step, replaces=before.fingerprint, changes=changes, rows=rows)


def compare_rows(before: bytes, after: bytes) -> RowChanges:
    """Two files' rows by their digests: changed in place where the counts agree, added and removed otherwise."""
    old = [before[i : i + DIGEST] for i in range(0, len(before), DIGEST)]
    new = [after[i : i + DIGEST] for i in range(0, len(after), DIGEST)]
    if len(old) == len(new):
        lines = tuple(n for n, (a, b) in enumerate(zip(old, new, strict=True), start=1) if a != b)
        if len(lines) <= len(new) // 2:
            return RowChanges(0, 0, len(lines), lines)
    gone = Counter(old) - Counter(new)
    came = Counter(new) - Counter(old)
    left = came.copy()
    lines = tuple(n for n, row in enumerate(new, start=1) if left[row] > 0 and not left.subtract([row]))
    return RowChanges(came.total(), gone.total(), 0, lines)
