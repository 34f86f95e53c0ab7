"""A client that sends too much, too slowly or no HTTP at all is refused, and costs nobody else anything."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from contract_server import Platform

from reconciler.selfhosted import limits, wire


class Hasty(limits.Protocol):
    head_seconds = 0.1
    lull_seconds = 0.1


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Platform]:
    """A platform whose patience ends soon."""
    platform = Platform(tmp_path)
    config = uvicorn.Config(platform.application, http=Hasty, log_config=None, timeout_graceful_shutdown=1)
    platform.uvicorn = uvicorn.Server(config)
    with platform.running():
        yield platform


def said_to(platform: Platform, content: bytes, more: int = 0) -> tuple[int, str]:
    """Send some bytes, and up to so many `x` after them; the status and the message until it hangs up."""
    with socket.create_connection(platform.socket.getsockname()) as line:
        line.sendall(content)
        try:
            for _ in range(more // 4096):
                line.sendall(b"x" * 4096)
        except OSError:
            pass  # it has hung up on us
        received = bytearray()
        try:
            while chunk := line.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass  # it did not read all that we sent
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    return (int(head.split()[1]), json.loads(body)["error"]["message"]) if head else (0, "")


HEAD = b"POST /v1/evals HTTP/1.1\r\nhost: localhost\r\n"


def test_a_head_that_never_ends_times_out(hasty: Platform) -> None:
    assert 408 == said_to(hasty, HEAD)[0]


def test_a_client_that_says_nothing_is_hung_up_on(hasty: Platform) -> None:
    assert 408 == said_to(hasty, b"")[0]


def test_a_body_that_pauses_too_long_is_hung_up_on(hasty: Platform) -> None:
    assert 0 == said_to(hasty, HEAD + b"content-length: 10\r\n\r\n{")[0]


@pytest.mark.parametrize("header", [b"a: ", b"a: b\r\n" * 20_000 + b"c: "])
def test_a_head_that_is_too_large_is_refused(hasty: Platform, header: bytes) -> None:
    status, _ = said_to(hasty, HEAD + header, 100 * limits.HEAD_LIMIT)

    assert status in (431, 0)  # 0: it hung up while we were still sending, and the answer was lost


def test_a_complete_head_that_is_too_large_is_refused_in_a_sentence(hasty: Platform) -> None:
    with httpx.Client(base_url=hasty.url, trust_env=False, verify=False) as http:
        refused = http.get("/v1/models", headers={"a": "b" * limits.HEAD_LIMIT})

    assert (431, "the headers exceed 65536 bytes") == (
        refused.status_code,
        refused.json()["error"]["message"],
    )


def test_what_is_no_http_is_refused_in_a_sentence(hasty: Platform) -> None:
    assert (400, "this is no HTTP request") == said_to(hasty, b"\x16\x03\x01\r\n\r\n")


def test_a_client_that_thinks_between_its_requests_is_waited_for(hasty: Platform) -> None:
    with httpx.Client(base_url=hasty.url, trust_env=False, verify=False) as http:
        answers = [http.get("/v1/models"), http.post("/v1/embeddings", json={"model": "tiny", "input": "a"})]

    assert [200, 200] == [each.status_code for each in answers]


def test_a_body_that_is_too_large_is_refused(hasty: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.body_bytes, "__defaults__", (1000,))
    monkeypatch.setattr(wire.body_json, "__defaults__", (1000,))

    with httpx.Client(base_url=hasty.url, trust_env=False, verify=False) as http:
        refused = http.post("/v1/evals", content=b"[" + b"1," * 1000)

    assert 413 == refused.status_code
