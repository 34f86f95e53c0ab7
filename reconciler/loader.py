"""
A folder of YAML, or one file of it, as documents that know where they were written.

Every `.yaml` and `.yml` file below the root is ours and is read; only hidden names, `releases/`,
kustomize's own file and trees inside the tree are passed over: where the root has its Project in a
`project.yaml`, a folder below that has one too is another project. Nothing outside the root is read,
whatever links say. The line of a single field is looked up when somebody asks, by reading its file again:
almost nobody does.
"""

import difflib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from reconciler import yamlsafe
from reconciler.errors import ManifestError, Problem
from reconciler.resource import API_VERSION, NAME
from reconciler.variables import Variables
from reconciler.yamlsafe import shown

FieldPath = tuple[str | int, ...]
Flaws = Iterator[tuple[FieldPath, str]]

SUFFIXES = (".yaml", ".yml")
_PASSED_OVER = {"kustomization.yaml", "kustomization.yml", "releases"}
_PROJECT_FILES = {"project.yaml", "project.yml"}
_PROJECT = re.compile(rb"^kind:[ \t]+[\"']?Project\b", re.MULTILINE)
_ENVELOPE = ("apiVersion", "kind", "metadata", "spec")
_METADATA = ("name", "labels", "annotations")


class FileStamp(NamedTuple):
    """Which file was read, and in what state: the same stamp means the same content."""

    path: str
    size: int  # bytes
    mtime_ns: int
    inode: int


@dataclass(frozen=True)
class Document:
    """One manifest as it was written; `body` is all of it, `file` as a person would type it."""

    kind: str
    name: str
    body: dict[str, Any]
    file: str
    line: int

    def where(self, *path: str | int) -> str:
        """`file:line` of the field at `path`, or of the nearest field around it."""
        return f"{self.file}:{self.line_of(*path)}"

    def line_of(self, *path: str | int) -> int:
        return _nearest(self.lines, path) or self.line

    @cached_property
    def lines(self) -> Mapping[FieldPath, int]:
        """The line of every field, by its path; empty when the file has changed since."""
        try:
            return _field_lines(Path(self.file).read_bytes()).get(self.line, {})
        except (OSError, yaml.YAMLError):
            return {}


@dataclass(frozen=True)
class Tree:
    """What a folder of manifests holds."""

    root: Path
    documents: list[Document]
    files: list[FileStamp]


def load_tree(root: Path) -> Tree:
    """Every document below `root`. Raises ManifestError with all problems of all files."""
    tree, problems = read_tree(root)
    if problems:
        raise ManifestError(problems)
    return tree


def read_tree(
    root: Path,
    environment: Mapping[str, str] = os.environ,
    read: Callable[[FileStamp], tuple[list[Document], list[Problem]]] | None = None,
) -> tuple[Tree, list[Problem]]:
    """
    Every document below `root` that can be used, its variables put in, and what is wrong with the others.

    `read` is `read_file`, or somebody who remembers what it said.
    """
    files, problems = walk(root)
    documents: list[Document] = []
    for file in files:
        found, wrong = (read or read_file)(file)
        documents += found
        problems += wrong
    project = next((each for each in documents if each.kind == "Project"), None)
    if project is None:
        return Tree(root, documents, files), problems
    variables = Variables.of(project.body, environment)
    problems += [Problem(project.where("spec", "variables"), what) for what in variables.undeclared()]
    if variables.declared:
        for index, each in enumerate(documents):
            documents[index] = replace(each, body=variables.within(each.body))
            problems += [Problem(each.where(*at), what) for at, what in variables.taken()]
    return Tree(root, documents, files), problems


def walk(root: Path) -> tuple[list[FileStamp], list[Problem]]:
    """
    The files below `root` that hold manifests, in the order of their names.

    None is opened but a `project.yaml` below the root: the name alone must not make a folder disappear.
    """
    if root.is_file() and root.suffix in SUFFIXES:
        return [_stamp(str(root), root.stat())], []
    if not root.is_dir():
        what = "this is a file; name the folder that holds it" if root.exists() else "no such folder"
        return [], [Problem(typed(root), what)]
    problems: list[Problem] = []
    stamps: list[FileStamp] = []
    links: list[str] = []
    for entry in _entries(root, problems, alone=not _holds_project(root)):
        if entry.is_symlink():
            links.append(entry.path)
        elif entry.is_file():
            stamps.append(_stamp(entry.path, entry.stat()))
        else:
            problems.append(Problem(typed(entry.path), "this is not a plain file"))
    read = {stamp.inode for stamp in stamps}
    top = root.resolve()
    for link in links:
        try:
            found = _linked(Path(link), top)
        except ValueError as bad:
            problems.append(Problem(typed(link), str(bad)))
            continue
        if found.inode not in read:  # otherwise its target is read under its own name
            read.add(found.inode)
            stamps.append(found)
    return sorted(stamps), problems


def read_file(file: FileStamp) -> tuple[list[Document], list[Problem]]:
    """The documents of one file that can be used, and what is wrong with the others."""
    if file.size > yamlsafe.MAX_BYTES:  # before a byte of it is in memory
        return [], [Problem(f"{file.path}:1", yamlsafe.TOO_BIG)]
    try:
        data = Path(file.path).read_bytes()
    except OSError as bad:
        return [], [Problem(f"{file.path}:1", f"the file cannot be read: {bad.strerror}")]
    pages, flaws = yamlsafe.parse(data)
    problems = [Problem(f"{file.path}:{flaw.line}", flaw.what) for flaw in flaws]
    documents: list[Document] = []
    for value, line in pages:
        wrong = list(_envelope_flaws(value))
        if not wrong:
            documents.append(Document(value["kind"], value["metadata"]["name"], value, file.path, line))
        elif not flaws:  # otherwise what was refused above may be all there is to it
            lines = _field_lines(data).get(line, {})
            problems += [
                Problem(f"{file.path}:{_nearest(lines, path) or line}", what) for path, what in wrong
            ]
    return documents, problems


def inside(root: Path, folder: Path, text: str) -> Path:
    """The file that a manifest in `folder` names. Raises ValueError where it would leave `root`."""
    path = folder / text
    if Path(text).is_absolute():
        raise ValueError(f"{text} is absolute; name a file relative to the manifest")
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{text} leads out of the manifest folder; keep the file inside it")
    return path


def did_you_mean(word: str, options: Iterable[str]) -> str | None:
    """The option that `word` is most likely a slip of. Pure."""
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(word.lower()[:100], by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def _entries(folder: Path | str, problems: list[Problem], *, alone: bool) -> Iterator[os.DirEntry[str]]:
    """
    Everything below `folder` that is named like a manifest, links not followed.

    Folders with a Project of their own are left out unless the root has none (`alone`).
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as bad:
        problems.append(Problem(typed(folder), f"the folder cannot be read: {bad.strerror}"))
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower() in _PASSED_OVER:
            continue
        if entry.is_dir(follow_symlinks=False):
            if alone or not _holds_project(entry.path):
                yield from _entries(entry.path, problems, alone=alone)
        elif entry.is_symlink() and entry.is_dir():
            problems.append(
                Problem(typed(entry.path), "links to folders are not followed; put the files here")
            )
        elif entry.name.endswith(SUFFIXES):
            yield entry


def _holds_project(folder: Path | str) -> bool:
    """Whether the folder itself has a `project.yaml` with a Project document in it."""
    for name in _PROJECT_FILES:
        path = Path(folder, name)
        if path.is_file() and path.stat().st_size <= yamlsafe.MAX_BYTES and os.access(path, os.R_OK):
            return _PROJECT.search(path.read_bytes()) is not None
    return False


def _linked(link: Path, top: Path) -> FileStamp:
    """The file behind a link. Raises ValueError with a sentence where it is not to be read."""
    target = link.resolve()
    if not target.is_relative_to(top):
        raise ValueError("the link leads out of the manifest folder; put the file here")
    try:
        found = target.stat()
    except OSError:
        raise ValueError("the link leads nowhere; remove it") from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("this is not a plain file")
    return _stamp(str(link), found)


def _stamp(path: str, found: os.stat_result) -> FileStamp:
    return FileStamp(typed(path), found.st_size, found.st_mtime_ns, found.st_ino)


def typed(path: Path | str) -> str:
    """`path` as a person who stands in the working folder would type it."""
    here = os.getcwd() + os.sep
    return os.path.normpath(path).removeprefix(here)


def _envelope_flaws(value: Any) -> Flaws:
    """What is wrong with a document around its spec. Pure."""
    if not isinstance(value, dict):
        yield (), f"a document is a mapping of {', '.join(_ENVELOPE)}"
        return
    yield from _unknown((), value, _ENVELOPE)
    if "apiVersion" not in value:
        yield (), f"apiVersion is missing; every manifest starts with apiVersion: {API_VERSION}"
    elif value["apiVersion"] != API_VERSION:
        yield ("apiVersion",), f"apiVersion is {shown(value['apiVersion'])}, this version reads {API_VERSION}"
    kind = value.get("kind")
    if not isinstance(kind, str) or not kind:
        yield (("kind",), "kind must be text") if "kind" in value else ((), "kind is missing")
    if not isinstance(value.get("spec", {}), dict | None):
        yield ("spec",), "spec must be a mapping"
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        yield (
            (("metadata",), "metadata must be a mapping")
            if "metadata" in value
            else ((), "metadata is missing")
        )
        return
    yield from _unknown(("metadata",), metadata, _METADATA)
    name = metadata.get("name")
    if name is None:
        yield ("metadata",), "metadata.name is missing"
    elif not isinstance(name, str) or not NAME.fullmatch(name):
        yield (
            ("metadata", "name"),
            f"the name {shown(name)} is not usable; write up to 63 of a-z, 0-9, - and .",
        )
    for field in ("labels", "annotations"):
        yield from _text_flaws(field, metadata.get(field))


def _text_flaws(field: str, value: Any) -> Flaws:
    if value is not None and not isinstance(value, dict):
        yield ("metadata", field), f"metadata.{field} must be a mapping"
        return
    for key, text in (value or {}).items():
        if not isinstance(text, str):
            yield ("metadata", field, key), f"metadata.{field}.{shown(key)} must be text; put it in quotes"


def _unknown(path: FieldPath, value: dict[str, Any], known: tuple[str, ...]) -> Flaws:
    for key in value:
        if key not in known:
            name = ".".join([*map(str, path), key])
            meant = did_you_mean(key, known)
            advice = f"did you mean {meant}" if meant else f"it may hold {', '.join(known)}"
            yield (*path, key), f"unknown field {shown(name)}; {advice}"


def _nearest(lines: Mapping[FieldPath, int], path: FieldPath) -> int | None:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def _field_lines(data: bytes) -> dict[int, dict[FieldPath, int]]:
    """By the line a document starts on: the line of every field in it. Raises yaml.YAMLError."""
    pages: dict[int, dict[FieldPath, int]] = {}
    found: dict[FieldPath, int] = {}
    path: list[Any] = []  # "" waits for a key
    for event in yamlsafe.events(data):
        kind = type(event)
        if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            path.pop()
        elif issubclass(kind, yaml.NodeEvent):
            line = event.start_mark.line + 1
            if not path:
                found = pages.setdefault(line, {})
            elif path[-1] == "":
                path[-1] = getattr(event, "value", None) or "?"
                found[tuple(path)] = line
                continue
            found.setdefault(tuple(path), line)
            if kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                path.append("" if kind is yaml.MappingStartEvent else 0)
                continue
        else:
            continue
        if path:
            path[-1] = "" if isinstance(path[-1], str) else path[-1] + 1
    return pages
