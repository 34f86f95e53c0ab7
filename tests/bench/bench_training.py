"""
A job of each method through the platform against the same TRL run without it, start-up included, in one run.

`python -m tests.bench training`: upload, train, save, load in the serving engine and answer, against
`bare_training.py`, a script that tokenizes, trains, evaluates and saves as often. Beside it, how far from the
truth the finish was that the job told when a tenth of its steps were done, and at worst after that.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from reconciler.platforms import embedded
from reconciler.selfhosted import tiny
from reconciler.world import Upload

MANIFESTS = Path(__file__).parents[2] / "manifests"
BARE = Path(__file__).with_name("bare_training.py")
WANTED = 1.15  # times the bare run
NEAR = 0.25  # of the time from the first step to the end


class Measured(NamedTuple):
    """A job of about a minute on a quiet machine."""

    data: Path
    base: Path
    epochs: int
    batch: int
    files: tuple[str, str] = ("train.jsonl", "validation.jsonl")


class Seen(NamedTuple):
    seconds: float
    finish: tuple[float, float]  # how far off it was at a tenth of the steps, and at worst after that


TINY = Path(tiny.__file__).parent
METHODS = MANIFESTS / "methods"
JOBS = {
    "sft": Measured(MANIFESTS / "data", TINY, 4, 16, ("triage-train.jsonl", "triage-validation.jsonl")),
    "dpo": Measured(METHODS / "dpo" / "data", TINY, 12, 16),
    "rft": Measured(METHODS / "rft" / "data", TINY, 2, 8),
    "vision": Measured(METHODS / "vision" / "data", METHODS / "vision" / "model", 16, 16),
}


def main(smoke: bool, methods: Sequence[str] = tuple(JOBS)) -> None:
    for method in methods:
        with tempfile.TemporaryDirectory() as folder:
            bare, job = measure(method, JOBS[method], Path(folder), smoke)
        times = f"{job.seconds / bare:.2f} times; wanted ≤ {WANTED}"
        print(f"{method}: bare TRL {bare:.1f} s, a job on the platform {job.seconds:.1f} s: {times}")
        first, worst = job.finish
        print(
            f"  finish told at a tenth {first:.0%} off, at worst {worst:.0%}; wanted ≤ {NEAR:.0%}", flush=True
        )


def measure(method: str, of: Measured, place: Path, smoke: bool) -> tuple[float, Seen]:
    """Seconds of the bare run, and the job."""
    epochs, files = 1 if smoke else of.epochs, []
    for name in of.files:
        files.append(place / name)
        lines = (of.data / name).read_text().splitlines(keepends=True)
        files[-1].write_text("".join(lines[: 32 if smoke else None]))
    start = time.perf_counter()
    command = [sys.executable, BARE, method, of.base, *files, place / "bare", epochs]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    bare = time.perf_counter() - start
    return bare, train(place / "platform", of, files, asked(method, epochs, of.batch))


def asked(method: str, epochs: int, batch: int) -> dict[str, Any]:
    hyperparameters: dict[str, Any] = {"n_epochs": epochs, "batch_size": batch}
    if method == "dpo":
        return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters | {"beta": 0.1}}}
    if method == "rft":
        documents = yaml.safe_load_all((METHODS / "rft" / "measure.yaml").read_text())
        spec = next(document["spec"] for document in documents if document["kind"] == "Grader")
        options = {
            "grader": {**spec, "name": "reward"},
            "hyperparameters": hyperparameters | {"eval_interval": 16},
        }
        return {"type": "reinforcement", "reinforcement": options}
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def train(data: Path, of: Measured, paths: Sequence[Path], method: dict[str, Any]) -> Seen:
    with embedded.attach(data) as platform:
        name = "tiny-chat"
        if of.base != TINY:
            body = {"id": "base", "source": {"folder": str(of.base)}}
            name = platform.create("reconciler/models", body, key="base")["id"]
        start = time.perf_counter()
        files = [
            platform.create(
                "files", {"purpose": "fine-tune", "file": Upload(path, path.name)}, key=path.name
            )["id"]
            for path in paths
        ]
        body = {
            "model": name, "training_file": files[0], "validation_file": files[1], "seed": 7,
            "method": method, "reconciler": {"tuning": {"type": "full"}},
        }  # fmt: skip
        job = platform.create("fine_tuning/jobs", body, key="job")["id"]
        while (found := platform.get("fine_tuning/jobs", job) or {})["status"] not in ("succeeded", "failed"):
            time.sleep(0.2)
        took, ended = time.perf_counter() - start, time.time()
    assert found["status"] == "succeeded", found["error"]
    return Seen(took, far_off(data / "jobs" / job / "events.jsonl", ended))


def far_off(events: Path, ended: float) -> tuple[float, float]:
    told = [json.loads(line) for line in events.read_text().splitlines()]
    steps = [(event["at"], event["data"]["eta_s"]) for event in told if event["type"] == "metrics"]
    whole = ended - steps[0][0]
    first, *later = (abs(at + left - ended) / whole for at, left in steps[math.ceil(len(steps) / 10) - 1 :])
    return first, max([first, *later])
