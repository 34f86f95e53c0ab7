"""
A loop around the pass: watch the manifests, reconcile, and never stop for one bad edit.

Level-triggered: a change on disk only ends the wait early, and a missed one costs `interval` seconds.
Manifests that cannot be read leave the last good ones in force, loudly.
"""

import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import structlog
from watchfiles import Change, DefaultFilter, watch

from reconciler import engine, guards, project
from reconciler.creation import Creator
from reconciler.engine import Pass, World
from reconciler.errors import ManifestError, ReconcilerError
from reconciler.kind import Progress
from reconciler.plan import Step
from reconciler.project import Project
from reconciler.resource import Address

Opened = AbstractContextManager[tuple[World, Creator]]
log = structlog.get_logger()


class Logging:
    """A watcher that writes events."""

    def uploading(self, address: Address, sent: int, total: int) -> None: ...

    def made(self, step: Step) -> None:
        observed = step.decision.observed
        log.info("object.made", address=str(step.address), id=observed.id if observed else None)

    def waiting(self, done: Pass, progress: Mapping[Address, Progress]) -> None:
        for address, known in progress.items():
            log.info("object.working", address=str(address), progress=known.text)


def run(
    root: Path,
    platform: str | None,
    interval: float,
    writing: Callable[[Project, str], Opened],
    chosen: Callable[[Project, str | None], str],
) -> None:
    """Reconcile until SIGTERM or SIGINT. Raises ReconcilerError only when the first look fails."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ]
    )
    stop, moved = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(stop, moved))
    wanted = project.load(root)
    name = chosen(wanted, platform)
    watcher = threading.Thread(target=_watch, args=(root, stop, moved), daemon=True)
    watcher.start()
    with writing(wanted, name) as (world, creator):
        log.info("daemon.started", project=wanted.name, platform=name, resources=len(wanted.desired))
        started, was = time.monotonic(), ""
        while not stop.is_set():
            moved.clear()
            wanted = _reload(root, wanted)
            done = _pass(wanted, replace(world, guards=guards.of(wanted.spec)), creator)
            settled = done is not None and done.settled
            now = _state(done)
            if now != was or (done and done.made):
                started, was = time.monotonic(), now
            moved.wait(interval if settled or done is None else done.pause(time.monotonic() - started))
    log.info("daemon.stopped", project=wanted.name)


def _stop(stop: threading.Event, moved: threading.Event) -> None:
    stop.set()
    moved.set()


def _reload(root: Path, last: Project) -> Project:
    try:
        return project.load(root)
    except ManifestError as error:
        log.error("manifests.refused", problems=[str(problem) for problem in error.problems])
        return last


def _pass(wanted: Project, world: World, creator: Creator) -> Pass | None:
    try:
        done = engine.once(wanted.desired, world, creator, Logging())
    except ReconcilerError as error:
        log.error("pass.failed", error=str(error))
        return None
    blocked = {str(step.address): step.decision.why for step in done.steps if step.action == "!"}
    log.info(
        "pass.done", settled=done.settled, made=len(done.made), blocked=blocked, unseen=dict(done.unseen)
    )
    return done


def _state(done: Pass | None) -> str:
    return "" if done is None else "".join(step.action for step in done.steps)


def _watch(root: Path, stop: threading.Event, moved: threading.Event) -> None:
    for _ in watch(root, watch_filter=_Ours(), stop_event=stop, debounce=200, step=50):
        moved.set()


class _Ours(DefaultFilter):
    """What we write ourselves is no change of what is wanted."""

    def __call__(self, change: Change, path: str) -> bool:
        parts = Path(path).parts
        return super().__call__(change, path) and project.DATA not in parts and "releases" not in parts
