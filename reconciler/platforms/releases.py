"""
Releases as files: what a channel stands for, where git can see it.

Around any platform. One that has aliases moves them first, and the file follows; for one that has
none the file is the release.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from reconciler.errors import Rejected
from reconciler.world import Object, Platform

COLLECTION = "reconciler/aliases"
Objects = list[Object]
API_VERSION = "reconciler/v1"


class WithReleases:
    """A platform whose channels are also files: `<folder>/<channel>.yaml`."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self._platform = platform
        self._folder = folder

    @property
    def name(self) -> str:
        return self._platform.name

    @property
    def capabilities(self) -> frozenset[str]:
        return self._platform.capabilities

    def list(self, collection: str, **where: str) -> Objects:
        if collection != COLLECTION:
            return self._platform.list(collection, **where)
        if "aliases" not in self.capabilities:
            return [found for path in sorted(self._folder.rglob("*.yaml")) if (found := self._read(path))]
        return [
            alias | {"file": self._compare(alias)} for alias in map(dict, self._platform.list(collection))
        ]

    def latest(self, collection: str, limit: int, **where: str) -> Sequence[Object]:
        return self._platform.latest(collection, limit, **where)

    def get(self, collection: str, id: str) -> Object | None:
        return self._platform.get(collection, id)

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> Object:
        if collection != COLLECTION:
            return self._platform.create(collection, body, key=key)
        asked = {field: body[field] for field in ("name", "model", "metadata")}
        made = (
            dict(self._platform.create(collection, asked, key=key))
            if "aliases" in self.capabilities
            else asked
        )
        previous = self._read(self._path(body["name"]))
        self._write(body, previous)
        return made | {"file": "same"}

    def delete(self, collection: str, id: str) -> None:
        if collection != COLLECTION or "aliases" in self.capabilities:
            self._platform.delete(collection, id)
        if collection == COLLECTION:
            self._path(id).unlink(missing_ok=True)

    def _path(self, channel: str) -> Path:
        return self._folder / f"{channel}.yaml"

    def _compare(self, alias: Mapping[str, Any]) -> str:
        path = self._path(alias["name"])
        found = self._read(path)
        if found is None:
            return f"{path} is missing"
        same = found["model"] == alias["model"] and found["metadata"] == alias["metadata"]
        return "same" if same else f"{path} says {found['model']}, the platform {alias['model']}"

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            document = yaml.safe_load(path.read_bytes())
            spec = document["spec"]
            return {"name": spec["channel"], "model": spec["model"], "metadata": spec["stamp"]}
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            return None

    def _write(self, body: Mapping[str, Any], previous: Mapping[str, Any] | None) -> None:
        moved = previous is not None and previous["model"] != body["model"]
        spec = {
            "channel": body["name"],
            "model": body["model"],
            "previous": previous["model"] if moved and previous else None,
            "evidence": body.get("evidence", []),
            "lineage": body.get("lineage", {}),
            "stamp": dict(body["metadata"]),
        }
        document = {
            "apiVersion": API_VERSION,
            "kind": "Release",
            "metadata": {"name": body["name"]},
            "spec": spec,
        }
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
        path = self._path(body["name"])
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
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
