"""
Where the manifests come from: a folder that somebody edits, or a branch of a remote repository.

A source runs beside the passes and only ever says "look again": a missed event costs one interval. What
goes wrong with it is a sentence, and its last revision stands.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog
from watchfiles import Change, DefaultFilter, watch

from reconciler import git, project
from reconciler.backoff import backoff, jittered
from reconciler.daemon.checkout import Checkout
from reconciler.git import GitFailed

OWN = 200  # commits of ours that we remember
log = structlog.get_logger()


class Revision(NamedTuple):
    """Manifests at one moment. `commit` is None for a folder, which may be edited at any time."""

    root: Path
    commit: str | None = None


class Source(Protocol):
    """`home` keeps what outlives a revision: the data folder and the releases."""

    home: Path

    @property
    def revision(self) -> Revision | None:
        """What is there now; None until there is anything."""

    @property
    def trouble(self) -> str | None:
        """Why it may be out of date."""

    @property
    def looked(self) -> int:
        """The last `kick` that `revision` answers."""

    def start(self, moved: Callable[[], None]) -> None:
        """Watch from now on, and call `moved` whenever it is worth a pass. Raises ReconcilerError."""

    def kick(self, ticket: int) -> None:
        """Look at once."""

    def commit(self) -> str | None:
        """The commit that stands, for what is released now."""

    def accept(self, revision: Revision, files: Iterable[Path], whole: bool) -> None:
        """These files are in use, and others may be forgotten; `whole` when nothing in the revision is broken."""

    def stop(self) -> None: ...


class Folder:
    """A folder on this machine, watched."""

    trouble = None

    def __init__(self, root: Path) -> None:
        self.home = root
        self.revision = Revision(root)
        self.looked = 0
        self._stop = threading.Event()
        self._moved: Callable[[], None] = lambda: None

    def start(self, moved: Callable[[], None]) -> None:
        self._moved = moved
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def kick(self, ticket: int) -> None:
        self.looked = ticket  # every pass reads it anew
        self._moved()

    def commit(self) -> str | None:
        return git.commit(self.home)

    def accept(self, revision: Revision, files: Iterable[Path], whole: bool) -> None: ...

    def stop(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        for _ in watch(self.home, watch_filter=_Ours(), stop_event=self._stop, debounce=200, step=50):
            self._moved()


class _Ours(DefaultFilter):
    """What we write ourselves is no change of what is wanted: data, releases, and a log beside the manifests."""

    def __call__(self, change: Change, path: str) -> bool:
        parts = Path(path).parts
        own = project.DATA in parts or "releases" in parts or _is_output(path)
        return not own and super().__call__(change, path)


def _is_output(path: str) -> bool:
    """Whether a file is where our words go."""
    try:
        found = os.stat(path)
        return any(os.path.samestat(found, os.fstat(number)) for number in (1, 2))
    except OSError:
        return False


class Branch:
    """A branch of a remote repository, asked every `interval` seconds and whenever somebody kicks."""

    def __init__(self, checkout: Checkout, home: Path, interval: float, chance: Callable[[], float]) -> None:
        self.home = home
        self.checkout = checkout
        self.trouble: str | None = None
        self.looked = 0
        self.revision: Revision | None = None
        self._interval, self._chance = interval, chance
        self._good = home / "good"
        self._ours = home / "own"
        self._own: dict[str, str] = {}  # our commits, and the revision that each of them still is
        self._asked, self._failures = 0, 0
        self._tip: str | None = None
        self._coming: str | None = None  # what is put into its folder now, or was last
        self._kicked, self._stopped = threading.Event(), False
        self._moved: Callable[[], None] = lambda: None

    def start(self, moved: Callable[[], None]) -> None:
        self._moved = moved
        if self._ours.exists():
            self._own = dict(line.split(" ", 1) for line in self._ours.read_text().splitlines())
        good = self._good_commit()
        if good and self.checkout.has(good):
            self.revision = Revision(self.checkout.root(good), good)
        threading.Thread(target=self._keep_looking, name="git", daemon=True).start()

    def kick(self, ticket: int) -> None:
        self._asked = ticket
        self._kicked.set()

    def commit(self) -> str | None:
        return self.revision.commit if self.revision else None

    def ground(self) -> str | None:
        """The newest commit, to write upon: the revision in use, or ours above it; None while it is another one."""
        now, tip = self.commit(), self._tip
        return tip if tip and self._own.get(tip, tip) == now else None

    def wrote(self, commit: str, onto: str) -> None:
        """A commit of ours is about to be the branch's newest: its manifests are those of the one below."""
        self._own[commit] = self._own.get(onto, onto)
        lines = [f"{commit} {below}" for commit, below in self._own.items()][-OWN:]
        try:
            self._ours.write_text("\n".join(lines))
        except OSError as error:
            raise GitFailed(f"{self._ours} cannot be written: {error.strerror}; free the disk") from None

    def pushed(self, commit: str) -> None:
        """A commit of ours is the branch's newest."""
        self._tip = commit

    def look(self) -> None:
        """Look soon, for nobody in particular."""
        self._kicked.set()

    def accept(self, revision: Revision, files: Iterable[Path], whole: bool) -> None:
        used = revision.commit or ""
        newer = {self.commit() or "", self._coming or ""}
        if whole:
            with contextlib.suppress(OSError):  # then a restart begins with an older one
                self._good.write_text(used)
        self.checkout.show(used)
        self.checkout.keep({used, *newer, self._good_commit(), *map(self.checkout.commit_of, files)})

    def stop(self) -> None:
        self._stopped = True
        self._kicked.set()

    def _good_commit(self) -> str:
        return self._good.read_text().strip() if self._good.exists() else ""

    def _keep_looking(self) -> None:
        while not self._stopped:
            self._kicked.clear()
            ticket = self._asked
            try:
                fresh = self._look()
            except (GitFailed, OSError) as error:
                self._failures += 1
                fresh = self.trouble != str(error)
                self.trouble = str(error)
                if fresh:
                    log.error("source.failed", error=str(error), stands=self.commit())
            else:
                if self.trouble:
                    log.info("source.recovered", commit=self.commit())
                    fresh = True
                self.trouble, self._failures = None, 0
            asked, self.looked = ticket > self.looked, ticket
            if fresh or asked:
                self._moved()
            self._kicked.wait(self._pause())

    def _pause(self) -> float:
        if self._failures:
            return min(self._interval, backoff(self._failures, self._chance()))
        return jittered(self._interval, self._chance())

    def _look(self) -> bool:
        """Fetch and put into its folder what is new. Raises GitFailed."""
        began = time.monotonic()
        commit = self.checkout.fetch()
        self._tip = commit
        now = self.commit()
        if now and now in (commit, self._own.get(commit)):
            return False
        if commit not in self._own:
            self.checkout.verify(commit)
        self._coming = commit
        root = self.checkout.check_out(commit, like=now)
        self.revision = Revision(root, commit)
        log.info("revision.found", commit=commit, seconds=round(time.monotonic() - began, 3))
        return True
