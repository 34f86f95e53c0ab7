"""
What a branch changes: a plan against what every address stood for at another commit. Pure.

A plan by itself explains only what it would make. Here everything that differs is explained, also what
stands already because it was built before.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from reconciler import plan as planning
from reconciler.kind import Action
from reconciler.plan import DIGEST, Plan, Remembered, Step
from reconciler.resource import Address, Desired, Wanted


@dataclass(frozen=True)
class Removed:
    """A resource that is wanted no more; `now` is the one that asks for the same under another name."""

    address: Address
    where: str
    now: Address | None = None


@dataclass(frozen=True)
class Compared:
    """A plan, step by step explained against a base."""

    plan: Plan
    shown: tuple[Step, ...]  # what acts, waits, is blocked, or differs from the base
    removed: tuple[Removed, ...]
    renamed: Mapping[Address, Address]  # what stands under a new name, by that name
    unblocks: Mapping[Address, tuple[Address, ...]]  # what waits for what is made
    known: frozenset[Address] = frozenset()  # what the base has too


def compare(plan: Plan, base: Desired) -> Compared:
    """Every step of a plan against what its address stood for in `base`."""
    memory = remembered(base)
    bare = (replace(step, replaces=None, changes=(), rows=None) for step in plan.steps)
    steps = tuple(planning.explain(step, memory.get(step.address)) for step in bare)
    explained = replace(plan, steps=steps)
    wanted = {step.address: step.wanted for step in steps}
    before = {each.fingerprint: address for address, each in base.items()}
    new = {each.fingerprint: address for address, each in wanted.items() if address not in base}
    removed = tuple(
        Removed(address, each.where, new.get(each.fingerprint))
        for address, each in base.items()
        if address not in wanted and not each.implied
    )
    renamed = {
        address: before[print_]
        for print_, address in new.items()
        if print_ in before and before[print_] not in wanted
    }
    shown = tuple(step for step in steps if _is_shown(step, base))
    return Compared(explained, shown, removed, renamed, dict(_unblocked(steps)), frozenset(base))


def remembered(base: Desired) -> dict[Address, Remembered]:
    """What every address stood for, as a plan explains changes by."""
    return {
        address: Remembered(each.fingerprint, each.content, each.facts.get("row_digests", b""))
        for address, each in base.items()
    }


def gone_lines(before: bytes, after: bytes) -> tuple[int, ...]:
    """The 1-based lines of the old file whose rows the new one lacks."""
    old = [before[i : i + DIGEST] for i in range(0, len(before), DIGEST)]
    left = Counter(old) - Counter(after[i : i + DIGEST] for i in range(0, len(after), DIGEST))
    return tuple(n for n, row in enumerate(old, start=1) if left[row] > 0 and not left.subtract([row]))


def _is_shown(step: Step, base: Desired) -> bool:
    if step.action is not Action.KEEP or step.decision.duplicates or step.replaces:
        return True
    return step.address not in base and not _is_implied(step.wanted)


def _is_implied(wanted: Wanted) -> bool:
    return wanted.implied or wanted.address.kind == "Project"


def _unblocked(steps: tuple[Step, ...]) -> Iterator[tuple[Address, tuple[Address, ...]]]:
    waiting: dict[Address, list[Address]] = {}
    for step in steps:
        for address in step.after:
            waiting.setdefault(address, []).append(step.address)
    return ((address, tuple(each)) for address, each in waiting.items())
