"""A platform in memory that also forgets, and owners of trees on it."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core_base import FILES, Applier, Clock, Watcher, write
from memory_platform import MemoryPlatform

from reconciler import engine, guards, ownership, project, pruning
from reconciler.engine import Pass
from reconciler.kinds import all_kinds
from reconciler.ownership import Pruned
from reconciler.plan import Deletion
from reconciler.pruning import Holdings, Policy
from reconciler.resource import Desired
from reconciler.selection import ALL, Choice
from reconciler.world import Object

DEMO = "metadata: {name: demo}"


class Shop(MemoryPlatform):
    """Lists the models that jobs leave behind, lets metadata be written, and takes runs along with their eval."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.deleted: list[tuple[str, str]] = []
        self.refuses: dict[str, Exception] = {}  # by id: what a delete of it ends with
        self.last = 100

    def finish_jobs(self) -> None:
        super().finish_jobs()
        known = {each["id"] for each in self.objects["models"]}
        for job in self.objects.get("fine_tuning/jobs", []):
            if (model := job["fine_tuned_model"]) and model not in known and not job.get("sold"):
                self.objects["models"].append({"id": model, "created": job["created_at"]})
                job["sold"] = True

    def delete(self, collection: str, id: str) -> None:
        if error := self.refuses.pop(id, None):
            raise error
        self.deleted.append((collection, id))
        if collection in self.objects:
            super().delete(collection, id)
        if collection == "evals":
            self.objects.pop(f"evals/{id}/runs", None)

    def _make(self, collection: str, body: Mapping[str, Any]) -> Object:
        path, _, id = collection.rpartition("/")
        if path == "evals":
            [found] = [each for each in self.objects["evals"] if each["id"] == id]
            found.update(body)
            return copy.deepcopy(found)
        return super()._make(collection, body)

    def _new(self, collection: str, body: Mapping[str, Any]) -> dict[str, Any]:
        made = super()._new(collection, body)
        if collection == "reconciler/aliases":
            before = [each for each in self.objects.get(collection, []) if each["name"] == body["name"]]
            step = {key: made.get(key) or {} for key in ("model", "metadata", "release")} | {"at": self.last}
            made["history"] = [*(before[0]["history"] if before else []), step]
        if "id" in made and collection != "reconciler/models":  # never twice, whatever was deleted
            self.last += 1
            made |= {"id": f"{made['id'].partition('-')[0]}-{self.last}", "created_at": self.last}
        return made

    def standing(self) -> set[str]:
        """The ids of all that was made and stands, and the models of jobs."""
        kept = {c: each for c, each in self.objects.items() if not c.endswith("output_items")}
        return {self._id(o) for each in kept.values() for o in each} - {"tiny-chat"}


class Owner(Applier):
    """Somebody who applies a tree, lets work finish, and prunes."""

    platform: Shop
    choice: Choice = ALL

    @property
    def desired(self) -> Desired:
        return project.load(self.root).part(self.choice).desired

    def once(self) -> Pass:
        tree = project.load(self.root)
        world = replace(self.world, guards=guards.of(tree.spec))
        return engine.once(self.desired, world, self.creator, Watcher())

    def done(self, tuned: int = 200) -> Any:
        """Passes until nothing can change; so many of 200 items pass."""
        for _ in range(30):
            done = self.passes(1)
            if done.settled:
                return done
            self.platform.finish_jobs()
            self.platform.finish_runs(lambda model, index: index < (tuned if model.startswith("ft:") else 0))
        raise AssertionError("it never settled")

    def look(self, policy: Policy = Policy()) -> dict[str, str]:
        """By id of what nobody wants, why it is kept; empty for what goes."""
        return {each.observed.id: each.kept for each in self.decided(policy)}

    def decided(self, policy: Policy = Policy(), *, empty: bool = False) -> tuple[Deletion, ...]:
        tree = project.load(self.root)
        holdings = self.holdings(empty=empty)
        sight = engine.look(tree.desired, self.world)
        return pruning.decide(sight.desired, tree.desired, all_kinds(), holdings, policy)

    def holdings(self, *, empty: bool = False) -> Holdings:
        """All that stands of the project."""
        sight = engine.look(project.load(self.root).desired, self.world)
        return ownership.survey(sight, self.world, self.journal, self.clock.now(), empty=empty)

    def prune(self, policy: Policy = Policy(), *, empty: bool = False) -> Pruned:
        desired = project.load(self.root).desired
        return ownership.prune(desired, self.world, self.creator, policy, "ada", empty=empty)


def owner(root: Path, platform: Shop, clock: Clock, name: str = "demo") -> Owner:
    """The owner of a tree of every kind, under a name of its own."""
    files = {file: text.replace("demo", name) for file, text in FILES.items()}
    found = Owner(write(root, files), platform, clock)
    found.world = type(found.world)(name, all_kinds(), platform)
    return found


def without(root: Path, file: str, kind: str, name: str) -> str:
    """Take one document out of a file; what the file said before."""
    path = root / file
    before = path.read_text()
    kept = [
        each
        for each in before.split("---\n")
        if f"kind: {kind}\n" not in each or f"metadata: {{name: {name}}}" not in each
    ]
    assert len(kept) < len(before.split("---\n")), f"{kind}/{name} is not in {path}"
    path.write_text("---\n".join(kept)) if kept else path.unlink()
    return before
