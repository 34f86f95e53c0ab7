"""
A folder of manifests as one project: what it wants, and where it keeps its things.

What was resolved is kept in the data folder beside the stamps of every file it was read from, so a
second look at an unchanged tree opens none of them. The cache may be deleted at any time.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from pydantic import ValidationError

from reconciler import __version__, fingerprint, graph, loader
from reconciler.errors import ManifestError, Problem, ReconcilerError
from reconciler.kinds import all_kinds
from reconciler.kinds.project import ProjectSpec
from reconciler.known import Known, Looked
from reconciler.resource import Address, Desired, Wanted
from reconciler.selection import ALL, Choice, only

DATA = ".reconciler"


@dataclass(frozen=True)
class Project:
    """Everything a command needs to know of a tree."""

    root: Path
    name: str
    spec: ProjectSpec
    desired: Desired
    home: Path | None = None  # where what outlives a revision is kept; with the manifests if unset
    whole: bool = True  # whether `desired` is all that is declared, or somebody chose

    @property
    def data(self) -> Path:
        """The data folder: journal, cache, the embedded platform's store. Ignored by git."""
        return (self.home or self.root) / DATA

    def journal_url(self, environment: Mapping[str, str]) -> str:
        """Where the journal is, as SQLAlchemy has it. Raises ReconcilerError when its variable is not set."""
        if self.spec.journal is None:
            return f"sqlite:///{self.data / 'journal.db'}"
        variable = self.spec.journal.url_env
        if not (url := environment.get(variable)):
            raise ReconcilerError(
                f"the journal is at the URL in {variable}, which is not set; set it and run again"
            )
        plain = ("postgres://", "postgresql://")
        return next((f"postgresql+psycopg://{url.removeprefix(p)}" for p in plain if url.startswith(p)), url)

    @property
    def releases(self) -> Path:
        return (self.home or self.root) / "releases"

    @property
    def prunes(self) -> bool:
        """Whether an apply deletes what nobody wants: never what is a part, or is suspended."""
        return self.spec.prune and self.whole and not self.spec.suspend

    def part(self, choice: Choice) -> "Project":
        """The project as far as somebody chose it. Raises ReconcilerError for what it does not have."""
        if choice == ALL:
            return self
        return replace(self, desired=only(self.desired, choice.targets, choice.excludes), whole=False)

    def find(self, text: str) -> Wanted:
        """The resource meant by `Kind/name`. Raises ReconcilerError that names a near one."""
        address = Address.parse(text)
        if address not in self.desired:
            near = loader.did_you_mean(text, map(str, self.desired))
            raise ReconcilerError(f"there is no {text}" + (f"; did you mean {near}?" if near else ""))
        return self.desired[address]


class _Cached(msgspec.Struct):
    made_by: str
    looked: Looked
    desired: list[Wanted]


def load(root: Path, home: Path | None = None, known: Known | None = None) -> Project:
    """
    Read and resolve a tree, or remember it. Raises ManifestError with every problem found.

    `home` keeps the data folder and the releases where the tree itself is one of many revisions. A file in
    place of a folder, such as kustomize writes, is a tree with a home beside it that is called like the file.
    """
    if known and (same := known.project(root)):
        return same
    source, (root, beside) = root, _places(root)
    home = home or beside
    desired = None if known else _remembered(source, home or root)
    if desired is not None:
        return of(root, desired, home)
    began = known.now() if known else time.time_ns()
    tree, problems = read(source, known)
    try:
        desired = graph.resolve(tree.documents, all_kinds(), root, known)
    except ManifestError as error:
        problems += error.problems
    if problems or desired is None:
        raise ManifestError(problems)
    looked, project = Looked.at(source, tree.files, desired.values(), began), of(root, desired, home)
    if known:
        known.last = (looked, project) if looked else None
    elif looked:
        _remember(looked, home or root, desired)
    return project


def read(root: Path, known: Known | None) -> tuple[loader.Tree, list[Problem]]:
    """`loader.read_tree`, or as much of it as is not known."""
    if not known:
        return loader.read_tree(root)
    reading = known.reading(root)
    tree, problems = loader.read_tree(root, read=reading)
    reading.keep()
    return tree, problems


def of(root: Path, desired: Desired, home: Path | None = None) -> Project:
    """The project of a resolved tree. Raises ManifestError where there is none."""
    project = next((wanted for wanted in desired.values() if wanted.address.kind == "Project"), None)
    if project is None:
        what = "no manifest of kind Project here; add one, its name goes on everything that is made"
        raise ManifestError([Problem(str(root), what)])
    return Project(root, project.address.name, ProjectSpec.model_validate(project.body), desired, home)


def outline(root: Path) -> Project:
    """
    A tree, or at least its name and platforms, so that a channel can be moved while manifests are broken.

    Raises ManifestError where not even those can be read.
    """
    try:
        return load(root)
    except ManifestError:
        tree, _ = loader.read_tree(root)
        for each in tree.documents:
            if each.kind == "Project":
                with contextlib.suppress(ValidationError):
                    spec = ProjectSpec.model_validate(each.body.get("spec") or {})
                    folder, home = _places(root)
                    return Project(folder, each.name, spec, {}, home)
        raise


def _places(root: Path) -> tuple[Path, Path | None]:
    """The folder of a tree, and its home where that is another one."""
    return (root.parent, root.parent / root.stem.lstrip(".")) if root.is_file() else (root, None)


def keep(data: Path) -> Path:
    """Make the data folder, invisible to git. Raises OSError."""
    data.mkdir(parents=True, exist_ok=True)
    ignore = data / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return data


def _remembered(root: Path, home: Path) -> Desired | None:
    try:
        cached = msgspec.msgpack.decode((home / DATA / "resolved.cache").read_bytes(), type=_Cached)
    except (OSError, msgspec.MsgspecError):
        return None
    if cached.made_by != _maker() or not cached.looked.stands(root):
        return None
    return {wanted.address: wanted for wanted in cached.desired}


def _remember(looked: Looked, home: Path, desired: Desired) -> None:
    if not (home / DATA).is_dir():
        return
    cached = _Cached(_maker(), looked, list(desired.values()))
    path = home / DATA / "resolved.cache"
    try:
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(msgspec.msgpack.encode(cached))
        temporary.replace(path)
    except OSError:
        pass  # a full disk or a folder we may not write costs the next look some time, and nothing else


def _maker() -> str:
    return f"{__version__}.{fingerprint.ALGORITHM}"
