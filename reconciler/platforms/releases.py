"""
Releases as files: what a channel stands for, where git can see it.

Around any platform. On one that has aliases the alias is the release and the file its picture: first what
is about to be written is noted, then the alias moves, then the file. Whoever reads either sees old or new,
and a stop between the two shows as interrupted. Without aliases the file is the release.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from reconciler import picture, release
from reconciler.errors import Busy, Rejected, Unreachable
from reconciler.release import COLLECTION
from reconciler.world import Object, Platform

Objects = list[Object]
TOLD = ("name", "model", "metadata", "release", "state", "canary", "expected_revision")
KEPT = ("model", "metadata", "release", "state", "canary")  # of these an alias consists
HEADER = "# Written by reconciler, which reports every edit as drift. "


def nowhere() -> str | None:
    """The commit of manifests that are in no repository."""
    return None


class WithReleases:
    """A platform whose channels are also files: `<folder>/<channel>.yaml`."""

    def __init__(
        self,
        platform: Platform,
        folder: Path,
        commit: Callable[[], str | None] = nowhere,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._platform = platform
        self._folder = folder
        self._commit = commit
        self._now = now

    @property
    def name(self) -> str:
        return self._platform.name

    @property
    def capabilities(self) -> frozenset[str]:
        return self._platform.capabilities

    def list(self, collection: str, **where: str) -> Objects:
        if collection != COLLECTION:
            return self._platform.list(collection, **where)
        if "aliases" in self.capabilities:
            aliases = [{**each, "file": self._compare(each)} for each in self._platform.list(collection)]
        else:
            files = [path for path in sorted(self._folder.rglob("*.yaml")) if not self._elsewhere(path)]
            aliases = [dict(found) for path in files if (found := self._read(path))]
        return [alias | {"seen_at": self._now()} for alias in aliases]

    def latest(self, collection: str, limit: int, **where: str) -> Sequence[Object]:
        return self._platform.latest(collection, limit, **where)

    def get(self, collection: str, id: str) -> Object | None:
        return self._platform.get(collection, id)

    def content(self, id: str) -> bytes:
        return self._platform.content(id)

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> Object:
        if collection != COLLECTION:
            return self._platform.create(collection, body, key=key)
        asked = self._dated({field: body[field] for field in TOLD if field in body})
        if "aliases" in self.capabilities:
            self._note(asked)
            own = hashlib.sha256(_json(asked).encode()).hexdigest()[
                :16
            ]  # asked again, it may be another move
            try:
                made = dict(self._platform.create(collection, asked, key=f"{key}.{own}"))
            except (Rejected, Busy, Unreachable):  # after Unclear the note says what the file has to become
                self._noted(asked["name"]).unlink(missing_ok=True)
                raise
        else:
            made = self._moved(asked)
        self._put(self._path(made["name"]), _text(made))
        self._noted(made["name"]).unlink(missing_ok=True)
        return made | {"file": release.SAME, "seen_at": self._now()}

    def delete(self, collection: str, id: str) -> None:
        if collection != COLLECTION or "aliases" in self.capabilities:
            self._platform.delete(collection, id)
        if collection == COLLECTION:
            self._path(id).unlink(missing_ok=True)

    def _dated(self, asked: dict[str, Any]) -> dict[str, Any]:
        """With the commit of the manifests in the lineage of what is released for the first time."""
        record = asked.get("release") or {}
        if "commit" in record.get("lineage", {"commit": None}) or (found := self._commit()) is None:
            return asked
        return asked | {"release": record | {"lineage": {"commit": found} | record["lineage"]}}

    def _moved(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What an alias would be after this, where the file is all there is."""
        before = self._read(self._path(asked["name"])) or {"history": [], "created_at": self._now()}
        entry = {field: asked.get(field) or {} for field in ("model", "metadata", "release")}
        last = before["history"][-1] if before["history"] else {}
        same = (last.get("model"), last.get("metadata")) == (entry["model"], entry["metadata"])
        history = before["history"] if same else [*before["history"], entry | {"at": self._now()}]
        return {field: asked.get(field) for field in ("name", *KEPT)} | {
            "created_at": before["created_at"],
            "history": history,
        }

    def _path(self, channel: str) -> Path:
        return self._folder / f"{channel}.yaml"

    def _elsewhere(self, path: Path) -> bool:
        """Whether it belongs to another platform of the project, which has a folder below this one."""
        return any(part.startswith("@") for part in path.relative_to(self._folder).parts)

    def _noted(self, channel: str) -> Path:
        path = self._path(channel)
        return path.with_name(f".{path.name}.moving")

    def _note(self, asked: Mapping[str, Any]) -> None:
        self._put(self._noted(asked["name"]), json.dumps(_kept(asked), sort_keys=True))

    def _compare(self, alias: Mapping[str, Any]) -> str:
        """How the file stands: as it should, or what is wrong with it."""
        path = self._path(alias["name"])
        try:
            text = path.read_text()
        except FileNotFoundError:
            return release.MISSING
        except (OSError, ValueError):
            return f"{path} cannot be read"
        first, _, rest = text.partition("\n")
        both, _, own = first.removeprefix(HEADER).partition(" ")
        if both == _digest(_json(alias), rest) or text == _text(alias):
            return release.SAME
        try:
            if json.loads(self._noted(alias["name"]).read_bytes()) == json.loads(_json(_kept(alias))):
                return release.INTERRUPTED
        except (OSError, ValueError):
            pass  # nothing was under way
        if own == _digest(rest):
            return release.BEHIND
        found = self._read(path)
        if found is None or found["model"] == alias["model"]:
            return f"{path} was edited"
        return f"{path} says {found['model']}, the platform {alias['model']}"

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            return picture.read(yaml.safe_load(path.read_bytes()))
        except (OSError, ValueError, yaml.YAMLError):
            return None

    def _put(self, path: Path, text: str) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            what = f"the release file {path} cannot be written: {error.strerror}; mend that and apply again"
            raise Rejected(what) from None


def _text(alias: Mapping[str, Any]) -> str:
    document = picture.drawn(json.loads(_json(alias)))  # without tuples and what else YAML would mark
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
    return f"{HEADER}{_digest(_json(alias), text)} {_digest(text)}\n{text}"


def _digest(*texts: str) -> str:
    """With its alias: a picture is known without being drawn again. Alone: nobody edited it."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _kept(alias: Mapping[str, Any]) -> dict[str, Any]:
    return {field: alias.get(field) for field in KEPT}


def _json(alias: Mapping[str, Any]) -> str:
    return json.dumps(alias, sort_keys=True)
