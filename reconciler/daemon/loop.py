"""
A loop around the pass: take the newest manifests, reconcile, and never stop for one bad edit.

Level-triggered: an event only ends the wait early, and a missed one costs an interval. Between passes only
what works is asked how far it is; what has ended is not asked again.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import structlog

from reconciler import drift, engine, ownership
from reconciler.backoff import backoff, jittered
from reconciler.creation import Creator
from reconciler.daemon import lastgood
from reconciler.daemon.board import Board, Moment
from reconciler.daemon.hand import Hand
from reconciler.daemon.lastgood import Loaded
from reconciler.daemon.pace import Bucket, Paced
from reconciler.daemon.publish import Publisher
from reconciler.daemon.source import Revision, Source
from reconciler.engine import Pass, World
from reconciler.errors import Busy, ManifestError, PlatformError, ReconcilerError
from reconciler.kind import Action, Progress, State
from reconciler.known import Known
from reconciler.plan import Step
from reconciler.project import Project
from reconciler.pruning import BLOWN, Policy
from reconciler.resource import Address, Desired
from reconciler.selection import ALL, Choice

MANY = 16  # objects at work; one pass asks for more of them with fewer requests
log = structlog.get_logger()


class Means(Protocol):
    """How a project's world is put together; only the composition root knows."""

    def chosen(self, project: Project, name: str | None) -> str: ...

    def writing(
        self, project: Project, name: str, commit: Callable[[], str | None]
    ) -> AbstractContextManager[tuple[World, Creator]]: ...

    def renewed(self, project: Project, world: World) -> World: ...


@dataclass(frozen=True)
class Chance:
    """Time and chance, so that tests own both."""

    now: Callable[[], float] = time.time
    random: Callable[[], float] = lambda: 0.5
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait


class Watching:
    """A watcher that writes events, and breaks uploads off when the daemon stops."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def uploading(self, address: Address, sent: int, total: int) -> None:
        if self._stop.is_set():
            raise Busy(f"the upload of {address} was broken off, nothing was stored", 1.0)

    def made(self, step: Step) -> None:
        observed = step.decision.observed
        log.info("object.made", address=str(step.address), id=observed.id if observed else None)

    def waiting(self, done: Pass, progress: Mapping[Address, Progress]) -> None: ...


class Loop:
    """Everything a daemon does, in one thread; `stop` and `wake` are set by others."""

    def __init__(
        self,
        source: Source,
        means: Means,
        platform: str | None,
        interval: float,
        board: Board,
        chance: Chance,
        publisher: Callable[["Loop"], Publisher | None] = lambda loop: None,
        choice: Choice = ALL,
    ) -> None:
        self._source, self._means, self._platform, self._interval = source, means, platform, interval
        self.board, self._chance = board, chance
        self.stop, self._moved = threading.Event(), threading.Event()
        self.left = threading.Event()  # the last call has ended
        self.hand: Hand | None = None
        self._loaded: Loaded | None = None
        self._choice = choice
        self._part: Project | None = None  # what was chosen of it
        self._clean: Desired | None = None  # beside which nothing stands that nobody wants
        self._known = Known()
        self._read: Revision | None = None
        self._refused: tuple[str, ...] = ()
        self._number = self._failures = 0
        self._moved_at, self._state = chance.now(), ""
        self._publisher = publisher(self)

    def wake(self) -> None:
        """There may be something to do."""
        self._moved.set()

    def finish(self) -> None:
        """Stop after the call in flight."""
        self.stop.set()
        self._moved.set()

    def run(self) -> None:
        """Until `finish`. Raises ReconcilerError only when a folder cannot be used at first."""
        first = self._source.revision is not None
        self._source.start(self.wake)
        try:
            self._open(first)
        finally:
            self._source.stop()
            if self._publisher:
                self._publisher.stop()
            self.left.set()

    def _open(self, first: bool) -> None:
        while not self.stop.is_set():
            try:
                project = self._load()
                if project is None:
                    self._rest(self._interval)
                    self._moved.clear()
                    continue
                name = self._means.chosen(project, self._platform)
                with self._means.writing(project, name, self._commit) as (world, creator):
                    first = False
                    self._passes(project, name, world, creator)
                    if self.stop.is_set():
                        self.left.set()
            except (ReconcilerError, OSError) as error:
                if first:
                    raise
                self._rest_after(error)

    def _rest_after(self, error: Exception) -> None:
        self._failures += 1
        now = self._chance.now()
        log.error("platform.failed", error=str(error))
        self.board.show(
            replace(self.board.moment, done=None, error=str(error), began_at=now, ended_at=now), 0
        )
        self._moved.clear()
        self._rest(backoff(self._failures, self._chance.random()))

    def _rest(self, seconds: float) -> bool:
        """Wait so long, or until there may be something to do; whether there may."""
        return self._chance.wait(self._moved, seconds)

    def _load(self) -> Project | None:
        """The newest manifests, or the last good ones; None before there are any."""
        revision = self._source.revision
        if revision is None:
            return None
        if self._loaded and revision == self._read and revision.commit:
            return self._part  # a revision never changes
        last = self._loaded.project if self._loaded else None
        try:
            loaded = lastgood.load(revision.root, self._source.home, last, self._known)
        except ManifestError as error:
            if revision.commit is None:
                raise
            self._tell(error.problems)
            return None
        self._tell(loaded.problems, len(loaded.kept))
        self._loaded, self._read = loaded, revision
        self._source.accept(revision, _files(loaded.project), whole=not loaded.problems)
        self._part = loaded.project.part(self._choice)
        return self._part

    def _commit(self) -> str | None:
        """The commit that is reconciled, with `+changes` behind it when something stands as it was before."""
        if self._read is None or self._loaded is None or self._read.commit is None:
            return self._source.commit()
        return f"{self._read.commit}+changes" if self._loaded.problems else self._read.commit

    def _tell(self, problems: tuple[object, ...], kept: int = 0) -> None:
        told = tuple(map(str, problems))
        if told and told != self._refused:
            log.error("manifests.refused", problems=list(told), kept=kept)
        self._refused = told

    def _passes(self, project: Project, name: str, world: World, creator: Creator) -> None:
        """Until the daemon stops, or the project wants another platform or journal."""
        world, hand = self._around(project, name, world, creator)
        self.hand = hand
        place = _place(project, name)
        log.info("daemon.started", project=project.name, platform=name, resources=len(project.desired))
        while not self.stop.is_set():
            self._moved.clear()
            ticket = min(self.board.asked, self._source.looked)
            fresh = self._load()
            if fresh is not None and fresh is not project:
                if _place(fresh, self._platform or fresh.spec.platform) != place:
                    log.info("platform.changed", project=fresh.name)
                    return
                project = fresh
                world = self._means.renewed(project, world)
            self.board.busy_since = self._chance.now()
            done = self._pass(project, name, world, hand, ticket)
            self._wait(done, world)

    def _around(self, project: Project, name: str, world: World, creator: Creator) -> tuple[World, Hand]:
        """The world at the platform's own pace, and a hand for it that makes no pass wait."""
        rate = getattr(project.spec.platforms[name], "requests_per_minute", None)
        bucket = Bucket(rate / 60 if rate else None, time.monotonic, time.sleep)
        paced = Paced(world.platform, bucket, self.board.told, time.monotonic)
        hand = Hand(
            paced, creator.journal, creator.holder, creator.now, chance=self._chance.random, landed=self.wake
        )
        return replace(world, platform=paced), hand

    def _pass(self, project: Project, name: str, world: World, hand: Hand, ticket: int) -> Pass | None:
        began, done, error = self._chance.now(), None, None
        try:
            if self._publisher:
                self._publisher.before(project, world, hand)
            done = engine.once(project.desired, world, hand, Watching(self.stop))
            if done.settled and not done.failed:
                self._prune(project, world, hand)
            if self._publisher:
                self._publisher.after()
        except (ReconcilerError, OSError) as failed:
            error = str(failed)
            log.error("pass.failed", error=error)
        self._number += 1
        ended = self._chance.now()
        found = drift.classify(done.steps, done.actual, done.memory, ended) if done else ()
        kept = tuple(map(str, self._loaded.kept)) if self._loaded else ()
        moment = Moment(
            project.name, name, self._read.commit if self._read else None,
            self._number, began, ended, done, error, self._refused, kept, found, _money(project, world),
        )  # fmt: skip
        if done:
            blocked = {str(step.address): step.decision.why for step in done.steps if step.action == "!"}
            made, unseen = len(done.made), dict(done.unseen)
            log.info("pass.done", settled=done.settled, made=made, blocked=blocked, unseen=unseen)
        self.board.source = self._source.trouble
        self.board.show(moment, ticket)
        return done

    def _prune(self, project: Project, world: World, hand: Hand) -> None:
        """Delete what nobody wants, where the project says so and all of its manifests can be read."""
        broken = self._loaded is not None and self._loaded.problems
        if not project.prunes or broken or project.desired == self._clean:
            return
        policy = Policy(before=hand.now() - project.spec.prune_seconds)
        pruned = ownership.prune(project.desired, world, hand, policy, "the daemon")
        for each in pruned.done:
            log.info("object.deleted", kind=each.kind, id=each.observed.id, why=each.why)
        for id, why in pruned.failed.items():
            log.warning("delete.failed", id=id, error=why)
        for why in {each.kept for each in pruned.deletions if each.kept.startswith(BLOWN)}:
            log.warning("prune.refused", error=why)
        self._clean = None if pruned.deletions else project.desired

    def _wait(self, done: Pass | None, world: World) -> None:
        """Until another pass is worth its requests."""
        chance, now = self._chance.random(), self._chance.now()
        if done is None or done.unseen:
            self._failures += 1
            self._rest(min(self._interval, backoff(self._failures, chance)))
            return
        self._failures = 0
        state = "".join(step.action for step in done.steps)
        if state != self._state or done.made:
            self._moved_at, self._state = now, state
        if done.settled:
            self._rest(jittered(self._interval, chance))
            return
        pause = done.pause(now - self._moved_at)
        working = [s for s in done.steps if s.action is Action.WAIT and s.decision.observed]
        only = not done.deferred and all(
            s.action is not Action.WAIT or s.decision.observed for s in done.steps
        )
        until = now + self._interval
        while not self._rest(pause) and only and 0 < len(working) <= MANY:
            if self._chance.now() >= until or any(_ended(step, world) for step in working):
                return
            pause = done.pause(self._chance.now() - self._moved_at)


def _ended(step: Step, world: World) -> bool:
    """Whether an object does not work any more, or cannot be asked."""
    kind, observed = world.kinds[step.address.kind], step.decision.observed
    assert observed is not None
    try:
        found = world.platform.get(kind.place(observed), observed.id)
    except PlatformError:
        return True
    return found is None or kind.observe(found).state is not State.WORKING


def _money(project: Project, world: World) -> dict[str, float]:
    """US dollars in the ledger, by whether they are spent or only reserved."""
    ledger = world.accounts.ledger if world.accounts else None
    sums = {"spent": 0.0, "reserved": 0.0}
    for entry in (line.entry for line in (ledger.lines(project.name) if ledger else ())):
        sums["spent" if entry.settled else "reserved"] += entry.amount.usd or 0.0
    return sums if ledger else {}


def _place(project: Project, name: str) -> tuple[object, ...]:
    """What a world is opened for: another one has to be opened where this differs."""
    return (project.name, name, project.spec.platforms.get(name), project.spec.journal)


def _files(project: Project) -> Iterator[Path]:
    """Every file that something wanted was read from."""
    for wanted in project.desired.values():
        yield Path(wanted.file)
        if "path" in wanted.facts:
            yield Path(wanted.facts["path"])
