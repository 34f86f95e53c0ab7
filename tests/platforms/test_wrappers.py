"""What plans may not do."""

from collections.abc import Mapping
from typing import Any

import pytest

from reconciler.platforms.wrappers import ReadOnly


class World:
    """A platform in memory."""

    name = "world"
    capabilities = frozenset({"aliases"})

    def __init__(self, **objects: list[dict[str, Any]]) -> None:
        self.objects = objects

    def list(self, collection: str, **where: str) -> Any:
        return [*self.objects.get(collection, [])]

    def latest(self, collection: str, limit: int, **where: str) -> Any:
        return self.objects.get(collection, [])[:limit]

    def get(self, collection: str, id: str) -> Any:
        return next((each for each in self.objects.get(collection, []) if each["id"] == id), None)

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> Any:
        made = {"id": "new", **body}
        self.objects.setdefault(collection, []).append(made)
        return made

    def delete(self, collection: str, id: str) -> None:
        self.objects[collection] = [each for each in self.objects[collection] if each["id"] != id]


def test_a_plan_looks_and_cannot_write() -> None:
    world = World(files=[{"id": "file-1"}])
    plan = ReadOnly(world)

    assert ("world", frozenset({"aliases"})) == (plan.name, plan.capabilities)
    assert [{"id": "file-1"}] == plan.list("files") == plan.latest("files", 1)
    assert {"id": "file-1"} == plan.get("files", "file-1")
    with pytest.raises(AssertionError):
        plan.create("files", {}, key="k")
    with pytest.raises(AssertionError):
        plan.delete("files", "file-1")
    assert [{"id": "file-1"}] == world.objects["files"]
