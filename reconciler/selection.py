"""
A part of a tree: what somebody names and all that it needs, without what somebody leaves out. Pure.

What is left out stays in sight, because others may need it: where it stands they go on, and where it does not
they wait. What is not chosen is as if it were not declared, so whoever deletes must not look at a part.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from msgspec.structs import replace

from reconciler.errors import ReconcilerError
from reconciler.loader import did_you_mean
from reconciler.resource import ASKED_BESIDE, LEFT_OUT, Address, Desired


class Choice(NamedTuple):
    """What a command is about: patterns of `Kind/name`, as a shell has them."""

    targets: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


ALL = Choice()


def choice(targets: Sequence[str] | None, excludes: Sequence[str] | None) -> Choice:
    """What a command line says."""
    return Choice(tuple(targets or ()), tuple(excludes or ()))


def only(desired: Desired, targets: Sequence[str], excludes: Sequence[str]) -> Desired:
    """
    What matches a target, and what that needs; everything where there is no target. What matches an exclude is marked.

    Raises ReconcilerError, which names a near one, for a pattern that nothing matches.
    """
    chosen = _matching(desired, targets) if targets else set(desired)
    for each in reversed(desired.values()):
        if each.address in chosen:
            chosen |= {need.address for need in each.needs}
    if targets:  # what every command needs to know of a tree
        chosen |= {address for address in desired if address.kind == "Project"}
    _matching(desired, excludes)
    part: Desired = {}
    rest = [wanted.fingerprint for address, wanted in desired.items() if address not in chosen]
    for address, wanted in desired.items():
        if address in chosen:
            if rest and wanted.body.get("on_supersede"):
                wanted = replace(wanted, facts=wanted.facts | {ASKED_BESIDE: rest})
            pattern = next((each for each in excludes if fnmatchcase(str(address), each)), None)
            part[address] = replace(wanted, facts=wanted.facts | {LEFT_OUT: pattern}) if pattern else wanted
    return part


def _matching(desired: Iterable[Address], patterns: Iterable[str]) -> set[Address]:
    found: set[Address] = set()
    for pattern in patterns:
        hits = {address for address in desired if fnmatchcase(str(address), pattern)}
        if not hits:
            near = did_you_mean(pattern, map(str, desired))
            advice = f"; did you mean {near}?" if near else "; write Kind/name, * stands for anything"
            raise ReconcilerError(f"there is no {pattern}{advice}")
        found |= hits
    return found
