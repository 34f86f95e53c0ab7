"""
The job's folder: the only thing the process and its supervisor share.

Whatever others may read appears whole or not at all: it is written under a name that starts with a dot,
forced to the disk and renamed. Order carries meaning: a model folder appears before the line that tells
of it, that line before the resume state of the same step, and `result.json` comes last. So a resume
state found means that everything up to its step was told, and a folder with a dot is the rest of a kill
and is thrown away.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from reconciler.selfhosted.training import lines
from reconciler.selfhosted.training.failures import Failure

MODELS_KEPT = 3

METRICS = (
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)

# What Transformers writes beside a model to go on from it. None of it belongs to a model that is used.
_STATE = ("trainer_state.json", "optimizer.pt", "scheduler.pt")
_RANDOMNESS = "rng_state*.pth"  # of one process, or one file for each of several
_NOT_THE_MODEL = (*_STATE, _RANDOMNESS, "scaler.pt", "training_args.bin", "README.md")


class JobFolder:
    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.job = self.root / "job.json"
        self.result = self.root / "result.json"
        self.model = self.root / "model"
        self.saving = self.root / ".saving"  # where the trainer writes a resume state
        self.cache = self.root / ".cache"
        self.meeting = self.root / ".meeting"  # where several processes find each other
        self.pausing = self.root / "pausing"  # there when a stop should leave a usable model

    @contextmanager
    def locked(self, patience: float = 10.0) -> Iterator[int]:
        """
        Hold the folder alone; BlockingIOError when another still holds it after `patience` seconds.

        The lock is the open file that is handed out: it lasts until every process that has it is gone.
        """
        end = time.monotonic() + patience
        with (self.root / "lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.1)
            yield lock.fileno()

    def step(self, place: str, step: int) -> Path:
        return self.root / place / f"step-{step}"

    def resume_state(self) -> tuple[int, Path] | None:
        """The step and the folder of the newest whole resume state, None to start from the beginning."""
        whole = [s for s in _steps(self.root / "checkpoints") if _is_whole(self.step("checkpoints", s))]
        return (max(whole), self.step("checkpoints", max(whole))) if whole else None

    def sweep(self) -> None:
        """Throw away what a kill left half done."""
        for place in (self.root, self.root / "models", self.root / "checkpoints"):
            for rest in place.glob(".*"):
                _remove(rest)

    def clear(self) -> None:
        """Keep the result, throw away what only training needs."""
        self.sweep()
        _remove(self.root / "checkpoints")

    def keep_resume_state(self, step: int) -> None:
        """Move the state that the trainer just wrote into its place and drop the older ones."""
        written = self.saving / f"checkpoint-{step}"
        (written / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing reads
        _seal(written, self.step("checkpoints", step))
        for older in _steps(self.root / "checkpoints") - {step}:
            _remove(self.step("checkpoints", older))

    def keep_model(self, step: int, about: dict[str, Any]) -> Path:
        """Make the usable model folder of this step from the state that the trainer just wrote."""
        target = self.step("models", step)
        if not target.exists():
            _publish(self.saving / f"checkpoint-{step}", target, about)
        return target

    def drop_older_models(self, steps_per_epoch: int) -> None:
        """Keep the models of the last three epochs, and those that a pause left in between."""
        epochs = sorted(step for step in _steps(self.root / "models") if step % steps_per_epoch == 0)
        for older in epochs[:-MODELS_KEPT]:
            _remove(self.step("models", older))

    def drop_models(self, steps: set[int]) -> None:
        for step in steps & _steps(self.root / "models"):
            _remove(self.step("models", step))

    def finish_model(self, step: int) -> None:
        """The model of the last step is the job's model."""
        if not self.model.exists():
            _publish(self.step("models", step), self.model, None)

    def write_metrics(self, rows: dict[int, dict[str, Any]], columns: tuple[str, ...] = METRICS) -> None:
        """The result file: one line per step."""
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[step] for step in sorted(rows))
        _write(self.root / "metrics.csv", text.getvalue())

    def write_result(self, result: dict[str, Any]) -> None:
        _write(self.result, json.dumps(result))

    def write_failure(self, failure: Failure) -> None:
        error = {"code": failure.code, "message": failure.message, "param": failure.param}
        self.write_result({"status": "failed", "error": error})


class Story:
    """
    What the job tells: events and checkpoints, each once, however often the process is started.

    Of several processes one tells; with `silent` the others keep the numbers and write nothing.
    """

    def __init__(self, folder: JobFolder, *, silent: bool = False) -> None:
        events, checkpoints = folder.root / "events.jsonl", folder.root / "checkpoints.jsonl"
        before = lines.read(events)
        self._listed = {line.get("step_number") for line in lines.read(checkpoints)}
        self._told = {event.get("key") for event in before}
        self._events = None if silent else lines.Lines(events)
        self._checkpoints = None if silent else lines.Lines(checkpoints)
        self.metrics: dict[int, dict[str, Any]] = {
            event["data"]["step"]: event["data"] for event in before if event.get("type") == "metrics"
        }

    def say(self, key: str, message: str, level: str = "info") -> None:
        """A message event."""
        self._tell({"key": key, "level": level, "type": "message", "message": message, "data": {}})

    def measure(self, message: str, data: dict[str, Any]) -> None:
        """The metrics event of one step."""
        key = f"step-{data['step']}"
        self.metrics[data["step"]] = data
        self._tell({"key": key, "level": "info", "type": "metrics", "message": message, "data": data})

    def checkpoint(self, step: int, metrics: dict[str, Any]) -> None:
        if step not in self._listed and self._checkpoints:
            self._listed.add(step)
            self._checkpoints.add({"step_number": step, "path": f"models/step-{step}", "metrics": metrics})
            self._checkpoints.sync()

    def sync(self) -> None:
        if self._events:
            self._events.sync()

    def _tell(self, event: dict[str, Any]) -> None:
        if event["key"] not in self._told and self._events:
            self._told.add(event["key"])
            self._events.add({**event, "at": time.time()})


def _steps(place: Path) -> set[int]:
    names = (p.name.removeprefix("step-") for p in place.glob("step-*"))
    return {int(name) for name in names if name.isdigit()}


def _is_whole(state: Path) -> bool:
    if not all(any(state.glob(pattern)) for pattern in (*_STATE, _RANDOMNESS, "*.safetensors")):
        return False
    try:
        json.loads((state / "trainer_state.json").read_bytes())
    except ValueError:
        return False
    return True


def _publish(source: Path, target: Path, about: dict[str, Any] | None) -> None:
    """A model folder with the model files of `source`, which are shared, not copied."""
    draft = target.with_name(f".{target.name}")
    _remove(draft)
    draft.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file() and not any(fnmatch(file.name, pattern) for pattern in _NOT_THE_MODEL):
            os.link(file, draft / file.name)
    if about is not None:
        (draft / "reconciler.json").write_text(json.dumps(about))
    _seal(draft, target)


def _seal(draft: Path, target: Path) -> None:
    """Force the folder to the disk, then give it its name."""
    for path in (*draft.rglob("*"), draft):
        _sync(path)
    target.parent.mkdir(exist_ok=True)
    _remove(target)
    draft.rename(target)
    _sync(target.parent)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}")
    draft.write_text(text)
    _sync(draft)
    draft.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
