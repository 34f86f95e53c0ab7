"""
The server process: one per data folder, from its lock to its sockets to its end.

It always listens on a private socket in its data folder, so that a local `apply` can share it, and on
TCP when asked. What it is reachable by is written to `server.json`; the log is JSON lines.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import secrets
import shlex
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import msgspec
import structlog
import uvicorn

from reconciler.selfhosted import app, auth, context, limits
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.registry import models
from reconciler.selfhosted.storage.blobs import Blobs
from reconciler.selfhosted.storage.store import Store
from reconciler.selfhosted.upstream import engines, upstreams
from reconciler.selfhosted.upstream.upstreams import Upstream

SOCKET_LENGTH = 100  # bytes of a Unix socket's path that every system allows
WATCH = 0.5  # seconds between two looks whether our parent lives
TRAINER = (sys.executable, "-m", "reconciler.selfhosted.training")

log = structlog.get_logger("reconciler.selfhosted")


class Refused(Exception):
    """We do not start, and the sentence says why."""


def serve(asked: argparse.Namespace, engine: context.Engine | None = None) -> int:
    """Serve until SIGTERM or SIGINT, with an engine process of our own unless another engine is given."""
    data, elsewhere = _folder(asked.data), _upstreams(asked)
    with _alone(data), _logging(asked.log):
        store = _open_store(asked, data)
        _check_keys(asked.host, store)
        store.write_now(lambda tx: models.add_packaged(tx, models.packaged_folder()))
        here = Context(
            data,
            store,
            Blobs(data / "blobs"),
            _engine(asked, data, elsewhere, engine),
            upstreams=elsewhere,
            version=importlib.metadata.version("reconciler"),
            organization=asked.organization,
            model_sources=asked.allow_model_sources,
            embedding_model=asked.embedding_model,
            private_webhooks=asked.allow_private_webhooks
            or asked.host is None
            or auth.is_loopback(asked.host),
            unsafe_graders=asked.unsafe_graders,
            trainer=tuple(shlex.split(asked.trainer)) if asked.trainer else TRAINER,
            jobs_at_once=asked.jobs,
            processes=asked.processes,
            worker=_worker(data),
        )
        hosts = [*asked.allow_host, *([asked.host, socket.gethostname()] if asked.host else [])]
        with _listening(data, asked) as sockets:
            _run(app.make(here, auth.Door(store, hosts)), sockets, asked.parent_death)
        store.close()
    return 0


def _upstreams(asked: argparse.Namespace) -> tuple[Upstream, ...]:
    try:
        return upstreams.read(asked.upstreams, os.environ) if asked.upstreams else ()
    except ValueError as error:
        raise Refused(str(error)) from error


def _engine(
    asked: argparse.Namespace, data: Path, elsewhere: tuple[Upstream, ...], given: context.Engine | None
) -> context.Engine:
    try:
        own = given or engines.own(asked.engine, asked.vllm, data, _short(data / "engine.sock"), os.environ)
    except ValueError as error:
        raise Refused(str(error)) from error
    return engines.everywhere(own, data, elsewhere, asked.upstream_cache << 20)


def keys(asked: argparse.Namespace) -> int:
    """Add, list or revoke a key; the text of a new key is printed once and not kept."""
    store = _open_store(asked, _folder(asked.data))
    try:
        if asked.verb == "add":
            print(auth.add_key(store, asked.name, asked.project))
        elif asked.verb == "revoke":
            auth.revoke_key(store, asked.name)
        else:
            for key in auth.list_keys(store):
                print(f"{key.name}\t{key.project}")
    except ValueError as error:
        raise Refused(str(error)) from error
    finally:
        store.close()
    return 0


def _run(application: Any, sockets: list[socket.socket], parent: int | None) -> None:
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        lifespan="on",
        http=limits.Protocol,
        ws="none",
        loop="asyncio",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    # uvicorn raises the signal again once it has shut down; we still have a socket and a lock to put away.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    async def run() -> None:
        watch = asyncio.create_task(_watch(server, parent)) if parent is not None else None
        await server.serve(sockets=sockets)
        if watch is not None:
            watch.cancel()

    asyncio.run(run())
    log.info("server.stopped")


async def _watch(server: uvicorn.Server, parent: int) -> None:
    while os.getppid() == parent:
        await asyncio.sleep(WATCH)
    log.info("server.orphaned", parent=parent)
    server.should_exit = True


def _folder(path: Path) -> Path:
    path = path.absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{path} cannot be made: {error.strerror}; choose another --data folder") from error
    return path


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold the folder; a second server says who has it."""
    with (data / "server.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(
                f"{data} is served already {_holder(data)}; stop it or choose another --data"
            ) from error
        yield


def _holder(data: Path) -> str:
    try:
        holder = msgspec.json.decode((data / "server.json").read_bytes())
        return f"by process {holder['pid']} on {holder.get('url') or holder['socket']}"
    except (FileNotFoundError, msgspec.DecodeError):
        return "by a process that is starting or stopping"


@contextlib.contextmanager
def _logging(file: Path | None) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stream: TextIO = stack.enter_context(file.open("a", buffering=1)) if file else sys.stderr
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
            logger_factory=structlog.PrintLoggerFactory(stream),
        )
        yield


def _open_store(asked: argparse.Namespace, data: Path) -> Store:
    try:
        return Store(asked.store or f"sqlite:///{data / 'platform.db'}")
    except ValueError as error:
        raise Refused(str(error)) from error


def _check_keys(host: str | None, store: Store) -> None:
    if host is not None and not auth.is_loopback(host) and not auth.list_keys(store):
        raise Refused(
            f"{host} is reachable by others and there is no key; make one with "
            "`python -m reconciler.selfhosted keys add NAME --data DIR`, or use --host 127.0.0.1"
        )


def _worker(data: Path) -> str:
    """Who we are to others on the same store; the same after a restart, which is how we get our jobs back."""
    file = data / "worker"
    if not file.exists():
        file.write_text(f"worker-{secrets.token_hex(8)}")
    return file.read_text()


@contextlib.contextmanager
def _listening(data: Path, asked: argparse.Namespace) -> Iterator[list[socket.socket]]:
    """The sockets, and `server.json` that names them while we listen."""
    paths = [_private_path(data)]
    if asked.uds is not None and asked.uds.absolute() not in paths:
        paths.append(asked.uds.absolute())
    described = data / "server.json"
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_unix(path)) for path in paths]
        url = None
        if asked.host is not None:
            tcp = stack.enter_context(_tcp(asked.host, asked.port))
            sockets.append(tcp)
            host, port = tcp.getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        about = {"pid": os.getpid(), "socket": str(paths[-1] if asked.uds else paths[0]), "url": url}
        temporary = data / "server.json.new"
        temporary.write_bytes(msgspec.json.encode(about))
        os.replace(temporary, described)
        stack.callback(described.unlink, missing_ok=True)
        log.info("server.started", **about)
        yield sockets


def _short(path: Path) -> Path | None:
    return path if len(os.fsencode(path)) <= SOCKET_LENGTH else None


def _private_path(data: Path) -> Path:
    path = data / "platform.sock"
    if _short(path) is not None:
        return path
    folder = Path(tempfile.gettempdir()) / f"reconciler-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise Refused(f"{folder} belongs to someone else; choose a --data folder with a shorter path")
    return folder / (hashlib.sha256(os.fsencode(path)).hexdigest()[:16] + ".sock")


@contextlib.contextmanager
def _unix(path: Path) -> Iterator[socket.socket]:
    """A socket that only its owner can open; one that a dead server left is taken over."""
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise Refused(f"{path} is not a socket; choose another --uds")
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(ConnectionRefusedError):
            probe.connect(str(path))
            raise Refused(f"another server listens on {path}; choose another --uds")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise Refused(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    listener.listen(1024)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _tcp(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, for asyncio turns Nagle's delay off only where it is: 40 ms per answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Refused(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    listener.listen(1024)
    with listener:
        yield listener
