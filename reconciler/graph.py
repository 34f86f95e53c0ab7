"""
From manifests to one desired state: references resolved, fingerprints known, in dependency order.

Everything wrong is found in one go: a broken resource takes the resources that need it along in
silence, and everything else is still checked. Pure but for what kinds read of their own files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from reconciler import adoption, complaints, fingerprint
from reconciler.errors import ManifestError, Problem
from reconciler.kind import Kind
from reconciler.known import Judged, Known, Resolving
from reconciler.loader import did_you_mean
from reconciler.resource import Address, Desired, Need, Wanted


class Manifest(Protocol):
    """One YAML document, as the loader gives it."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def body(self) -> dict[str, Any]: ...
    @property
    def file(self) -> str: ...
    @property
    def line(self) -> int: ...

    def where(self, *path: str | int) -> str:
        """`path:line` of a field, or of its nearest ancestor."""


@dataclass
class _Node:
    address: Address
    kind: Kind
    spec: Any
    body: dict[str, Any]
    manifest: Manifest
    judged: Judged | None = None
    implied: bool = False
    needs: list[Need] = field(default_factory=list)

    def where(self, *at: str | int) -> str:
        return self.manifest.where(*at) if self.implied else self.manifest.where("spec", *at)


def resolve(
    manifests: Iterable[Manifest], kinds: Mapping[str, Kind], root: Path, known: Known | None = None
) -> Desired:
    """The desired state of the tree below `root`. Raises ManifestError with all problems."""
    desired, problems = resolve_part(manifests, kinds, root, known)
    if problems:
        raise ManifestError(problems)
    return desired


def resolve_part(
    manifests: Iterable[Manifest], kinds: Mapping[str, Kind], root: Path, known: Known | None = None
) -> tuple[Desired, list[Problem]]:
    """As much of the desired state as can be resolved, and all that is wrong with the rest."""
    problems: list[Problem] = []
    before = (known or Known()).resolving(root)
    nodes = _validate(manifests, kinds, problems, before)
    for node in list(nodes.values()):
        _imply(node, nodes, kinds, before)
    for node in nodes.values():
        _connect(node, nodes, kinds, problems)
    _own(nodes, problems)
    order = _order(nodes, problems)
    desired: Desired = {}
    for node in order:
        if all(need.address in desired for need in node.needs):
            needs = tuple(dict.fromkeys(node.needs))
            if same := before.wanted(node.address, node.manifest, node.body, needs):
                desired[node.address] = same
                continue
            try:
                wanted = _wanted(node, desired, root)
                found = list(node.kind.check(wanted, node.spec, desired))
            except ManifestError as error:
                found = list(error.problems)
            if found:
                problems += found
            else:
                desired[node.address] = wanted
                assert node.judged is not None  # or it would have no spec
                before.learn(node.manifest, node.judged, wanted)
    before.keep()
    return desired, problems


def _validate(
    manifests: Iterable[Manifest], kinds: Mapping[str, Kind], problems: list[Problem], before: Resolving
) -> dict[Address, _Node]:
    nodes: dict[Address, _Node] = {}
    for manifest in manifests:
        address = Address(manifest.kind, manifest.name)
        if manifest.kind not in kinds:
            problems.append(
                Problem(
                    manifest.where("kind"), f"no kind is named {manifest.kind}{_near(manifest.kind, kinds)}"
                )
            )
            continue
        if address in nodes:
            first = nodes[address].manifest
            problems.append(
                Problem(
                    manifest.where("metadata", "name"),
                    f"{address} is declared already, in {first.file}:{first.line}",
                )
            )
            continue
        kind = kinds[manifest.kind]
        body = manifest.body.get("spec") or {}
        if not isinstance(body, dict):
            problems.append(Problem(manifest.where("spec"), "spec must be a mapping"))
            continue
        try:
            judged = before.judged(address, manifest, body) or _judged(kind, body)
        except ValidationError as error:
            problems += complaints.sentences(error, manifest.where, body, kind)
            nodes[address] = _Node(address, kind, None, body, manifest)
            continue
        nodes[address] = _Node(address, kind, judged.spec, body, manifest, judged)
    projects = [node for node in nodes.values() if node.address.kind == "Project"]
    for extra in projects[1:]:
        first = projects[0].manifest
        problems.append(
            Problem(extra.where(), f"a tree has one Project, and {first.file}:{first.line} declares it")
        )
    return nodes


def _judged(kind: Kind, body: Mapping[str, Any]) -> Judged:
    """The spec in a body, with its references. Raises pydantic's ValidationError."""
    spec = kind.parse(body)
    leaves = fingerprint.walk(spec, cosmetic=True)
    return Judged(spec, tuple(leaf for leaf in leaves if leaf.ref and leaf.value is not None))


def _imply(node: _Node, nodes: dict[Address, _Node], kinds: Mapping[str, Kind], before: Resolving) -> None:
    if node.spec is None:
        return

    def find(address: Address) -> Any:
        return nodes[address].spec if address in nodes else None

    for address, body in node.kind.implies(node.spec, find):
        node.needs.append(Need(f"{address}", address))
        if address not in nodes:
            kind = kinds[address.kind]
            body = body | ({"suspend": True} if getattr(node.spec, "suspend", False) else {})
            try:
                judged = before.judged(address, node.manifest, body) or _judged(kind, body)
            except ValidationError:
                judged = None  # the eval says no dataset or no prompt; told below
            spec = judged.spec if judged else None
            nodes[address] = _Node(address, kind, spec, body, node.manifest, judged, implied=True)
        elif nodes[address].implied and not getattr(node.spec, "suspend", False):
            nodes[address].body.pop("suspend", None)  # another rule wants it now


def _connect(
    node: _Node, nodes: Mapping[Address, _Node], kinds: Mapping[str, Kind], problems: list[Problem]
) -> None:
    if node.spec is None:
        if node.implied:
            asks = "prompt" in node.body or "item_reference" in node.body
            lacking = (
                "dataset" if "dataset" not in node.body else "",
                "" if asks else "prompt or item_reference",
            )
            lacks = " and ".join(filter(None, lacking))
            what = f"{node.body['eval']} has no {lacks}, which the runs that this rule needs must use"
            problems.append(Problem(node.where("spec", "gates"), what))
        return
    broken = False
    for at, value, ref, counts in node.judged.refs if node.judged else ():
        try:
            assert ref is not None  # of all that refers
            address = ref.address(value)
        except ValueError as error:
            what = f"{fingerprint.dotted(fingerprint.pointer(at))}: {error}"
            problems.append(Problem(node.where(*at), what))
            broken = True
            continue
        if address is None:
            continue
        if address not in nodes:
            if not node.implied:
                names = [
                    str(known) for known in nodes if known.kind in ref.kinds and not nodes[known].implied
                ]
                problems.append(
                    Problem(node.where(*at), f"there is no {address}{_near(str(address), names)}")
                )
            broken = True
        elif counts:
            node.needs.append(Need(fingerprint.dotted(fingerprint.pointer(at)), address))
    if broken:
        node.spec = None


def _own(nodes: Mapping[Address, _Node], problems: list[Problem]) -> None:
    owners: dict[str, Address] = {}
    for address, node in nodes.items():
        if node.spec is not None and (owned := node.kind.owns(node.spec)):
            owner = owners.setdefault(owned, address)
            if owner != address:
                problems.append(Problem(node.where(), f"the {owned} is {owner}'s already; choose another"))


def _order(nodes: Mapping[Address, _Node], problems: list[Problem]) -> list[_Node]:
    """Dependencies first, otherwise as written; a cycle is told once, with its path."""
    done: dict[Address, bool] = {}  # False while being visited
    order: list[_Node] = []

    for start in nodes:
        stack = [(start, iter(nodes[start].needs))] if start not in done else []
        done.setdefault(start, False)
        while stack:
            address, needs = stack[-1]
            need = next((n for n in needs if done.get(n.address) is not True and n.address in nodes), None)
            if need is None:
                stack.pop()
                done[address] = True
                if nodes[address].spec is not None:
                    order.append(nodes[address])
            elif need.address in done:
                path = [a for a, _ in stack]
                cycle = [*path[path.index(need.address) :], need.address]
                problems.append(Problem(nodes[address].where(), f"cycle: {' → '.join(map(str, cycle))}"))
                nodes[address].spec = None
            else:
                done[need.address] = False
                stack.append((need.address, iter(nodes[need.address].needs)))
    return order


def _wanted(node: _Node, desired: Desired, root: Path) -> Wanted:
    identity, facts = node.kind.read(node.spec, root, Path(node.manifest.file).parent, node.where)
    flat = fingerprint.content(node.spec, identity, lambda _, address: desired[address].fingerprint)
    runs = [need.address for need in node.needs if need.field == str(need.address)]  # implied, in gate order
    for index, run in enumerate(dict.fromkeys(runs)):
        flat[fingerprint.pointer(("runs", index))] = {"ref": str(run), "is": desired[run].fingerprint}
    print_ = fingerprint.fingerprint(node.address.kind, flat)
    metadata = node.manifest.body.get("metadata", {})
    return Wanted(
        address=node.address,
        fingerprint=print_,
        content=flat,
        needs=tuple(dict.fromkeys(node.needs)),
        body=node.body,
        facts=facts,
        file=node.manifest.file,
        line=node.manifest.line,
        labels=metadata.get("labels") or {},
        implied=node.implied,
        adopts="" if node.implied else adoption.adopted(metadata.get("annotations") or {}, print_),
    )


def _near(word: str, options: Iterable[str]) -> str:
    options = list(options)
    near = did_you_mean(word, options)
    return f"; did you mean {near}?" if near else f"; there are {', '.join(options[:8])}" if options else ""
