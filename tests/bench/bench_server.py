"""
Requests per second of the platform server's reads, its start, and uploads, against floors of the same run.

`python -m tests.bench server`: with nothing else, and while a supervised job trains the packaged model. The
floor of a read is the endpoint that asks no database; of an upload, a plain fsynced copy.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from reconciler.selfhosted.registry import models

TESTS = Path(__file__).parents[1]
SERVER = TESTS / "selfhosted" / "server_process.py"
ROWS = TESTS.parent / "manifests" / "data" / "triage-train.jsonl"
EPOCHS = 50  # longer than we measure; the job is cancelled then
WANTED = 1000  # requests a second
CONNECTIONS = 16


def main(smoke: bool) -> None:
    requests, size = (320, 4 << 20) if smoke else (8000, 200 << 20)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving(Path(folder)) as (url, started):
        print(f"ready after {started:.2f} s (wanted: < 0.8 s on an idle machine)")
        with httpx.Client(base_url=url, timeout=120) as http:
            made = [send(http, b'{"a": 1}\n') for _ in range(40)]
            paths = ("/v1/reconciler", f"/v1/files/{made[0]}", "/v1/files?limit=20", "/v1/fine_tuning/jobs")
            for beside in (False, True):
                with training(http) if beside else contextlib.nullcontext():
                    for path in paths:
                        rate = asyncio.run(requests_per_second(url, path, requests))
                        when = "training" if beside else "idle"
                        print(f"{when:8}  {path.partition('file-')[0]:24} {rate:7.0f} requests/s", flush=True)
            print(f"wanted: ≥ {WANTED} requests/s")
            upload(http, size, Path(folder))


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, float]]:
    start = time.perf_counter()
    command = [sys.executable, str(SERVER), "--data", str(folder), "--host", "127.0.0.1"]
    with subprocess.Popen([*command, "--log", str(folder / "log")]) as process:
        described = folder / "server.json"
        while not described.exists():
            time.sleep(0.005)
        url = httpx.Response(200, content=described.read_bytes()).json()["url"]
        httpx.get(f"{url}/v1/reconciler", timeout=30).raise_for_status()
        yield url, time.perf_counter() - start
        process.terminate()


@contextlib.contextmanager
def training(http: httpx.Client) -> Iterator[None]:
    """A job that takes its steps while we measure."""
    hyperparameters = {"n_epochs": EPOCHS, "batch_size": 16}
    wanted = {
        "model": models.PACKAGED,
        "training_file": send(http, ROWS.read_bytes(), "fine-tune"),
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    }
    job = f"/v1/fine_tuning/jobs/{http.post('/v1/fine_tuning/jobs', json=wanted).raise_for_status().json()['id']}"
    await_step(http, job)
    yield
    status = http.get(job).json()["status"]
    assert status == "running", f"the job is {status}: it did not train all the time"
    http.post(f"{job}/cancel").raise_for_status()


def await_step(http: httpx.Client, job: str) -> None:
    """Wait for the first step, which comes after torch and the model are loaded."""
    while not any(event["type"] == "metrics" for event in http.get(f"{job}/events").json()["data"]):
        found = http.get(job).json()
        assert found["status"] in ("validating_files", "queued", "running"), found["error"]
        time.sleep(0.2)


async def requests_per_second(url: str, path: str, requests: int) -> float:
    """Over raw kept-alive connections, so that a client library is not what is measured."""
    host, port = url.removeprefix("http://").split(":")
    asked = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    async def ask(times: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(times):
            writer.write(asked)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(ask(requests // CONNECTIONS) for _ in range(CONNECTIONS)))
    return requests / (time.perf_counter() - start)


def upload(http: httpx.Client, size: int, folder: Path) -> None:
    content = os.urandom(size)
    start = time.perf_counter()
    with (folder / "floor").open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    floor = time.perf_counter() - start
    start = time.perf_counter()
    send(http, content)
    took = time.perf_counter() - start
    print(f"upload of {size >> 20} MiB {took:.2f} s ({took / floor:.1f} × write and fsync, {floor:.2f} s)")


def send(http: httpx.Client, content: bytes, purpose: str = "evals") -> str:
    form, files = {"purpose": purpose}, {"file": ("rows.jsonl", content)}
    return str(http.post("/v1/files", data=form, files=files).raise_for_status().json()["id"])
