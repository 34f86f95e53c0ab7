"""
Put a daemon together, and end it well.

The loop has a thread of its own, so that a signal is heard at once: the call in flight gets GRACE to end,
then our claims are given back whatever it does. What it may have made is looked for by the next one.
"""

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from reconciler.daemon.board import Board
from reconciler.daemon.checkout import Checkout, Place
from reconciler.daemon.loop import Chance, Loop, Means
from reconciler.daemon.publish import Publisher
from reconciler.daemon.source import Branch, Folder, Source
from reconciler.daemon.upstream import OfBranch, OfCheckout
from reconciler.errors import ReconcilerError
from reconciler.git import Remote
from reconciler.project import DATA
from reconciler.selection import ALL, Choice

GRACE = 1.5  # seconds
LISTEN = 0.2  # seconds until a signal is heard, at most
log = structlog.get_logger()


@dataclass(frozen=True)
class Git:
    """Which branch to follow. `signers` has the keys that may sign its commits."""

    url: str
    branch: str = "main"
    path: str = "."
    token_env: str | None = None
    signers: Path | None = None


@dataclass(frozen=True)
class Http:
    """Where to answer requests; the variables hold what those who ask have to know."""

    address: str
    token_env: str = "RECONCILER_HTTP_TOKEN"
    secret_env: str = "RECONCILER_WEBHOOK_SECRET"


@dataclass(frozen=True)
class Options:
    """`home` is the folder of manifests, or with `git` the folder that keeps what is fetched and made."""

    home: Path
    platform: str | None = None
    interval: float = 60.0
    git: Git | None = None
    http: Http | None = None
    choice: Choice = ALL


def run(options: Options, means: Means) -> None:
    """Reconcile until SIGTERM or SIGINT. Raises ReconcilerError only when the first look fails."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ]
    )
    chance = Chance(time.time, random.random)
    source, board = _source(options), Board()
    loop = Loop(
        source, means, options.platform, options.interval, board, chance, _publishing(source), options.choice
    )
    over = threading.Event()
    failed: list[Exception] = []

    done = threading.Event()

    def work() -> None:
        try:
            loop.run()
            done.set()
        except (ReconcilerError, OSError) as error:
            failed.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=work, name="loop", daemon=True)
    with _signals() as told, _answering(options.http, loop, source, thread):
        thread.start()
        while not told and not over.wait(LISTEN):
            pass  # a signal that another thread got is heard when we wake
        _end(loop, thread)
    if failed:
        raise failed[0]
    if not done.is_set():
        raise ReconcilerError("the daemon has broken down; its last words are above, please report them")


def _end(loop: Loop, thread: threading.Thread) -> None:
    loop.finish()
    until = time.monotonic() + GRACE
    ended = loop.left.wait(GRACE)
    if loop.hand:
        loop.hand.land(max(0.0, until - time.monotonic()))
        if given := loop.hand.journal.give_back(loop.hand.holder):
            log.warning("claims.released", claims=given)
    if ended:
        thread.join()  # a platform that we started saves what it trains
    log.info("daemon.stopped", project=loop.board.moment.project)
    if not ended:  # a call that hangs would keep the process; what it makes is found by its stamp
        sys.stdout.flush()
        os._exit(0)


def _publishing(source: Source) -> Callable[[Loop], Publisher]:
    """Releases go where the manifests come from."""

    def publisher(loop: Loop) -> Publisher:
        api = os.environ.get("GITHUB_API_URL")
        upstream = OfBranch(source, api) if isinstance(source, Branch) else OfCheckout(source.home)

        def trouble(why: str | None) -> None:
            loop.board.publishing = why

        return Publisher(upstream, source.home, source.home / DATA, loop.wake, trouble, random.random)

    return publisher


def _source(options: Options) -> Source:
    if options.git is None:
        return Folder(options.home)
    git = options.git
    options.home.mkdir(parents=True, exist_ok=True)
    place = Place(Remote(git.url, git.token_env), git.branch, os.path.normpath(git.path).strip("/"))
    checkout = Checkout(place, options.home, git.signers.absolute() if git.signers else None)
    return Branch(checkout, options.home, options.interval, random.random)


@contextlib.contextmanager
def _answering(http: Http | None, loop: Loop, source: Source, thread: threading.Thread) -> Iterator[None]:
    if http is None:
        yield
        return
    try:
        from reconciler.daemon.http import Address, Door, Server
    except ImportError as error:
        raise ReconcilerError(
            f"--http needs {error.name}; install reconciler with its extra `daemon`"
        ) from None
    door = Door(os.environ.get(http.token_env), os.environ.get(http.secret_env), http.token_env)

    def events(limit: int) -> list[dict[str, Any]]:
        return loop.hand.journal.events(limit=limit) if loop.hand else []

    address = Address.parse(http.address)
    server = Server(address, door, loop.board, source.kick, events, thread.is_alive)
    log.info("http.started", host=address.host, port=server.start())
    try:
        yield
    finally:
        server.stop()


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """What we were told by signals. A handler takes no lock: what it interrupts may hold it."""
    told: list[int] = []
    before = {
        number: signal.signal(number, lambda heard, _: told.append(heard))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
