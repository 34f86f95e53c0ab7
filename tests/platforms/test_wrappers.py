"""What plans may not do, and what a pass asks only once."""

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from reconciler.errors import Unclear, Unreachable
from reconciler.platforms.wrappers import ReadOnly, Remembering


class World:
    """A platform in memory that keeps count."""

    name = "world"
    capabilities = frozenset({"aliases"})

    def __init__(self, **objects: list[dict[str, Any]]) -> None:
        self.objects = objects
        self.asked: list[str] = []
        self.fault: Exception | None = None

    def list(self, collection: str, **where: str) -> Any:
        self.asked.append(f"list {collection}")
        if self.fault:
            raise self.fault
        return [*self.objects.get(collection, [])]

    def latest(self, collection: str, limit: int, **where: str) -> Any:
        self.asked.append(f"latest {collection}")
        return self.objects.get(collection, [])[:limit]

    def get(self, collection: str, id: str) -> Any:
        self.asked.append(f"get {collection} {id}")
        return next((each for each in self.objects.get(collection, []) if each["id"] == id), None)

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> Any:
        self.asked.append(f"create {collection}")
        made = {"id": "new", **body}
        self.objects.setdefault(collection, []).append(made)
        if self.fault:
            raise self.fault
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


def test_a_pass_asks_each_question_once() -> None:
    world = World(files=[{"id": "file-1"}])
    platform = Remembering(world)

    for _ in range(3):
        platform.list("files")
        platform.list("files", purpose="evals")
        platform.get("files", "file-2")

    assert ["list files", "list files", "get files file-2"] == world.asked


def test_threads_with_the_same_question_ask_it_once() -> None:
    world = World(files=[{"id": "file-1"}])
    platform = Remembering(world)
    together = threading.Barrier(8)

    def ask() -> None:
        together.wait()
        platform.list("files")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ["list files"] == world.asked


def test_what_moves_is_asked_for_every_time() -> None:
    world = World(events=[{"id": "1"}, {"id": "2"}])
    platform = Remembering(world)

    platform.latest("events", 1)
    assert [{"id": "1"}] == platform.latest("events", 1)

    assert ["latest events", "latest events"] == world.asked


def test_a_list_changed_by_its_reader_stays_as_it_was() -> None:
    platform = Remembering(World(files=[{"id": "file-1"}]))

    platform.list("files").clear()

    assert [{"id": "file-1"}] == platform.list("files")


def test_what_was_made_is_known_without_asking() -> None:
    world = World(jobs=[{"id": "old"}])
    platform = Remembering(world)
    mine, other = {"metadata[project]": "mine"}, {"metadata[project]": "other"}
    asked = [platform.list("jobs"), platform.list("jobs", **mine), platform.list("jobs", **other)]

    made = platform.create("jobs", {"metadata": {"project": "mine"}}, key="k")

    assert [{"id": "old"}, made] == platform.list("jobs") == platform.list("jobs", **mine)
    assert len(asked) + 1 == len(world.asked)


def test_a_filter_we_cannot_judge_is_asked_again() -> None:
    world = World(jobs=[])
    platform = Remembering(world)
    platform.list("jobs", order="asc")

    made = platform.create("jobs", {}, key="k")

    assert [made] == platform.list("jobs", order="asc")


def test_a_write_below_a_list_changes_the_object_in_it() -> None:
    platform = Remembering(World(jobs=[{"id": "new", "status": "running"}]))
    platform.list("jobs")
    platform.get("jobs", "new")

    platform.create("jobs/new/cancel", {"status": "cancelled"}, key="k")

    assert [{"id": "new", "status": "cancelled"}] == platform.list("jobs")
    assert {"id": "new", "status": "cancelled"} == platform.get("jobs", "new")


def test_a_run_is_not_taken_for_an_eval() -> None:
    platform = Remembering(World(evals=[{"id": "eval_1"}]))
    platform.list("evals")

    platform.create("evals/eval_1/runs", {}, key="k")

    assert [{"id": "eval_1"}] == platform.list("evals")


def test_a_list_that_failed_fails_for_the_whole_pass() -> None:
    world = World()
    world.fault = Unreachable("down")
    platform = Remembering(world)

    for _ in range(2):
        with pytest.raises(Unreachable, match="down"):
            platform.list("files")

    assert ["list files"] == world.asked


def test_after_an_unclear_create_we_really_look() -> None:
    world = World(jobs=[])
    platform = Remembering(world)
    platform.list("jobs")
    world.fault = Unclear("lost")
    with pytest.raises(Unclear):
        platform.create("jobs", {}, key="k")
    world.fault = None

    assert [{"id": "new"}] == platform.list("jobs")


def test_what_was_deleted_is_gone() -> None:
    platform = Remembering(World(files=[{"id": "file-1"}]))
    platform.list("files")

    platform.delete("files", "file-1")

    assert [] == platform.list("files")
