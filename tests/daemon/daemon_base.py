"""A daemon as a process of its own, and a real repository for it to follow."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core_base import edit, write

PROJECT = """\
apiVersion: reconciler/v1
kind: Project
metadata: {{name: demo}}
spec:
  platforms:
    local: {{type: openai, base_url: "{url}", api_key_env: DEMO_KEY}}
{more}"""
WHO = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
       for what, value in (("NAME", "Ada"), ("EMAIL", "ada@example.org"))},
}  # fmt: skip
PATIENCE = 60.0  # seconds until a test gives up; a loaded machine is slow


def git(folder: Path, *command: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *command], env={**os.environ, **WHO}, capture_output=True, text=True
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


class Origin:
    """A bare repository, and somebody's clone of it in which the manifests are at `manifests/`."""

    def __init__(self, folder: Path) -> None:
        self.bare, self.clone = folder / "origin.git", folder / "clone"
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(self.bare))
        git(folder, "clone", "--quiet", str(self.bare), str(self.clone))
        git(self.clone, "checkout", "--quiet", "-B", "main")
        self.tree = self.clone / "manifests"

    @property
    def url(self) -> str:
        return self.bare.as_uri()

    @property
    def tip(self) -> str:
        return git(self.bare, "rev-parse", "main")

    def push(self, message: str = "a change", *options: str) -> str:
        """Commit everything and push it; the commit."""
        git(self.clone, "add", "--all")
        git(self.clone, "commit", "--quiet", "--allow-empty", "-m", message, *options)
        git(self.clone, "push", "--quiet", "--force", "origin", "HEAD:main")
        return self.tip

    def edit(self, file: str, before: str, after: str) -> str:
        edit(self.tree / file, before, after)
        return self.push(f"{before} → {after}")

    def pull(self) -> None:
        git(self.clone, "pull", "--quiet", "--rebase", "origin", "main")

    def show(self, file: str) -> str:
        return git(self.bare, "show", f"main:manifests/{file}")

    def write(self, url: str, more: str = "") -> str:
        """The core's small tree, on a platform at this address."""
        write(self.tree)
        (self.tree / "project.yaml").write_text(PROJECT.format(url=url, more=more))
        return self.push("all of it")


class Daemon:
    """`reconciler run` with its log."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process, self.log = process, log

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event]

    def until(
        self, event: str, fits: Callable[[dict[str, Any]], bool] = lambda _: True, after: int = 0
    ) -> dict[str, Any]:
        """The first such event after so many events of any name."""
        found: list[dict[str, Any]] = []

        def seen() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            found[:] = [e for e in self.events[after:] if e["event"] == event and fits(e)]
            return bool(found)

        until(seen, self.log.read_text)
        return found[0]

    def settles(self, after: int = 0) -> dict[str, Any]:
        return self.until("pass.done", lambda each: bool(each["settled"]), after)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def until(true: Callable[[], bool], why: Callable[[], str] = lambda: "") -> None:
    """Looks until something is true."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, why()
        time.sleep(0.02)


@contextlib.contextmanager
def running(log: Path, *arguments: str | Path, env: Mapping[str, str] = {}) -> Iterator[Daemon]:
    """A daemon that is killed at the end, unless it was stopped."""
    command = [sys.executable, "-m", "reconciler", "run", *map(str, arguments)]
    with log.open("ab") as out:
        around = {**os.environ, **WHO, **env}
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=around)
    try:
        yield Daemon(process, log)
    finally:
        process.kill()
        process.wait()
