"""The example's own manifests, the commands as processes, and what there is once they ran."""

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.platforms import embedded

MANIFESTS = Path(__file__).parents[2] / "manifests"
TUNED = "FineTuneJob/support"
LONGEST = 900.0  # seconds that anything here may take on a busy machine


class World(NamedTuple):
    """What there is, and what was ever asked for."""

    files: int
    jobs: list[str]
    evals: int
    runs: int
    intents: int
    release: str


def reconciler(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "reconciler", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)


def world(tree: Path) -> World:
    with embedded.look(tree / ".reconciler" / "platform") as platform:
        evals = platform.list("evals")
        with contextlib.closing(sqlite3.connect(tree / ".reconciler" / "journal.db")) as journal:
            [(intents,)] = journal.execute("select count(*) from intents")
        return World(
            files=sum(1 for file in platform.list("files") if "@support." in str(file["filename"])),
            jobs=[str(job["id"]) for job in platform.list("fine_tuning/jobs")],
            evals=len(evals),
            runs=sum(len(platform.list(f"evals/{each['id']}/runs")) for each in evals),
            intents=intents,
            release=str(platform.list("reconciler/aliases")[0]["model"]),
        )


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text, f"{before!r} is not in {path}"
    path.write_text(text.replace(before, after, 1))


def copied(folder: Path) -> Path:
    """The example, as git has it."""
    ours = shutil.ignore_patterns(".reconciler", "releases", "*.py", "__pycache__")
    return Path(shutil.copytree(MANIFESTS, folder / "manifests", ignore=ours))


@contextlib.contextmanager
def daemon(tree: Path, end: signal.Signals = signal.SIGTERM) -> Iterator[Iterator[dict[str, Any]]]:
    """`reconciler run` over a tree, as the passes that it logs; ended by a signal."""
    command = [sys.executable, "-m", "reconciler", "run", str(tree), "--interval", "0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    events = (json.loads(line) for line in process.stdout if line.startswith("{"))
    try:
        yield (event for event in events if event["event"] == "pass.done")
    finally:
        process.send_signal(end)
        process.communicate()
    assert process.returncode == (-end if end == signal.SIGKILL else 0)
