"""
The platform inside the project's data folder: a process of its own on a Unix socket.

Whoever needs it first starts it, others share it, and the one that started it stops it. Those that
still use it then start it again, with the first request that misses it.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import httpx
import msgspec

from reconciler.errors import Unreachable
from reconciler.platforms.exchange import sanitised
from reconciler.platforms.openai import Clock, OpenAI
from reconciler.platforms.wrappers import ReadOnly
from reconciler.world import Object, Platform

CAPABILITIES = frozenset({"idempotency", "aliases", "model_sources"})
WAIT = 60.0  # seconds for a server to answer; one that is stopping saves its training first
STOP = 30.0  # seconds it gets for that before it is killed
LOOK = 0.02  # seconds between two looks whether it answers
AGAIN = 0.5  # seconds before another server is started where one was found that does not answer yet
PACKAGED = "tiny-chat"  # the base model that comes with the platform: there before anything was made
TAKEN = "is served already"  # in the last words of a server that found another one in its folder


@contextlib.contextmanager
def attach(
    data: Path, *, name: str = "embedded", clock: Clock = Clock(), trains: bool = True
) -> Iterator[OpenAI]:
    """
    The platform that keeps its things in `data`, started if nobody runs it. Raises `Unreachable`.

    What is started for a moment need not go on with its jobs: then it `trains` nothing.
    """
    server = Server(data, *([] if trains else ["--jobs", "0"]))
    with contextlib.closing(server), _client(server, name, clock) as platform:
        yield platform


@contextlib.contextmanager
def look(data: Path, *, name: str = "embedded", clock: Clock = Clock()) -> Iterator[Platform]:
    """
    The same to look at only. Where nothing was ever kept, an empty world and no process. A server that
    is started for a look trains nothing.
    """
    server = Server(data, "--jobs", "0")
    if not server.exists():
        yield Empty(name)
        return
    with contextlib.closing(server), _client(server, name, clock) as platform:
        yield ReadOnly(platform)


@contextlib.contextmanager
def _client(server: "Server", name: str, clock: Clock) -> Iterator[OpenAI]:
    server.reach()  # so that what is wrong is said now, not by the first request
    platform = OpenAI(
        "http://localhost/v1",
        name=name,
        transport=_Reviving(server),
        place=str(server.data),
        advice=f"its log is {server.log}",
        clock=clock,
    )
    with contextlib.closing(platform):
        yield platform


class Server:
    """The server of one data folder: found, or started and then ours to stop."""

    def __init__(self, data: Path, *options: str, wait: float = WAIT) -> None:
        self.data = data.absolute()
        self.log = self.data / "platform.log"
        self._options = options
        self._wait = wait
        self._reaching = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._last_words: IO[bytes] | None = None
        self._answered = False  # our child, or another one in its place
        self._not_before = 0.0  # when to try again after another server was found in the folder

    def exists(self) -> bool:
        """Whether anything is kept or served there, as far as we may know."""
        try:
            return any((self.data / file).exists() for file in ("platform.db", "server.json"))
        except OSError:
            return True  # not seeing is not absence: let the server say what is wrong

    def reach(self) -> Path:
        """The socket of a server that answers. Starts one if none does; several that try end up with one."""
        with self._reaching:
            until = time.monotonic() + self._wait
            while time.monotonic() < until:
                socket = self._socket()
                if socket is not None and self._answers(socket):
                    self._answered = True
                    return socket
                self._see_to_child()
                time.sleep(LOOK)
        raise Unreachable(
            f"a platform holds {self.data} but has not answered for {self._wait:.0f} seconds;"
            f" its log is {self.log}"
        )

    def close(self) -> None:
        """Stop the server if we started it; it saves what it is training."""
        child, self._child = self._child, None
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(STOP)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _socket(self) -> Path | None:
        try:
            described = msgspec.json.decode((self.data / "server.json").read_bytes())
        except (OSError, msgspec.DecodeError):
            return None
        return Path(described["socket"])

    def _answers(self, socket: Path) -> bool:
        transport = httpx.HTTPTransport(uds=str(socket), verify=False, trust_env=False)
        try:
            with httpx.Client(transport=transport, trust_env=False, timeout=5.0) as client:
                return client.get("http://localhost/v1/reconciler").is_success
        except httpx.TransportError:
            return False

    def _see_to_child(self) -> None:
        """Start our server unless it is on its way or another one is; raise if it cannot start at all."""
        if self._child is not None:
            if self._child.poll() is None:
                return
            failed, self._child = self._child.returncode, None
            if not self._answered:
                self._explain(failed)
        if time.monotonic() >= self._not_before:
            self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "reconciler.selfhosted", "serve", "--data", str(self.data)]
        command += ["--log", str(self.log), "--parent-death", str(os.getpid()), *self._options]
        self._answered = False
        self._last_words = tempfile.TemporaryFile()  # noqa: SIM115 (the child writes it)
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._last_words,
            start_new_session=True,  # Ctrl-C is for us; we stop it when we have finished
        )

    def _explain(self, code: int) -> None:
        """Raise with the last words of a server that failed; return if it found another one there."""
        assert self._last_words is not None
        self._last_words.seek(0)
        lines = self._last_words.read().decode(errors="replace").strip().splitlines()
        said = sanitised(lines[-1].removeprefix("error: ")) if lines else f"it ended with {code}"
        if TAKEN in said:
            self._not_before = time.monotonic() + AGAIN
            return
        if said.startswith("ModuleNotFoundError"):
            raise Unreachable(
                f"the embedded platform is not installed ({said}); install reconciler with its extra `platform`"
            )
        raise Unreachable(
            f"the embedded platform of {self.data} did not start: {said}; its log is {self.log}"
        )


class _Reviving(httpx.BaseTransport):
    """Reaches the server wherever it is now. Only a request that was never sent is sent to another one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._guard = threading.Lock()
        self._all: list[httpx.HTTPTransport] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        current = self._all[-1] if self._all else self._renewed(None)
        try:
            return current.handle_request(request)
        except httpx.ConnectError:
            return self._renewed(current).handle_request(request)

    def close(self) -> None:
        for transport in self._all:
            transport.close()

    def _renewed(self, broken: httpx.HTTPTransport | None) -> httpx.HTTPTransport:
        with self._guard:
            if not self._all or self._all[-1] is broken:
                socket = self._server.reach()
                self._all.append(httpx.HTTPTransport(uds=str(socket), verify=False, trust_env=False))
            return self._all[-1]


class Empty:
    """A platform on which nothing was ever made."""

    capabilities = CAPABILITIES

    def __init__(self, name: str = "embedded") -> None:
        self.name = name

    def list(self, collection: str, **where: str) -> list[Object]:
        return [{"id": PACKAGED, "object": "model", "created": 0}] if collection == "models" else []

    def latest(self, collection: str, limit: int, **where: str) -> Sequence[Object]:
        return ()

    def get(self, collection: str, id: str) -> Object | None:
        return None

    def content(self, id: str) -> NoReturn:
        raise AssertionError(f"an empty platform was asked for the bytes of {id}")

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> NoReturn:
        raise AssertionError(f"an empty platform was asked to create one of {collection}")

    def delete(self, collection: str, id: str) -> NoReturn:
        raise AssertionError(f"an empty platform was asked to delete one of {collection}")
