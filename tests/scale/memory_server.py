"""The platform in memory, on a real port: fast enough for hundreds of appliers, and it counts what it is asked for."""

import contextlib
import json
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from memory_platform import MemoryPlatform

from reconciler.world import Upload

CAPABILITIES = frozenset({"aliases"})  # no idempotency: what is asked for twice is made twice


class MemoryServer:
    """`MemoryPlatform` over HTTP. A job or a run is over once somebody looked at it."""

    def __init__(self) -> None:
        self.platform = MemoryPlatform(capabilities=CAPABILITIES)
        self.asked: Counter[str] = Counter()
        self.at_request: Callable[[], None] = lambda: None  # called before and after each is answered
        self._lock = threading.RLock()
        self._folder = tempfile.TemporaryDirectory()
        self._upload = Path(self._folder.name) / "upload"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.memory = self  # type: ignore[attr-defined]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextlib.contextmanager
    def running(self) -> Iterator["MemoryServer"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._folder.cleanup()
            thread.join()

    def count(self, collection: str) -> int:
        """How many objects of a collection were made, whatever stands."""
        return self.asked[collection]

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        with self._lock:
            match method:
                case "GET":
                    return self._get(path, query)
                case "POST":
                    return self._make(path, body)
            collection, _, id = path.rpartition("/")
            self.platform.delete(collection, unquote(id))
            return 200, {"id": id, "deleted": True}

    def _get(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path == "reconciler":
            return 200, {"object": "reconciler.platform", "capabilities": sorted(CAPABILITIES)}
        collection, _, id = path.rpartition("/")
        if path not in self.platform.objects and (found := self.platform.get(collection, unquote(id))):
            return 200, found
        if path not in self.platform.objects and not re.fullmatch(
            r"[a-z_/]+|evals/.+/runs(/.+)?|.+/(events|checkpoints)", path
        ):
            return 404, {"error": {"message": f"no such object: {id}", "code": "not_found"}}
        where = {key: value for key, value in query.items() if key.startswith("metadata[")}
        listed = self.platform.list(path, **where)
        if path == "fine_tuning/jobs":
            self.platform.finish_jobs()
        elif path.endswith("/runs"):
            self.platform.finish_runs(lambda model, index: model.startswith("ft:"))
        return 200, {"object": "list", "data": listed, "has_more": False}

    def _make(self, path: str, body: bytes) -> tuple[int, Any]:
        collection = re.sub(r"evals/[^/]+/runs$", "runs", path)
        self.asked[collection] += 1
        asked = _multipart(body, self._upload) if path == "files" else json.loads(body or b"{}")
        made = self.platform.create(path, asked, key="none")
        return (201 if path.startswith("evals") else 200), made


def _multipart(body: bytes, path: Path) -> dict[str, Any]:
    """An upload's fields; its bytes are in `path`, for as long as they have to be counted."""
    purpose = re.search(rb'name="purpose"\r\n\r\n([a-z-]+)', body)
    filename = re.search(rb'filename="([^"]+)"', body)
    assert purpose and filename
    path.write_bytes(body[body.index(b"\r\n\r\n", filename.end()) + 4 : body.rindex(b"\r\n--")])
    return {"file": Upload(path, unquote(filename[1].decode())), "purpose": purpose[1].decode()}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # broken off: nothing was asked
            self.close_connection = True
            return
        memory: MemoryServer = self.server.memory  # type: ignore[attr-defined]
        memory.at_request()
        status, said = memory.answer(
            self.command, url.path.removeprefix("/v1/"), dict(parse_qsl(url.query)), body
        )
        memory.at_request()
        with contextlib.suppress(ConnectionError):  # nobody waits for it any more
            self._reply(status, said)

    def _reply(self, status: int, said: Any) -> None:
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = answer
