"""
Stand-ins for the two slow processes: an engine that answers at once, and a trainer that trains nothing.

The trainer keeps the contract of the job folder (events, checkpoints, atomic results, resuming) and does
what the file `stub.json` beside the data folder's jobs says: die after some step, wait, fail, hang.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from reconciler.selfhosted.engine import Answer, Ask, EngineError


class StubEngine:
    """Answers everything with one word; refuses models in a folder that holds a file named `unservable`."""

    async def load(self, model: str) -> None:
        if (Path(model) / "unservable").exists():
            raise EngineError("model_unloadable", "it has no chat template")

    async def generate(self, asks: Sequence[Ask]) -> list[Answer | EngineError]:
        return [Answer("hello", "stop", None, 1, 1, None) for _ in asks]

    async def stream(self, ask: Ask) -> AsyncIterator[str | Answer]:
        yield "hello"
        yield Answer("hello", "stop", None, 1, 1, None)

    async def close(self) -> None:
        return None


def train(folder: Path) -> int:
    """Three steps, one checkpoint each, and a model of one small file."""
    plan = {"steps": 3, **_plan(folder)}
    with (folder / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if plan.get("fail"):
        _write(folder / "result.json", {"status": "failed", "error": plan["fail"]})
        return 0
    _tell(folder, "validated", "Files validated, moving job to queued state")
    _tell(folder, "started", "Fine-tuning job started")
    for step in range(1, plan["steps"] + 1):
        if (folder / "models" / f"step-{step}").exists():
            continue
        data = {"step": step, "train_loss": 1.0 / step, "total_steps": plan["steps"], "eta_s": 60.0}
        _tell(folder, f"step-{step}", f"Step {step}/{plan['steps']}: training loss={1 / step:.2f}", data)
        while step == plan.get("hold_at") and not (folder.parent.parent / "go").exists():
            time.sleep(0.01)
        if step == plan.get("die_at") and _starts(folder) <= plan.get("deaths", 1):
            print(
                "Traceback (most recent call last):\nValueError: the secret row", file=sys.stderr, flush=True
            )
            os._exit(9)
        _save(folder, step)
    _model(folder / "model.new", plan)
    (folder / "model.new").rename(folder / "model")
    (folder / "metrics.csv").write_text("step,train_loss\n1,1.0\n")
    hyperparameters = {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.0}
    done: dict[str, Any] = {"status": "succeeded", "trained_tokens": 42, "model": "model"}
    _write(folder / "result.json", done | {"metrics_csv": "metrics.csv", "hyperparameters": hyperparameters})
    return 0


def _plan(folder: Path) -> dict[str, Any]:
    file = folder.parent.parent / "stub.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


def _tell(folder: Path, key: str, message: str, data: dict[str, Any] | None = None) -> None:
    event = {"key": key, "level": "info", "type": "metrics" if data else "message", "message": message}
    with (folder / "events.jsonl").open("a") as events:
        events.write(json.dumps(event | {"data": data or {}, "at": time.time()}) + "\n")


def _save(folder: Path, step: int) -> None:
    (folder / "models").mkdir(exist_ok=True)
    _model(folder / "models" / f".step-{step}", {})
    (folder / "models" / f".step-{step}").rename(folder / "models" / f"step-{step}")
    line = {"step_number": step, "path": f"models/step-{step}", "metrics": {"train_loss": 1.0 / step}}
    with (folder / "checkpoints.jsonl").open("a") as checkpoints:
        checkpoints.write(json.dumps(line) + "\n")
    (folder / "checkpoints" / f"step-{step}").mkdir(parents=True, exist_ok=True)


def _model(folder: Path, plan: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    if plan.get("unservable"):
        (folder / "unservable").touch()


def _write(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(value))
    temporary.rename(path)


if __name__ == "__main__":
    sys.exit(train(Path(sys.argv[1])))
