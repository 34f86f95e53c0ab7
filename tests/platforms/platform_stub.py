"""A real HTTP server on a real port that speaks enough of the API, and misbehaves when told to."""

import contextlib
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

Behaviour = Callable[["Handler"], None]


class Seen(NamedTuple):
    """A request as it arrived."""

    what: str  # "POST fine_tuning/jobs"
    query: dict[str, str]
    headers: dict[str, str]
    head: bytes  # the first 64 KiB of the body
    size: int
    digest: str

    def json(self) -> Any:
        return json.loads(self.head)


class Stub:
    """`on(what, *behaviours)` scripts the next answers; the last one stays. Otherwise it keeps objects."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.objects: dict[str, list[dict[str, Any]]] = {}
        self.scripts: dict[str, list[Behaviour]] = {}
        self.over = threading.Event()
        self.arrived = threading.Semaphore(0)  # once per request, whole or broken off
        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.server.stub = self  # type: ignore[attr-defined]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def on(self, what: str, *behaviours: Behaviour) -> None:
        self.scripts[what] = list(behaviours)

    def requests(self, what: str) -> list[Seen]:
        return [each for each in self.seen if each.what == what]

    def count(self, what: str) -> int:
        return len(self.requests(what))

    def stop(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is part of the test."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def stub(self) -> Stub:
        return self.server.stub  # type: ignore[attr-defined, no-any-return]

    def answer(self) -> None:
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query))
        self.where = url.path.removeprefix("/v1/")
        digest, head, left = hashlib.sha256(), b"", int(self.headers.get("Content-Length") or 0)
        size = left
        while left and (chunk := self._some(left)):
            digest.update(chunk)
            head = (head + chunk)[: 1 << 16] if len(head) < 1 << 16 else head
            left -= len(chunk)
        self.headers_seen = {key.lower(): value for key, value in self.headers.items()}
        what = f"{self.command} {self.where}"
        self.seen = Seen(what, self.query, self.headers_seen, head, size - left, digest.hexdigest())
        self.stub.seen.append(self.seen)
        self.stub.arrived.release()
        if left:
            return self.hang_up()
        script = self.stub.scripts.get(what)
        behaviour: Behaviour = (script.pop(0) if len(script) > 1 else script[0]) if script else usual
        return behaviour(self)

    def _some(self, most: int) -> bytes:
        try:
            return self.rfile.read1(min(most, 1 << 20))
        except OSError:
            return b""

    do_GET = do_POST = do_DELETE = answer

    def reply(self, status: int, body: Any, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def error(code: str | None, message: str = "no") -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def usual(to: Handler) -> None:
    """Keeps objects: lists by pages, gets, creates, deletes."""
    objects = to.stub.objects
    collection, _, id = to.where.rpartition("/")
    if to.command == "POST":
        made = {"id": f"obj-{len(to.stub.seen)}", "object": "thing"}
        objects.setdefault(to.where, []).append(made)
        return to.reply(200, made)
    if to.command == "GET" and to.where in objects:
        ids = [each["id"] for each in objects[to.where]]
        start = ids.index(to.query["after"]) + 1 if "after" in to.query else 0
        end = start + int(to.query.get("limit", len(ids)))
        return to.reply(
            200, {"object": "list", "data": objects[to.where][start:end], "has_more": end < len(ids)}
        )
    found = [each for each in objects.get(collection, []) if each["id"] == id]
    if to.command == "DELETE" and found:
        objects[collection].remove(found[0])
    return to.reply(200, found[0]) if found else to.reply(404, error(None, f"No such object: {id}"))


def says(status: int, body: Any, **headers: str) -> Behaviour:
    return lambda to: to.reply(status, body, **headers)


def drops(to: Handler) -> None:
    to.hang_up()


def resets(to: Handler) -> None:
    to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    to.close_connection = True
    to.connection.close()


def breaks_off(to: Handler) -> None:
    """Half a reply."""
    to.send_response(200)
    to.send_header("Content-Length", "1000")
    to.end_headers()
    to.wfile.write(b'{"id": "ft')
    to.hang_up()


def cuts_short(to: Handler) -> None:
    """Half a reply that nobody can tell from a whole one by its length."""
    to.send_response(200)
    to.send_header("Connection", "close")
    to.end_headers()
    to.wfile.write(b'{"id": "ftjob-1", "object"')
    to.hang_up()


def hangs(to: Handler) -> None:
    to.stub.over.wait()


def drips(to: Handler) -> None:
    """A byte at a time, each in time, and never done."""
    to.send_response(200)
    to.send_header("Content-Length", "1000000")
    to.end_headers()
    while not to.stub.over.wait(0.01):
        to.wfile.write(b" ")
