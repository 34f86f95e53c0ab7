"""
What stands while a manifest is broken: its last good version, and everything else as it is now.

A resource is taken from the last good tree when its file is broken, or when what it needs is. Old and new
never mix inside one identity: where an old resource rests on something that has changed since, that is
taken as it was too, and so is all that rests on it. Either the parts fit, or the whole last tree stands.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reconciler import graph, project
from reconciler.errors import ManifestError, Problem
from reconciler.kinds import all_kinds
from reconciler.known import Known
from reconciler.project import Project
from reconciler.resource import Address, Desired, Wanted


@dataclass(frozen=True)
class Loaded:
    """A project to go on with. `kept` stand as they were in an earlier tree, because of `problems`."""

    project: Project
    problems: tuple[Problem, ...] = ()
    kept: tuple[Address, ...] = ()


def load(root: Path, home: Path, last: Project | None, known: Known | None = None) -> Loaded:
    """A tree, with the broken parts of it as they were. Raises ManifestError while there is no last one."""
    try:
        return Loaded(project.load(root, home, known))
    except ManifestError as error:
        if last is None:
            raise
        problems = error.problems
    tree, unread = project.read(root, known)
    files = {file.path for file in tree.files}
    kinds = all_kinds()
    _, wrong = graph.resolve_part(tree.documents, kinds, root, known)
    broken = {_file(each.where) for each in (*unread, *wrong)} & files
    often = Counter(Address(each.kind, each.name) for each in tree.documents)
    whole = [d for d in tree.documents if d.file not in broken and often[Address(d.kind, d.name)] == 1]
    fresh, _ = graph.resolve_part(whole, kinds, root, known)
    missed = any(_file(each.where) not in files for each in unread)  # a folder; who knows what is in it
    gone = {_below(root, file) for file in broken}
    merged = None if missed else merge(fresh, last.desired, set(often), gone, root, last.root)
    if merged is None or not any(address.kind == "Project" for address in merged):
        return Loaded(last, problems, tuple(last.desired))
    kept = tuple(a for a, wanted in merged.items() if fresh.get(a) is not wanted)
    return Loaded(project.of(root, merged, home), problems, kept)


def merge(
    fresh: Desired,
    last: Desired,
    declared: set[Address],
    broken: set[str],
    root: Path,
    before: Path,
) -> Desired | None:
    """
    `fresh` with what it lacks from `last`; None where the two do not fit.

    `declared` is what the tree names, `broken` are its files that say something wrong, below the root.
    """
    lacking = {
        address
        for address, wanted in last.items()
        if address not in fresh and (address in declared or _of_broken(wanted, broken, (root, before)))
    }
    old = _closed(lacking, fresh, last)
    merged = {a: w for a, w in fresh.items() if a not in old} | {a: last[a] for a in last if a in old}
    if any(need.address not in merged for wanted in merged.values() for need in wanted.needs):
        return None
    return _ordered(merged)


def _closed(old: set[Address], fresh: Desired, last: Desired) -> set[Address]:
    """With everything that has to be as it was, so that every identity is of one time."""
    old = set(old)
    while True:
        below = {need.address for address in old for need in last[address].needs}
        changed = {
            a
            for a in below - old
            if a in last and (a not in fresh or fresh[a].fingerprint != last[a].fingerprint)
        }
        taken = old | changed
        moved = {a for a in taken if a in fresh and fresh[a].fingerprint != last[a].fingerprint}
        above = {
            a
            for a, wanted in fresh.items()
            if a not in taken and a in last and any(need.address in moved for need in wanted.needs)
        }
        if taken | above == old:
            return old
        old = taken | above


def _ordered(merged: Desired) -> Desired:
    """In dependency order, otherwise as they come."""
    ordered: Desired = {}
    for each in merged.values():
        stack = [each]
        while stack:
            top = stack[-1]
            need = next((n.address for n in top.needs if n.address not in ordered), None)
            if need is None:
                ordered[stack.pop().address] = top
            else:
                stack.append(merged[need])
    return ordered


def _of_broken(wanted: Wanted, broken: set[str], roots: Iterable[Path]) -> bool:
    return any(_below(root, wanted.file) in broken for root in roots)


def _file(where: str) -> str:
    path, _, line = where.rpartition(":")
    return path if line.isdigit() else where


def _below(root: Path, file: str) -> str:
    """A file's path below the root; the file itself where it is not below."""
    try:
        return str(Path(file).absolute().relative_to(root.absolute()))
    except ValueError:
        return file
