"""
Releases in git: what we write is committed and pushed, what others say there is heard.

Before a pass we hear, after it we publish, in a thread of our own. The platform's alias is the release and
comes first; a push that fails is a sentence and is tried again, and holds nothing up. A branch that moved
meanwhile is read before it is written: what somebody said there is never overwritten unheard.
"""

import os
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import structlog
import yaml

from reconciler import picture, release
from reconciler.backoff import backoff
from reconciler.creation import Creator
from reconciler.daemon import message
from reconciler.daemon.shelf import Known, Shelf, digest
from reconciler.daemon.word import wished
from reconciler.engine import World
from reconciler.errors import PlatformError
from reconciler.git import GitFailed
from reconciler.kind import Stamp
from reconciler.project import Project
from reconciler.release import Channel, Word
from reconciler.resource import Address

Files = Mapping[str, bytes | None]  # by path below the manifests' folder; None is a file that goes
NONE, PUSH, PULL_REQUEST = "none", "push", "pull_request"
log = structlog.get_logger()


class Upstream(Protocol):
    """The git that holds the releases. Every method may raise GitFailed."""

    apart: bool  # whether its files lie elsewhere than ours

    def shown(self) -> Mapping[str, bytes] | None:
        """Its release files; None while nobody knows."""

    def author(self) -> tuple[str, str]:
        """Who said what is shown now, and in what words."""

    def push(self, files: Files, text: str) -> str:
        """Put them onto the branch with this message; the commit."""

    def offer(self, files: Files, text: str) -> str:
        """Put them into the pull request; its address."""


class Publisher:
    """`folder` is the home of the releases. `trouble` is told to the board."""

    def __init__(
        self,
        upstream: Upstream,
        home: Path,
        data: Path,
        wake: Callable[[], None],
        trouble: Callable[[str | None], None],
        chance: Callable[[], float],
    ) -> None:
        self._upstream, self._home, self._wake = upstream, home, wake
        self._trouble, self._chance = trouble, chance
        self._shelf = Shelf(data / "published.json")
        self._how = NONE
        self._due: Files = {}
        self._kicked, self._stopped = threading.Event(), False
        self._thread = threading.Thread(target=self._keep_publishing, name="publish", daemon=True)

    def stop(self) -> None:
        self._stopped = True
        self._kicked.set()

    def before(self, project: Project, world: World, creator: Creator) -> None:
        """Hear what was said in git since, and do it."""
        self._how = project.spec.publish
        if self._how == NONE:
            return
        try:
            shown = self._upstream.shown()
        except GitFailed as error:
            self._trouble(str(error))
            return
        if shown is None:
            return
        for name in sorted({*shown, *self._shelf.files}):
            text = shown.get(name)
            known = self._shelf.files.get(name)
            if known and (known.base == digest(text) or self._is_news(known, text)):
                continue
            try:
                self._hear(name, text, known, project, world, creator)
            except (PlatformError, GitFailed) as error:
                log.error("release.unheard", file=name, error=str(error))
                continue
            with self._shelf.lock:
                heard = self._shelf.files.setdefault(name, Known())
                heard.base = digest(text) if known or self._upstream.apart else None
        self._shelf.keep()

    def after(self) -> None:
        """See what the pass wrote, and have it published."""
        if self._how == NONE:
            return
        ours = self._ours()
        due: dict[str, bytes | None] = {}
        with self._shelf.lock:
            for name in {*ours, *self._shelf.files}:
                known = self._shelf.files.setdefault(name, Known())
                mine = digest(ours.get(name))
                if known.base != mine:
                    due[name] = ours.get(name)
                    if mine:
                        known.wrote(mine)
            offered = self._how == PULL_REQUEST and self._shelf.offered == _digests(due)
        self._shelf.keep()
        if due and not offered:
            self._due = due
            if not self._thread.is_alive() and not self._stopped:
                self._thread.start()
            self._kicked.set()

    def _is_news(self, known: Known, text: bytes | None) -> bool:
        """Whether what a checkout shows is what we put there, and git has yet to be told."""
        return not self._upstream.apart and known.written[-1:] == [digest(text)]

    def _hear(
        self,
        name: str,
        text: bytes | None,
        known: Known | None,
        project: Project,
        world: World,
        creator: Creator,
    ) -> None:
        """Take one file as git has it now."""
        ours = self._read(name)
        if self._upstream.apart and (text == ours or (known and known.ahead(digest(text)))):
            return
        if known is None:
            if self._upstream.apart and ours is None and text is not None:
                self._write(name, text)  # how it stands is seen by the pass
            return
        if text is None:
            log.warning("release.removed", file=name)
            return
        if self._wish(name, text, project, world, creator):
            return
        log.warning("release.edited", file=name)
        if self._upstream.apart:
            self._write(name, text)

    def _wish(self, name: str, text: bytes, project: Project, world: World, creator: Creator) -> bool:
        """Move the channel to where the file wants it, if that may be. Raises PlatformError, GitFailed."""
        shown = _alias(text)
        if shown is None:
            return False
        channels = {
            c.name: c
            for c in map(release.read, world.platform.list(release.COLLECTION))
            if _is_ours(c, project)
        }
        channel = channels.get(shown["name"])
        if channel is None:
            return False
        rules = (w for w in project.desired.values() if w.body.get("channel") == channel.name)
        rule = next((wanted.fingerprint for wanted in rules), None)
        who, words = self._upstream.author()
        word = Word(who, release.stamp_of_time(creator.now()), f"in git: {words}")
        after = wished(channel, shown, rule, word)
        if after is None:
            return False
        world.platform.create(release.COLLECTION, release.written(after), key=uuid.uuid4().hex)
        stamp = Stamp.read(after.metadata)
        address = Address.parse(stamp.address if stamp else f"Release/{after.name}")
        event = "rolled back" if after.hold else "restored"
        detail = {"by": who, "reason": word.reason, "channel": after.name, "model": after.model}
        creator.journal.record(creator.now(), world.platform.name, address, event, detail)
        log.warning("release.moved", channel=after.name, model=after.model, how=event, by=who)
        return True

    def _keep_publishing(self) -> None:
        failures = 0
        while not self._stopped:
            self._kicked.wait(backoff(failures, self._chance()) if failures else None)
            self._kicked.clear()
            due, how = self._due, self._how
            if not due or how == NONE or self._stopped:
                continue
            try:
                self._publish(due, how)
            except (GitFailed, OSError) as error:
                failures += 1
                log.error("release.unpublished", error=str(error), files=sorted(due))
                self._trouble(str(error))
            else:
                failures = 0
                self._trouble(None)

    def _publish(self, due: Files, how: str) -> None:
        text = message.of(due)
        if how == PULL_REQUEST:
            address = self._upstream.offer(due, text)
            with self._shelf.lock:
                self._shelf.offered = _digests(due)
            log.info("release.offered", files=sorted(due), pull_request=address)
        else:
            commit = self._upstream.push(due, text)
            with self._shelf.lock:
                for name, content in due.items():
                    self._shelf.files[name].base = digest(content)
            log.info("release.published", files=sorted(due), commit=commit)
        self._shelf.keep()
        if self._due is due:
            self._due = {}
        self._wake()

    def _ours(self) -> dict[str, bytes]:
        found = {}
        for path in sorted((self._home / "releases").rglob("*.yaml")):
            if not path.name.startswith("."):
                found[str(path.relative_to(self._home))] = path.read_bytes()
        return found

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._home / name).read_bytes()
        except OSError:
            return None

    def _write(self, name: str, text: bytes) -> None:
        path = self._home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(text)
        temporary.replace(path)


def _alias(text: bytes) -> dict[str, Any] | None:
    try:
        return picture.read(yaml.safe_load(text))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None


def _is_ours(channel: Channel, project: Project) -> bool:
    stamp = Stamp.read(channel.metadata)
    return stamp is None or stamp.project == project.name


def _digests(files: Files) -> dict[str, str | None]:
    return {name: digest(content) for name, content in sorted(files.items())}
