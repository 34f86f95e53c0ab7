"""
What was read and resolved before, for those who look at a tree again and again.

A second look costs what has changed: a file is parsed once per content, a manifest validated once, a
dataset scanned once; and what a changed manifest touches is resolved anew. Nothing is kept of what is
broken, of what is not there any more, or of files so young that they could change without our seeing it.
Another checkout of the same tree is the same tree: paths are taken relative to its root.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from reconciler import variables
from reconciler.errors import Problem
from reconciler.fingerprint import Leaf
from reconciler.loader import Document, FileStamp, read_file, typed, walk
from reconciler.resource import Address, Need, Wanted

if TYPE_CHECKING:
    from reconciler.project import Project

YOUNG = 0.05  # seconds; a file written so lately could be written again without its stamp changing
Read = tuple[list[Document], list[Problem]]


class Judged(NamedTuple):
    """A spec that holds, and what it refers to."""

    spec: Any
    refs: tuple[Leaf, ...]


class Looked(NamedTuple):
    """All that a tree was resolved from."""

    root: str
    given: dict[str, str]  # what was said about variables
    files: list[FileStamp]
    inputs: list[FileStamp]

    @classmethod
    def at(cls, root: Path, files: list[FileStamp], desired: Iterable[Wanted], began: int) -> "Looked | None":
        """None where something may change without our seeing it."""
        paths = sorted({path for wanted in desired for path in wanted.facts.get("inputs", ())})
        inputs = [found for found in map(stamp, paths) if found]
        if not aged((*files, *inputs), began):
            return None
        return cls(str(root), variables.given(os.environ), files, inputs)

    def stands(self, root: Path) -> bool:
        """Whether a look would find the same."""
        if (self.root, self.given) != (str(root), variables.given(os.environ)):
            return False
        if not self.files:
            return False  # nothing was read from nothing; somebody put it there
        files, problems = walk(root)
        return not problems and files == self.files and all(stamp(each.path) == each for each in self.inputs)


@dataclass(frozen=True)
class Node:
    """A resource as it was resolved, and the numbers of those it was resolved upon."""

    number: int  # of this resolution; the same resource elsewhere keeps it
    rests: tuple[int, ...]
    document: Document
    body: Mapping[str, Any]
    judged: Judged
    wanted: Wanted
    inputs: tuple[FileStamp, ...]


class Tree(NamedTuple):
    """What a tree was resolved to; `root` begins the path of every file of it."""

    root: str
    nodes: Mapping[Address, Node]


@dataclass
class Known:
    """`now` is unix nanoseconds, of the clock that files are dated with."""

    now: Callable[[], int] = time.time_ns
    files: dict[tuple[str, int, int, int], list[Document]] = field(default_factory=dict)
    trees: tuple[Tree, ...] = ()  # the last two, newest first: a broken tree is resolved whole, and in part
    last: "tuple[Looked, Project] | None" = None
    parsed: int = 0  # files so far
    resolved: int = 0  # resources so far

    def project(self, root: Path) -> "Project | None":
        """The project that a root is, if nothing of it has changed since it was loaded."""
        return self.last[1] if self.last and self.last[0].stands(root) else None

    def reading(self, root: Path) -> "Reading":
        """One look at all files below a root."""
        return Reading(self, f"{typed(root)}{os.sep}", self.now())

    def resolving(self, root: Path) -> "Resolving":
        """One resolution of what they say."""
        return Resolving(self, f"{typed(root)}{os.sep}", self.now())


class Reading:
    """`read_file` for one look; `keep` forgets what was not asked for."""

    def __init__(self, known: Known, root: str, began: int) -> None:
        self._known, self._root, self._began = known, root, began
        self._files: dict[tuple[str, int, int, int], list[Document]] = {}

    def __call__(self, file: FileStamp) -> Read:
        key = (file.path.removeprefix(self._root), *file[1:])
        documents = self._known.files.get(key)
        if documents is None:
            self._known.parsed += 1
            documents, problems = read_file(file)
            if problems or not aged([file], self._began):
                return documents, problems
        elif documents and documents[0].file != file.path:
            documents = [replace(each, file=file.path) for each in documents]
        self._files[key] = documents
        return documents, []

    def keep(self) -> None:
        self._known.files = self._files


class Resolving:
    """What is known of each resource while a tree is resolved again."""

    def __init__(self, known: Known, root: str, began: int) -> None:
        self._known, self._root, self._began = known, root, began
        self._nodes: dict[Address, Node] = {}

    def judged(self, address: Address, manifest: Any, body: Mapping[str, Any]) -> Judged | None:
        """The spec in a manifest, if it was there before."""
        node = self._node(address, manifest)
        return node.judged if node and node.body == body else None

    def wanted(
        self, address: Address, manifest: Any, body: Mapping[str, Any], needs: tuple[Need, ...]
    ) -> Wanted | None:
        """The resource, if nothing has changed that it rests on."""
        node = self._node(address, manifest)
        if node is None or (node.body, node.wanted.needs, node.rests) != (body, needs, self._rests(needs)):
            return None
        if address.kind == "Project" and node.document is not manifest:
            return None  # it remembers the lines of its rules
        moved = node if node.document.file == manifest.file else self._moved(node, manifest)
        if moved is None or any(stamp(each.path) != each for each in moved.inputs):
            return None
        self._nodes[address] = moved
        return moved.wanted

    def learn(self, manifest: Any, judged: Judged, wanted: Wanted) -> None:
        """A resource was resolved, and nothing is wrong with it."""
        self._known.resolved += 1
        inputs = [stamp(path) for path in wanted.facts.get("inputs", ())]
        stamps = tuple(each for each in inputs if each)
        rests = self._rests(wanted.needs)
        if rests is None or len(stamps) < len(inputs) or not aged(stamps, self._began):
            return
        if isinstance(manifest, Document):
            node = Node(self._known.resolved, rests, manifest, wanted.body, judged, wanted, stamps)
            self._nodes[wanted.address] = node

    def keep(self) -> None:
        self._known.trees = (Tree(self._root, self._nodes), *self._known.trees[:1])

    def _rests(self, needs: tuple[Need, ...]) -> tuple[int, ...] | None:
        """The numbers of what is needed; None where one of them may change without our seeing it."""
        found = [self._nodes.get(need.address) for need in needs]
        numbers = tuple(node.number for node in found if node)
        return numbers if len(numbers) == len(found) else None

    def _node(self, address: Address, manifest: Any) -> Node | None:
        """What is known of a manifest that says the same at the same place."""
        for root, nodes in self._known.trees:
            if (node := nodes.get(address)) and isinstance(manifest, Document):
                place = node.document.file.removeprefix(root), node.document.line
                if place == (manifest.file.removeprefix(self._root), manifest.line):
                    return node if node.document.body == manifest.body else None
        return None

    def _moved(self, node: Node, manifest: Document) -> Node | None:
        """The same below another root; None where it is not known what lies where."""
        facts = node.wanted.facts
        before = node.document.file.removesuffix(manifest.file.removeprefix(self._root))

        def there(path: str) -> str:
            return self._root + path.removeprefix(before)

        paths = [*facts.get("inputs", ()), *filter(None, [facts.get("path")])]
        if not all(path.startswith(before) for path in paths):
            return None
        if paths:
            facts = facts | {"path": there(facts["path"]), "inputs": list(map(there, facts["inputs"]))}
        wanted = msgspec.structs.replace(node.wanted, file=manifest.file, facts=facts)
        inputs = tuple(each._replace(path=there(each.path)) for each in node.inputs)
        return replace(node, document=manifest, wanted=wanted, inputs=inputs)


def aged(stamps: Iterable[FileStamp], began: int) -> bool:
    """Whether files were read as their stamps say, by whoever began then (unix nanoseconds). Pure."""
    return all(began - stamp.mtime_ns >= YOUNG * 1e9 for stamp in stamps)


def stamp(path: str) -> FileStamp | None:
    """The stamp of a file; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return FileStamp(path, found.st_size, found.st_mtime_ns, found.st_ino)
