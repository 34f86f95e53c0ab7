"""
A small job of every method, and trainers that start at once and are hit by a signal at a step of our choice.

Importing the libraries takes a trainer seconds and training these jobs takes none, so `Nursery` imports them
once and forks a real process for each run. The signal comes from inside, after the step was told and before
it was saved: no test has to be quick to hit it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import training_base

KINDS = [f"{method}-{tuning}" for method in ("sft", "vision", "dpo", "rft") for tuning in ("full", "lora")]
STEPS = 6
_TUNING = {"full": {"type": "full"}, "lora": {"type": "lora", "rank": 4}}
_HYPER = {"n_epochs": 2, "batch_size": 8}
_GRADER = {
    "type": "text_similarity",
    "name": "close",
    "evaluation_metric": "fuzzy_match",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
}
_METHODS: dict[str, dict[str, Any]] = {
    "sft": {"type": "supervised", "supervised": {"hyperparameters": _HYPER}},
    "dpo": {"type": "dpo", "dpo": {"hyperparameters": _HYPER}},
    "rft": {
        "type": "reinforcement",
        "reinforcement": {
            "grader": _GRADER,
            "hyperparameters": {**_HYPER, "eval_interval": 3, "compute_multiplier": 0.5},
        },
    },
}


def fill(shelf: Path) -> Path:
    """A base model with dropout, so that random numbers matter, one that sees, and rows of every method."""
    from reconciler.selfhosted.tiny import vision
    from reconciler.selfhosted.tiny.shapes import picture

    base = training_base.base_model(shelf / "base", attention_dropout=0.1)
    (base / "generation_config.json").write_text(json.dumps({"max_new_tokens": 8, "eos_token_id": 0}))
    vision.make(shelf / "seeing", seed=1, steps=1)
    rng = random.Random(1)
    for name, numbers in (("training", range(24)), ("validation", range(24, 32))):
        rows = {
            "sft": [training_base.row(i) for i in numbers],
            "dpo": [_pair(i) for i in numbers],
            "rft": [_prompt(i) for i in numbers],
            "vision": [_shown(picture(rng)) for _ in numbers],
        }
        for method, these in rows.items():
            training_base.write_rows(shelf / f"{method}-{name}.jsonl", these)
    return shelf


def job(shelf: Path, folder: Path, kind: str, **changes: Any) -> Path:
    """Six steps of this kind, each of which is saved."""
    method, tuning = kind.split("-")
    folder.mkdir()
    wanted = {
        "id": "ftjob-1",
        "model": {"path": str(shelf / ("seeing" if method == "vision" else "base"))},
        "training_file": str(shelf / f"{method}-training.jsonl"),
        "validation_file": str(shelf / f"{method}-validation.jsonl"),
        "method": _METHODS["sft" if method == "vision" else method],
        "seed": 7,
        "tuning": _TUNING[tuning],
        "threads": 1,
        "save_every_s": 0,
    }
    (folder / "job.json").write_text(json.dumps(wanted | changes))
    return folder


def _pair(i: int) -> dict[str, Any]:
    """The same answer, politely and not."""
    *prompt, answer = training_base.row(i)["messages"]
    polite = {"role": "assistant", "content": f"{answer['content']}, please"}
    return {"input": {"messages": prompt}, "preferred_output": [polite], "non_preferred_output": [answer]}


def _prompt(i: int) -> dict[str, Any]:
    *prompt, answer = training_base.row(i)["messages"]
    return {"messages": prompt, "answer": answer["content"]}


def _shown(one: Any) -> dict[str, Any]:
    shown = {"type": "image_url", "image_url": {"url": one.data_uri()}}
    asked = {"role": "user", "content": [shown, {"type": "text", "text": "What is it?"}]}
    return {"messages": [asked, {"role": "assistant", "content": f"{one.colour} {one.shape}"}]}


class Nursery:
    """Runs trainers, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def train(self, folder: Path, step: int = 0, how: signal.Signals | None = None) -> int:
        """Train in this folder, and send the signal at this step; the exit code as `subprocess` has it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(folder), step, how and int(how)]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def _serve() -> None:
    from reconciler.selfhosted.training import (  # noqa: F401
        methods,
        preference,
        reinforcement,
        supervised,
        vision,
    )

    for line in sys.stdin:
        folder, step, how = json.loads(line)
        child = os.fork()
        if child == 0:
            _train(Path(folder), step, how)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _train(folder: Path, step: int, how: int | None) -> None:
    from reconciler.selfhosted.training import __main__, watch

    log = os.open(folder / "trainer.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    tell = watch.Watch._tell

    def tell_and_send(self: Any, at: int, told: dict[str, Any]) -> None:
        tell(self, at, told)
        if at == step and how is not None:
            os.kill(os.getpid(), how)

    watch.Watch._tell = tell_and_send  # type: ignore[method-assign]
    code = 1
    try:
        code = __main__.main([str(folder)])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
