"""
A daemon over 10,000 standing resources: how soon it acts on a new one, and what it costs while nothing happens.

`python -m tests.bench daemon`: a real daemon against a stub that lists what stands and takes what is new.
The clock starts when the new manifest is written and ends when its file arrives. The idle hour is driven
by a clock of its own, so it takes as long as its passes do.
"""

import gc
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import structlog

from reconciler.cli import session
from reconciler.creation import Creator
from reconciler.daemon.board import Board
from reconciler.daemon.loop import Chance, Loop
from reconciler.daemon.source import Folder
from reconciler.engine import World
from reconciler.project import Project
from tests.bench.bench_plan import lister, manifest, standing, write_tree

SOON, IDLE = 2.0, 2.0  # wanted at most: seconds, percent of a core
HOUR = 3600.0  # seconds
KEY = "BENCH_KEY"


class Arrivals:
    """When files came, by the start of their name."""

    def __init__(self) -> None:
        self._came: dict[str, float] = {}
        self._changed = threading.Condition()

    def note(self, name: str) -> None:
        with self._changed:
            self._came[name] = time.perf_counter()
            self._changed.notify_all()

    def of(self, name: str) -> float:
        with self._changed:
            if not self._changed.wait_for(lambda: name in self._came, 120.0):
                raise SystemExit(f"{name} never came")
            return self._came[name]


def main(smoke: bool) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        platform(Path(folder), 200 if smoke else 10_000) as arrivals,
    ):
        root = Path(folder)
        with daemon(root) as child:
            acting(root, arrivals, 2 if smoke else 10)
            idle(child, 3.0 if smoke else 180.0)
        hour(root, 300.0 if smoke else HOUR)


@contextmanager
def platform(root: Path, count: int) -> Iterator[Arrivals]:
    """A tree of so many resources, all of which stand."""
    arrivals, pages = Arrivals(), Counter[str]()
    count = write_tree(root, count)
    server = ThreadingHTTPServer(("127.0.0.1", 0), taking(lister(root, pages), arrivals))
    place = f"http://127.0.0.1:{server.server_port}/v1"
    local = {"type": "openai", "base_url": place, "api_key_env": KEY}
    (root / "project.yaml").write_text(manifest("Project", "bench", platforms={"local": local}))
    os.environ[KEY] = "none"
    server.objects = standing(root)  # type: ignore[attr-defined]  # read by the handler
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    print(f"{count} resources stand")
    yield arrivals
    server.shutdown()


def taking(listing: type[Any], arrivals: Arrivals) -> type[Any]:
    class Taking(listing):  # type: ignore[misc]
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            filename = body.partition(b'filename="')[2].partition(b'"')[0].decode().replace("%40", "@")
            arrivals.note(filename.partition("@")[0])
            files = self.server.objects["files"]
            made = {"id": f"dataset_{len(files) + 1_000_000}", "created_at": len(files), "filename": filename,
                    "bytes": len(body.partition(b"application/octet-stream\r\n\r\n")[2].rpartition(b"\r\n--")[0]),
                    "status": "processed", "object": "file"}  # fmt: skip
            files.append(made)
            self._answer(200, made)

    return Taking


@contextmanager
def daemon(root: Path) -> Iterator[psutil.Process]:
    """`reconciler run`, once its first pass is over."""
    began, log = time.perf_counter(), root / "log.txt"
    with log.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "reconciler", "run", str(root)], stdout=file, stderr=file
        )
    while b"pass.done" not in log.read_bytes():
        if child.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.05)
    print(f"first pass over {time.perf_counter() - began:.2f} s after the start of the process")
    try:
        yield psutil.Process(child.pid)
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)


def acting(root: Path, arrivals: Arrivals, rounds: int) -> None:
    took = []
    for turn in range(rounds):
        name = f"brandnew-{turn}"
        row = {"messages": [{"role": "user", "content": name}, {"role": "assistant", "content": "yes"}]}
        (root / "data" / f"{name}.jsonl").write_text(f"{json.dumps(row)}\n" * 12)
        began = time.perf_counter()
        (root / f"{name}.yaml").write_text(
            manifest("Dataset", name, file=f"data/{name}.jsonl", format="chat")
        )
        took.append(arrivals.of(name) - began)
        time.sleep(2.0)  # its pass ends, and the one after it
    print(f"a new one is acted on after {statistics.median(took):.2f} s (longest of {rounds}: {max(took):.2f} s);"
          f" wanted ≤ {SOON} s")  # fmt: skip


def idle(child: psutil.Process, seconds: float) -> None:
    time.sleep(5.0)
    before = sum(child.cpu_times()[:2])
    time.sleep(seconds)
    share = (sum(child.cpu_times()[:2]) - before) / seconds * 100
    print(
        f"idle for {seconds:.0f} s: {share:.2f} % of a core, {child.memory_info().rss / 1e6:.0f} MB; wanted < {IDLE} %"
    )


class Means(NamedTuple):
    """How the composition root opens a world, but with the hour's own clock."""

    now: Callable[[], float]

    def chosen(self, project: Project, name: str | None) -> str:
        return session.chosen(project, name)

    def writing(self, *opened: Any) -> AbstractContextManager[tuple[World, Creator]]:
        @contextmanager
        def timed() -> Iterator[tuple[World, Creator]]:
            with session.writing(*opened) as (world, creator):
                yield world, Creator(creator.platform, creator.journal, creator.holder, self.now)

        return timed()

    def renewed(self, project: Project, world: World) -> World:
        return session.renewed(project, world)


def hour(root: Path, seconds: float) -> None:
    """An idle hour of a daemon's loop, as fast as it goes."""
    me, at, sizes = psutil.Process(), [time.time()], []
    end = at[0] + seconds

    def wait(moved: threading.Event, pause: float) -> bool:
        at[0] += pause
        sizes.append((len(gc.get_objects()), me.memory_info().rss / 1e6, me.num_fds(), me.num_threads()))
        if at[0] >= end:
            loop.finish()
        return moved.is_set()

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    board, chance = Board(), Chance(lambda: at[0], wait=wait)
    loop = Loop(Folder(root), Means(lambda: at[0]), None, 60.0, board, chance)
    began = time.process_time()
    loop.run()
    spent, passes = time.process_time() - began, board.passes.total()
    print(
        f"{seconds:.0f} s of virtual time: {passes} passes, {spent / passes:.2f} s of CPU each, the stub's included"
    )
    print("by quarters of it, wanted flat:")
    for name, place in (("objects", 0), ("resident MB", 1), ("open files", 2), ("threads", 3)):
        quarters = [sizes[max(2, len(sizes) * n // 4 - 1)][place] for n in range(5)]
        print(f"  {name:<12}{''.join(f'{each:>12,.0f}' for each in quarters)}")
