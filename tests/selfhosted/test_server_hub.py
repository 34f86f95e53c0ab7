"""Base models from the hub, with a local stand-in for the hub."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from server_base import Server

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "modeling_evil.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
}


class Hub(BaseHTTPRequestHandler):
    """The two requests that a snapshot needs: what is in the commit, and each file."""

    def do_GET(self) -> None:
        if self.path.startswith(f"/api/models/org/small/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in FILES]
            self._send(json.dumps({"id": "org/small", "sha": COMMIT, "siblings": siblings}).encode())
        elif self.path.startswith(f"/api/models/org/small/tree/{COMMIT}"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in FILES.items()
            ]
            self._send(json.dumps(tree).encode())
        elif self.path.startswith(f"/org/small/resolve/{COMMIT}/"):
            self._send(FILES[self.path.rpartition("/")[2]])
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    yield
    server.shutdown()
    server.server_close()


def test_a_hub_model_at_a_commit_is_fetched_without_its_code_and_pickles(
    hub: None, new_server: Callable[[], Server]
) -> None:
    server = new_server().start("--allow-model-sources")

    with server.http() as http:
        source = {"hub": "org/small", "revision": COMMIT}
        made = http.post("/v1/reconciler/models", json={"id": "small", "source": source})
        unknown = http.post(
            "/v1/reconciler/models", json={"id": "x", "source": source | {"hub": "org/unknown"}}
        )

    assert 200 == made.status_code, made.text
    assert {"config.json", "tokenizer.json", "model.safetensors"} == {
        file.name for file in (server.data / "hub" / "org--small" / COMMIT).iterdir() if file.is_file()
    }
    assert "small" == server.client().models.retrieve("small").id
    assert (400, "source.hub") == (unknown.status_code, unknown.json()["error"]["param"])


def test_a_hub_that_cannot_be_reached_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, new_server: Callable[[], Server]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    server = new_server().start("--allow-model-sources")

    with server.http() as http:
        source = {"hub": "org/small", "revision": COMMIT}
        answer = http.post("/v1/reconciler/models", json={"id": "small", "source": source})

    assert (400, "source.hub") == (answer.status_code, answer.json()["error"]["param"])
