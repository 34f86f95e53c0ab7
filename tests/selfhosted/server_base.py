"""A server process to test with, and what is often done to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai

HERE = Path(__file__).parent
ROWS = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 10


class Server:
    """One server process over one data folder; it may be killed and started again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._clients: dict[tuple[str, str], openai.OpenAI] = {}

    def command(self) -> list[str]:
        trainer = f"{sys.executable} {HERE / 'server_trainer.py'}"
        return [sys.executable, str(HERE / "server_process.py"), "--trainer", trainer]

    def start(self, *arguments: str) -> Server:
        command = [*self.command(), "--data", str(self.data), "--host", "127.0.0.1"]
        command += ["--log", str(self.data / "server.log")]
        self.process = subprocess.Popen([*command, *arguments])
        about = until(lambda: self._about(self.process))
        self.url = about["url"]
        return self

    def _about(self, process: subprocess.Popen[bytes] | None) -> Any:
        assert process is not None
        assert process.poll() is None, "the server ended at its start"
        try:
            about = json.loads((self.data / "server.json").read_text())
        except FileNotFoundError:
            return None
        return about if about["pid"] == process.pid else None

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait()

    def http(self, **headers: str) -> httpx.Client:
        # Without verification, which nothing here needs, no certificates are read.
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False, verify=False)

    def client(self, key: str = "unused") -> openai.OpenAI:
        """The official SDK, without its retries."""
        if (self.url, key) not in self._clients:
            transport = httpx.Client(trust_env=False, verify=False)
            made = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, http_client=transport)
            self._clients[self.url, key] = made
        return self._clients[self.url, key]

    def children(self, named: str) -> list[int]:
        """The processes that the server started and whose command line holds a word."""
        assert self.process is not None
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in pids if named in Path(f"/proc/{pid}/cmdline").read_text()]

    def log(self) -> str:
        return (self.data / "server.log").read_text()


def until(found: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `found` finds, as soon as it is something; the test fails if it never is."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"nothing found in {seconds} s"
        time.sleep(0.03)
    return value


def register(server: Server, folder: Path) -> str:
    """Make a folder a base model under the folder's name."""
    id = folder.name
    with server.http() as http:
        asked = {"id": id, "source": {"folder": str(folder)}}
        assert http.post("/v1/reconciler/models", json=asked).status_code == 200
    return id


def upload(server: Server, purpose: Any = "fine-tune", **plan: Any) -> str:
    """Upload ten rows, and what the stub trainer is to do with them."""
    rows = ROWS + (json.dumps({"plan": plan}).encode() + b"\n" if plan else b"")
    return server.client().files.create(file=("rows.jsonl", rows), purpose=purpose).id


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
