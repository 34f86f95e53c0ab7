"""A daemon over what stands does nothing but look, and one new resource costs one resource."""

import gc
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from core_base import Clock, write
from memory_platform import MemoryPlatform

from reconciler import guards
from reconciler.creation import Creator
from reconciler.daemon.board import Board
from reconciler.daemon.loop import Chance, Loop
from reconciler.daemon.source import Revision
from reconciler.engine import World
from reconciler.journal import Journal
from reconciler.kinds import all_kinds
from reconciler.project import Project

MANY = 300
HOUR = 3600.0  # seconds
PROMPT = """\
apiVersion: reconciler/v1
kind: Prompt
metadata: {{name: ask-{number}}}
spec: {{messages: [{{role: user, content: "{number}: {{{{ question }}}}"}}]}}
"""
DATASET = """\
apiVersion: reconciler/v1
kind: Dataset
metadata: {{name: rows-{number}}}
spec: {{file: rows-{number}.jsonl, format: items}}
"""
EVERY_COLLECTION = {"files", "fine_tuning/jobs", "evals", "evals/*/runs", "reconciler/aliases", "models"}


class Still:
    """A folder that nobody watches."""

    trouble = None
    looked = 0

    def __init__(self, root: Path) -> None:
        self.home, self.revision = root, Revision(root)

    def start(self, moved: Callable[[], None]) -> None: ...

    def kick(self, ticket: int) -> None: ...

    def commit(self) -> str | None:
        return None

    def accept(self, revision: Revision, files: Iterable[Path], whole: bool) -> None: ...

    def stop(self) -> None: ...


class Means:
    """A world in memory, with time of its own."""

    def __init__(self, platform: MemoryPlatform, clock: Clock) -> None:
        self.platform, self.clock = platform, clock

    def chosen(self, project: Project, name: str | None) -> str:
        return "local"

    @contextmanager
    def writing(
        self, project: Project, name: str, commit: Callable[[], str | None]
    ) -> Iterator[tuple[World, Creator]]:
        self.journal = Journal.at(project.data / "journal.db")
        world = World(project.name, all_kinds(), self.platform, guards.of(project.spec))
        yield world, Creator(self.platform, self.journal, "here:1:1", self.clock.now)

    def renewed(self, project: Project, world: World) -> World:
        return world


class Standing:
    """A daemon over many resources, all of which stand; `until` drives it to a moment of its own time."""

    def __init__(self, root: Path) -> None:
        self.root, self.clock, self.platform = root, Clock(), MemoryPlatform()
        self.means, self.board = Means(self.platform, self.clock), Board()
        self.at_rest: Callable[[], None] = lambda: None  # called in every wait
        chance = Chance(self.clock.now, wait=self._wait)
        self.loop = Loop(Still(root), self.means, None, 60.0, self.board, chance)
        self.end = 0.0
        self.run(300.0)

    def _wait(self, moved: threading.Event, seconds: float) -> bool:
        self.clock.sleep(seconds)
        self.platform.finish_jobs()
        self.platform.finish_runs(lambda model, index: model.startswith("ft:"))
        self.at_rest()
        if self.clock.at >= self.end:
            self.loop.finish()
        return moved.is_set()

    def run(self, seconds: float) -> None:
        self.end = self.clock.at + seconds
        self.loop.stop.clear()
        self.loop.run()


def written(root: Path, name: str, text: str) -> None:
    """A file of an hour ago."""
    write(root, {name: text})
    os.utime(root / name, (1e9, 1e9))


def add(root: Path, number: int) -> None:
    written(root, f"rows-{number}.jsonl", json.dumps({"item": {"question": str(number)}}) + "\n")
    written(root, f"rows-{number}.yaml", DATASET.format(number=number))


@pytest.fixture
def standing(tmp_path: Path) -> Standing:
    tree = write(tmp_path)
    for number in range(MANY):
        written(tree, f"ask-{number}.yaml", PROMPT.format(number=number))
    for number in range(10):
        add(tree, number)
    for path in tree.iterdir():
        if path.is_file():
            os.utime(path, (1e9, 1e9))
    return Standing(tree)


def test_an_idle_hour_leaves_nothing_behind(standing: Standing) -> None:
    objects: list[int] = []

    def count() -> None:
        gc.collect()
        objects.append(len(gc.get_objects()))

    standing.at_rest = count
    known = standing.loop._known
    before = standing.board.passes.total(), known.parsed, known.resolved, standing.means.journal.events()

    gc.freeze()  # what is there already need not be looked through after every pass
    try:
        standing.run(HOUR)
    finally:
        gc.unfreeze()

    after = standing.board.passes.total(), known.parsed, known.resolved, standing.means.journal.events()
    assert before[1:] == after[1:]
    assert 54 <= after[0] - before[0] <= 67
    assert {"settled"} == {*standing.board.passes} - {"unsettled"}
    early, late = min(objects[2:12]), min(objects[-10:])  # the least: others may just be at work here
    assert abs(late - early) < 30  # one that every pass leaves behind would make 45


def test_an_idle_pass_asks_for_every_list_once(standing: Standing) -> None:
    calls, passes = standing.board.calls.copy(), standing.board.passes.total()

    standing.run(HOUR)

    passes = standing.board.passes.total() - passes
    asked = standing.board.calls - calls
    assert {("list", each, "done"): passes for each in EVERY_COLLECTION} == dict(asked)


def test_one_new_resource_among_many_is_made_by_the_next_pass_and_is_all_that_is_read(
    standing: Standing,
) -> None:
    known = standing.loop._known
    parsed, resolved, passes = known.parsed, known.resolved, standing.board.passes.total()
    add(standing.root, MANY)
    files = standing.platform.count("files")

    standing.run(1.0)

    assert (parsed + 1, resolved + 1) == (known.parsed, known.resolved)
    assert files + 1 == standing.platform.count("files")
    assert 1 <= standing.board.passes.total() - passes <= 2
