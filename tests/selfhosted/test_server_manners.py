"""How the server speaks: envelopes, headers, limits, keys to repeat with, and who is let in."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest
from server_base import HERE, ROWS, Server, register, until, upload


def test_every_answer_names_its_request_and_version(shared_server: Server) -> None:
    with shared_server.http() as http:
        answers = [http.get("/v1/models"), http.get("/v1/models/nobody"), http.get("/nowhere")]

    assert ["2020-10-01"] * 3 == [answer.headers["openai-version"] for answer in answers]
    assert 3 == len({answer.headers["x-request-id"] for answer in answers})
    assert all("openai-processing-ms" in answer.headers for answer in answers)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/v1/files/file-none", None, 404),
        ("GET", "/v1/files/file-none/content", None, 404),
        ("GET", "/v1/fine_tuning/jobs/ftjob-none", None, 404),
        ("GET", "/v1/fine_tuning/jobs/ftjob-none/events", None, 404),
        ("POST", "/v1/fine_tuning/jobs/ftjob-none/cancel", None, 404),
        ("PUT", "/v1/files", None, 405),
        ("DELETE", "/v1/fine_tuning/jobs", None, 405),
        ("POST", "/v1/fine_tuning/jobs", b"{", 400),
        ("POST", "/v1/fine_tuning/jobs", b"[]", 400),
        ("POST", "/v1/fine_tuning/jobs", b"{}", 400),
        ("POST", "/v1/fine_tuning/jobs", b"\xff\xfe", 400),
        ("POST", "/v1/fine_tuning/jobs", b"[" * 100_000, 400),
        ("POST", "/v1/fine_tuning/jobs", b'{"model": 1, "training_file": "x"}', 400),
        ("POST", "/v1/fine_tuning/jobs", b'{"model": "\\u0000", "training_file": "\\ud800"}', 400),
        ("POST", "/v1/reconciler/aliases", b'{"name": null}', 400),
        ("POST", "/v1/files", b"x", 400),
        ("GET", "/v1/files?limit=0", None, 400),
        ("GET", "/v1/files?limit=many", None, 400),
        ("GET", "/v1/files?limit=10001", None, 400),
        ("GET", "/v1/files?order=up", None, 400),
        ("GET", "/v1/files?after=file-none", None, 400),
    ],
)
def test_a_refusal_has_all_four_keys(
    shared_server: Server, method: str, path: str, body: bytes | None, status: int
) -> None:
    with shared_server.http() as http:
        answer = http.request(method, path, content=body)

    assert status == answer.status_code, answer.text
    assert {"message", "type", "param", "code"} == answer.json()["error"].keys()


def test_unknown_fields_pass(shared_server: Server, base_model: Path) -> None:
    asked = {"model": register(shared_server, base_model), "training_file": upload(shared_server), "new": 1}

    with shared_server.http() as http:
        assert 200 == http.post("/v1/fine_tuning/jobs", json=asked).status_code


def test_an_unforeseen_error_tells_the_log_and_not_the_client(server: Server) -> None:
    (server.data / "blobs" / "incoming").rename(server.data / "blobs" / "elsewhere")

    with server.http() as http:
        answer = http.post("/v1/files", data={"purpose": "evals"}, files={"file": ("a.jsonl", ROWS)})

    assert (500, "server_error") == (answer.status_code, answer.json()["error"]["type"])
    assert str(server.data) not in answer.text
    failed = until(lambda: [line for line in logged(server) if line["event"] == "request.failed"])[0]
    assert answer.headers["x-request-id"] == failed["request_id"]
    assert "FileNotFoundError" in failed["exception"]


def logged(server: Server) -> list[dict[str, str]]:
    return [json.loads(line) for line in server.log().splitlines()]


def test_a_key_makes_one_job_however_often_it_is_asked(shared_server: Server, base_model: Path) -> None:
    asked = {"model": register(shared_server, base_model), "training_file": upload(shared_server)}
    headers = {"Idempotency-Key": base_model.name}

    def ask(_: int) -> httpx.Response:
        with shared_server.http(**headers) as http:
            return http.post("/v1/fine_tuning/jobs", json=asked)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    with shared_server.http(**headers) as http:
        other = http.post("/v1/fine_tuning/jobs", json=asked | {"suffix": "other"})

    assert [200] * 8 == [answer.status_code for answer in answers]
    assert 1 == len({answer.json()["id"] for answer in answers})
    assert 7 == sum("idempotent-replayed" in answer.headers for answer in answers)
    assert (422, "idempotency_key_reused") == (other.status_code, other.json()["error"]["code"])


def test_a_key_makes_one_file_and_a_restart_does_not_forget_it(new_server: Callable[[], Server]) -> None:
    server = new_server().start()

    def send(content: bytes = ROWS) -> httpx.Response:
        with server.http(**{"Idempotency-Key": "one"}) as http:
            form = {"purpose": "fine-tune"}
            return http.post("/v1/files", data=form, files={"file": ("a.jsonl", content)})

    first = send()
    server.kill()
    server.start()
    second, third = send(), send(ROWS + ROWS)

    assert first.json() == second.json()
    assert 422 == third.status_code
    assert [first.json()["id"]] == [file.id for file in server.client().files.list()]
    assert [first.json()["id"]] == [p.name for p in (server.data / "blobs").rglob("*") if p.is_file()]


def test_a_key_of_a_refused_request_may_be_used_again(shared_server: Server, base_model: Path) -> None:
    asked = {"model": base_model.name, "training_file": upload(shared_server)}

    with shared_server.http(**{"Idempotency-Key": f"{base_model.name}-again"}) as http:
        refused = http.post("/v1/fine_tuning/jobs", json=asked)
        register(shared_server, base_model)
        made = http.post("/v1/fine_tuning/jobs", json=asked)

    assert (404, 200) == (refused.status_code, made.status_code)


def keys(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reconciler.selfhosted", "keys", *arguments, "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_keys_divide_the_server_into_projects(new_server: Callable[[], Server], base_model: Path) -> None:
    server = new_server()
    red, blue = (keys(server.data, "add", name, "--project", name).stdout.strip() for name in ("red", "blue"))
    server.start()
    file = server.client(red).files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")

    with pytest.raises(openai.AuthenticationError):
        server.client("sk-wrong").files.list()
    with server.http() as http:
        assert 401 == http.get("/v1/files").status_code
    assert [file.id] == [f.id for f in server.client(red).files.list()]
    assert [] == list(server.client(blue).files.list())
    for refused in (server.client(blue).files.retrieve, server.client(blue).files.delete):
        with pytest.raises(openai.NotFoundError):
            refused(file.id)
    assert red.encode() not in (server.data / "platform.db").read_bytes() + server.log().encode()

    assert "red\tred" in keys(server.data, "list").stdout
    assert 0 == keys(server.data, "revoke", "red").returncode
    until(lambda: _refused(server, red))
    assert 1 == keys(server.data, "revoke", "red").returncode


def _refused(server: Server, key: str) -> bool:
    with server.http(authorization=f"Bearer {key}") as http:
        return http.get("/v1/files").status_code == 401


def test_listening_to_others_without_a_key_is_refused(new_server: Callable[[], Server]) -> None:
    server = new_server()
    command = [sys.executable, "-m", "reconciler.selfhosted", "serve", "--data", str(server.data)]

    refused = subprocess.run([*command, "--host", "0.0.0.0"], capture_output=True, text=True, check=False)

    assert (1, True) == (refused.returncode, "there is no key" in refused.stderr)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:1234"}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
    ],
)
def test_a_web_page_cannot_reach_a_local_server(
    shared_server: Server, headers: dict[str, str], status: int
) -> None:
    with shared_server.http(**headers) as http:
        assert status == http.get("/v1/models").status_code


def test_a_head_that_is_too_large_is_refused(shared_server: Server) -> None:
    with shared_server.http(a="b" * 70_000) as http:
        assert 431 == http.get("/v1/models").status_code


def test_the_private_socket_is_its_owners_alone_and_needs_no_key(new_server: Callable[[], Server]) -> None:
    server = new_server()
    keys(server.data, "add", "one")
    server.start()
    path = json.loads((server.data / "server.json").read_text())["socket"]

    with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as http:
        about = http.get("http://platform/v1/reconciler").json()

    assert 0o600 == stat.S_IMODE(Path(path).stat().st_mode)
    assert ("reconciler.platform", str(server.data)) == (about["object"], about["data"])
    with server.http() as http:
        assert 401 == http.get("/v1/reconciler").status_code


def test_a_second_server_for_a_folder_says_who_holds_it(shared_server: Server) -> None:
    command = [sys.executable, str(HERE / "server_process.py"), "--data", str(shared_server.data)]

    second = subprocess.run(command, capture_output=True, text=True, check=False)

    assert shared_server.process is not None
    assert 1 == second.returncode
    assert f"served already by process {shared_server.process.pid}" in second.stderr


def test_a_stopped_server_leaves_no_socket_and_a_killed_one_is_replaced(
    new_server: Callable[[], Server],
) -> None:
    server = new_server().start()

    server.kill()
    left = (server.data / "platform.sock").exists()
    code = server.start().kill(signal.SIGTERM)

    assert (True, 0) == (left, code)
    assert not (server.data / "platform.sock").exists()
    assert not (server.data / "server.json").exists()


def test_a_folder_with_a_long_path_has_its_socket_elsewhere(new_server: Callable[[], Server]) -> None:
    server = new_server()
    server.data = server.data / ("long" * 30)
    server.data.mkdir()

    server.start()

    path = json.loads((server.data / "server.json").read_text())["socket"]
    with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as http:
        assert 200 == http.get("http://platform/v1/reconciler").status_code


@pytest.mark.parametrize("lives", [60, 0], ids=["later", "before it was up"])
def test_a_server_ends_with_the_process_that_started_it(new_server: Callable[[], Server], lives: int) -> None:
    server = new_server()
    log = server.data / "server.log"
    arguments = ["serve", "--data", str(server.data), "--log", str(log), "--parent-death"]
    starter = (
        "import os, subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-m', 'reconciler.selfhosted', *{arguments!r}, str(os.getpid())]); "
        f"time.sleep({lives})"
    )
    parent = subprocess.Popen([sys.executable, "-c", starter])
    until(lambda: log.exists() and "server.started" in log.read_text())

    parent.kill()
    parent.wait()

    until(lambda: "server.stopped" in log.read_text())
    assert "server.orphaned" in server.log()
    assert not (server.data / "server.json").exists()


def test_the_server_process_never_imports_what_only_engines_need() -> None:
    heavy = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")
    code = f"import sys; import reconciler.selfhosted.serve; print([m for m in {heavy} if m in sys.modules])"

    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == imported.stdout.strip()


def test_a_port_that_is_taken_is_a_sentence(new_server: Callable[[], Server]) -> None:
    server = new_server()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "reconciler.selfhosted", "serve", "--data", str(server.data)]
        refused = subprocess.run(
            [*command, "--host", "127.0.0.1", "--port", port], capture_output=True, text=True, check=False
        )

    assert (1, True) == (refused.returncode, "cannot listen on" in refused.stderr)
    assert "Traceback" not in refused.stderr
