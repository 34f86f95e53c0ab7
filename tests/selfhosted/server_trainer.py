"""
A stand-in for the trainer that keeps the contract of the job folder and trains nothing.

The last row of a job's training file may say what it is to do: `{"plan": {"hold_at": 2, "go": FILE}}` waits
after step 2 until FILE exists or SIGTERM comes; `die_at`, `deaths` and `killed`, `fail`, `steps` and
`unservable` do what they say.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any


def train(folder: Path) -> int:
    """Three steps, one checkpoint each, and a model of one small file."""
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
    plan = {"steps": 3, **_plan(folder)}
    go = Path(plan.get("go", "/dev/null"))
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
        while step == plan.get("hold_at") and not go.exists() and not stopping:
            time.sleep(0.01)
        if stopping:
            if (folder / "pausing").exists():
                _save(folder, step)
            return 75
        if step == plan.get("die_at") and _starts(folder) <= plan.get("deaths", 1):
            print(
                "Traceback (most recent call last):\nValueError: the secret row", file=sys.stderr, flush=True
            )
            if plan.get("killed"):
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(9)
        _save(folder, step)
    while plan.get("drops") and not go.exists():
        time.sleep(0.01)
    for step in plan.get("drops", []):
        shutil.rmtree(folder / "models" / f"step-{step}")
    _model(folder / "model.new", plan)
    (folder / "model.new").rename(folder / "model")
    (folder / "metrics.csv").write_text("step,train_loss\n1,1.0\n")
    hyperparameters = {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.0}
    done: dict[str, Any] = {"status": "succeeded", "trained_tokens": 42, "model": "model"}
    _write(folder / "result.json", done | {"metrics_csv": "metrics.csv", "hyperparameters": hyperparameters})
    return 0


def _plan(folder: Path) -> dict[str, Any]:
    job = json.loads((folder / "job.json").read_text())
    last = Path(job["training_file"]).read_text().splitlines()[-1]
    return dict(json.loads(last).get("plan", {}))


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
