"""A platform in memory: serves what it is given, keeps what is made, and fails when told to."""

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reconciler.errors import PlatformError, Unclear
from reconciler.world import Object, Upload

EVERYTHING = frozenset({"idempotency", "aliases", "model_sources"})
PLAIN = frozenset({"aliases"})  # cannot tell a repeated request from a new one
Fault = Callable[["MemoryPlatform", Callable[[], Object]], Object]


class MemoryPlatform:
    """`world.Platform` over dictionaries. `faults` are used up one by one, by collection."""

    def __init__(
        self,
        objects: Mapping[str, Sequence[Object]] | None = None,
        capabilities: frozenset[str] = EVERYTHING,
        name: str = "memory",
    ) -> None:
        self.name = name
        self.capabilities = capabilities
        self.objects: dict[str, list[dict[str, Any]]] = {
            "models": [{"id": "tiny-chat", "object": "model", "created": 0}]
        }
        for collection, found in copy.deepcopy(dict(objects or {})).items():
            self.objects[collection] = [dict(each) for each in found]
        self.unseen: dict[str, PlatformError | None] = {}  # by collection: None lists nothing at all
        self.hidden: set[str] = set()  # ids that lists leave out for now
        self.faults: dict[str, list[Fault]] = {}
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.answers: dict[str, Object] = {}  # by idempotency key
        self.guard = threading.RLock()

    def list(self, collection: str, **where: str) -> list[Object]:
        if collection in self.unseen:
            error = self.unseen[collection]
            if error is None:
                return []
            raise error
        with self.guard:
            found = [each for each in self.objects.get(collection, []) if self._id(each) not in self.hidden]
            return copy.deepcopy([each for each in found if all(_has(each, k, v) for k, v in where.items())])

    def latest(self, collection: str, limit: int, **where: str) -> Sequence[Object]:
        return self.list(collection, **where)[:limit]

    def get(self, collection: str, id: str) -> Object | None:
        with self.guard:
            found = [each for each in self.objects.get(collection, []) if self._id(each) == id]
            return copy.deepcopy(found[0]) if found else None

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> Object:
        self.asked.append((collection, body))

        def effect() -> Object:
            with self.guard:
                if "idempotency" not in self.capabilities:
                    return self._make(collection, body)
                if key not in self.answers:
                    self.answers[key] = self._make(collection, body)
                return self.answers[key]

        faults = self.faults.get(collection)
        return faults.pop(0)(self, effect) if faults else effect()

    def delete(self, collection: str, id: str) -> None:
        self.objects[collection] = [each for each in self.objects[collection] if self._id(each) != id]

    def count(self, collection: str) -> int:
        """How often something was asked for in a collection."""
        return sum(1 for asked, _ in self.asked if asked == collection)

    @staticmethod
    def _id(each: Mapping[str, Any]) -> str:
        return str(each.get("id") or each.get("name"))

    def _make(self, collection: str, body: Mapping[str, Any]) -> Object:
        if collection.endswith("/cancel"):
            path, _, id = collection.removesuffix("/cancel").rpartition("/")
            [found] = [each for each in self.objects[path] if each["id"] == id]
            found["status"] = "cancelled" if path == "fine_tuning/jobs" else "canceled"
            return copy.deepcopy(found)
        made = self._new(collection, body)
        kept = self.objects.setdefault(collection, [])
        kept[:] = [each for each in kept if self._id(each) != self._id(made)]
        kept.append(made)
        return copy.deepcopy(made)

    def _new(self, collection: str, body: Mapping[str, Any]) -> dict[str, Any]:
        number = sum(len(each) for each in self.objects.values())
        match collection.split("/"):
            case ["files"]:
                upload: Upload = body["file"]
                return {"id": f"file-{number}", "object": "file", "filename": upload.filename,
                        "bytes": upload.path.stat().st_size, "purpose": body["purpose"],
                        "status": "processed", "created_at": number}  # fmt: skip
            case ["fine_tuning", "jobs"]:
                return {**body, "id": f"ftjob-{number}", "status": "running", "created_at": number,
                        "fine_tuned_model": None}  # fmt: skip
            case ["evals"]:
                return {**body, "id": f"eval-{number}", "created_at": number}
            case ["evals", eval_id, "runs"]:
                return {**body, "id": f"run-{number}", "eval_id": eval_id, "status": "in_progress",
                        "created_at": number, "result_counts": {}}  # fmt: skip
            case ["reconciler", "models"]:
                self.objects["models"].append({"id": body["id"], "created": number})
                return {"id": body["id"], "created": number}
            case ["reconciler", "aliases"]:
                return {**body, "created_at": number}
        raise AssertionError(f"nothing is made in {collection}")

    # What happens while time passes

    def finish_jobs(self) -> None:
        """Every running job succeeds."""
        for job in self.objects.get("fine_tuning/jobs", []):
            if job["status"] == "running":
                job.update(status="succeeded", fine_tuned_model=f"ft:{job['id']}")

    def finish_runs(self, passed: Callable[[str, int], bool], items: int = 200) -> None:
        """Every run completes; `passed` answers a model and an item's number."""
        for collection, runs in [*self.objects.items()]:
            for run in runs if collection.endswith("/runs") else []:
                if run["status"] == "in_progress":
                    self._complete(collection, run, passed, items)

    def _complete(
        self, collection: str, run: dict[str, Any], passed: Callable[[str, int], bool], items: int
    ) -> None:
        graded = [passed(run["data_source"]["model"], index) for index in range(items)]
        counts = {"passed": sum(graded), "failed": items - sum(graded), "errored": 0, "total": items}
        run.update(status="completed", result_counts=counts)
        self.objects[f"{collection}/{run['id']}/output_items"] = [
            output_item(index, right) for index, right in enumerate(graded)
        ]


def output_item(index: int, right: bool) -> dict[str, Any]:
    status = "pass" if right else "fail"
    graded = {"name": "exact", "passed": right, "score": float(right), "type": "string_check"}
    return {"id": f"item-{index}", "datasource_item_id": index, "status": status, "results": [graded]}


def _has(each: Mapping[str, Any], key: str, value: str) -> bool:
    if key.startswith("metadata["):
        return bool((each.get("metadata") or {}).get(key[9:-1]) == value)
    return bool(each.get(key) == value)


# Faults


def loses_reply(platform: MemoryPlatform, effect: Callable[[], Object]) -> Object:
    """It happens, and nobody is told."""
    effect()
    raise Unclear("connection reset")


def loses_request(platform: MemoryPlatform, effect: Callable[[], Object]) -> Object:
    """It never happens, and nobody is told."""
    raise Unclear("connection reset")


def hides(platform: MemoryPlatform, effect: Callable[[], Object]) -> Object:
    """It happens, nobody is told, and lists do not show it yet."""
    made = effect()
    platform.hidden.add(str(made["id"]))
    return loses_request(platform, effect)


def raises(error: Exception) -> Fault:
    def fault(platform: MemoryPlatform, effect: Callable[[], Object]) -> Object:
        raise error

    return fault
