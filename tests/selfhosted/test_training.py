"""The job process from its folder to its result, with a real model and real kills."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import training_base

from reconciler.selfhosted.training import lines

pytestmark = pytest.mark.train

Moment = Callable[[Path], bool]
PATIENCE = 300  # seconds; only a broken process needs them


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model with dropout, so that random numbers matter, and two files of rows."""
    shelf = tmp_path_factory.mktemp("shelf")
    training_base.base_model(shelf / "base", attention_dropout=0.1)
    training_base.write_rows(shelf / "training.jsonl", [training_base.row(i) for i in range(48)])
    training_base.write_rows(shelf / "validation.jsonl", [training_base.row(i) for i in range(48, 64)])
    return shelf


def job(shelf: Path, folder: Path, tuning: str = "full", **changes: Any) -> Path:
    folder.mkdir()
    hyperparameters = {"n_epochs": 4, "batch_size": 8, "learning_rate_multiplier": "auto"}
    wanted = {
        "id": "ftjob-1",
        "model": {"path": str(shelf / "base")},
        "training_file": str(shelf / "training.jsonl"),
        "validation_file": str(shelf / "validation.jsonl"),
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "seed": 7,
        "tuning": {"type": tuning},
        "threads": 2,
        "save_every_s": 0,
    }
    (folder / "job.json").write_text(json.dumps(wanted | changes))
    return folder


def hyper(**asked: Any) -> dict[str, Any]:
    return {"method": {"type": "supervised", "supervised": {"hyperparameters": asked}}}


def start(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "trainer.log").open("ab") as log:
        command = [sys.executable, "-m", "reconciler.selfhosted.training", str(folder)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def run(folder: Path) -> dict[str, Any]:
    assert 0 == start(folder).wait(PATIENCE), (folder / "trainer.log").read_text()[-2000:]
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def stop_when(folder: Path, moment: Moment, how: signal.Signals) -> int:
    """Start the job, send the signal at that moment, and return how it ended."""
    process = start(folder)
    end = time.monotonic() + PATIENCE
    while not moment(folder) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.003)
    process.send_signal(how)
    return process.wait(PATIENCE)


def told(key: str) -> Moment:
    def moment(folder: Path) -> bool:
        events = folder / "events.jsonl"
        return events.exists() and f'"key": "{key}"' in events.read_text()

    return moment


def digest(folder: Path) -> str:
    weights = sorted((folder / "model").glob("*.safetensors"))
    assert weights
    return hashlib.sha256(b"".join(file.read_bytes() for file in weights)).hexdigest()


@pytest.fixture(scope="module")
def finished(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One job of each tuning that nobody interrupted."""
    root = tmp_path_factory.mktemp("finished")
    folders = {tuning: job(shelf, root / tuning, tuning) for tuning in ("full", "lora")}
    for folder in folders.values():
        assert "succeeded" == run(folder)["status"]
    return folders


def test_the_loss_falls_and_the_job_tells_its_story(finished: dict[str, Path]) -> None:
    folder = finished["full"]

    result = json.loads((folder / "result.json").read_text())
    steps = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    events = lines.read(folder / "events.jsonl")

    assert {"n_epochs": 4, "batch_size": 8, "learning_rate_multiplier": 1.0} == result["hyperparameters"]
    assert list(range(1, 25)) == [int(step["step"]) for step in steps]
    assert float(steps[-1]["train_loss"]) < float(steps[0]["train_loss"]) / 2
    assert float(steps[-1]["full_valid_loss"]) < float(steps[5]["full_valid_loss"])
    assert ["6", "12", "18", "24"] == [step["step"] for step in steps if step["full_valid_loss"]]
    assert ["validated", "started", "step-1", "step-2"] == [event["key"] for event in events][:4]
    assert "Checkpoint created at step 24" == events[-1]["message"]
    last = next(event for event in events if event["key"] == "step-24")
    assert last["message"].startswith("Step 24/24: training loss=")
    assert (24, 24, 0.0) == tuple(last["data"][key] for key in ("step", "total_steps", "eta_s"))


def test_checkpoints_are_usable_models_and_nothing_else_is_left(finished: dict[str, Path]) -> None:
    folder = finished["full"]

    checkpoints = lines.read(folder / "checkpoints.jsonl")

    assert [6, 12, 18, 24] == [checkpoint["step_number"] for checkpoint in checkpoints]
    assert "models/step-24" == checkpoints[-1]["path"]
    assert checkpoints[-1]["metrics"]["full_valid_loss"] < checkpoints[0]["metrics"]["full_valid_loss"]
    assert ["step-12", "step-18", "step-24"] == sorted(p.name for p in (folder / "models").iterdir())
    for model in (folder / "model", folder / "models" / "step-12"):
        names = {
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "chat_template.jinja",
            "reconciler.json",
        }
        assert names <= {p.name for p in model.iterdir()}
    assert not (folder / "checkpoints").exists()
    assert [] == list(folder.glob(".*"))


def test_what_was_trained_is_said(finished: dict[str, Path], shelf: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tuned = AutoModelForCausalLM.from_pretrained(finished["full"] / "model")
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(shelf / "base"), finished["lora"] / "model"
    )
    base = AutoModelForCausalLM.from_pretrained(shelf / "base")

    assert loss_on_rows(tuned) < loss_on_rows(base) - 2
    assert loss_on_rows(adapted) < loss_on_rows(base)
    about = json.loads((finished["lora"] / "model" / "reconciler.json").read_text())
    assert str(shelf / "base") == about["base"]


def loss_on_rows(model: Any) -> float:
    import torch

    from reconciler.selfhosted.training.encode import Encoder

    rows = [(i, training_base.row(i)) for i in range(8)]
    dataset = Encoder(training_base.tokenizer(), 128).encode(rows, "training_file").dataset
    model.eval()
    with torch.no_grad():
        losses = [
            model(
                input_ids=torch.tensor([example["input_ids"]]), labels=torch.tensor([example["labels"]])
            ).loss.item()
            for example in dataset
        ]
    return sum(losses) / len(losses)


SAVING: Moment = lambda folder: (folder / ".saving").exists()  # noqa: E731
MODEL_OF_AN_EPOCH: Moment = lambda folder: (folder / "models" / "step-12").exists()  # noqa: E731
LAST_MODEL: Moment = lambda folder: any((folder / name).exists() for name in ("model", ".model"))  # noqa: E731


@pytest.mark.parametrize(
    ("tuning", "moments"),
    [
        ("full", [told("step-3"), SAVING, MODEL_OF_AN_EPOCH, LAST_MODEL]),
        ("lora", [SAVING, told("step-15")]),
    ],
    ids=["full", "lora"],
)
def test_killed_at_any_moment_it_ends_with_the_same_weights(
    finished: dict[str, Path], shelf: Path, tmp_path: Path, tuning: str, moments: list[Moment]
) -> None:
    folder = job(shelf, tmp_path / "job", tuning)

    for moment in moments:
        stop_when(folder, moment, signal.SIGKILL)
    with (folder / "events.jsonl").open("a") as events:
        events.write('{"key": "torn')
    run(folder)

    assert digest(finished[tuning]) == digest(folder)
    assert (finished[tuning] / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()
    keys = [event["key"] for event in lines.read(folder / "events.jsonl")]
    assert len(set(keys)) == len(keys)
    assert [f"step-{n}" for n in range(1, 25)] == [key for key in keys if key.startswith("step-")]


def test_asked_to_stop_it_saves_and_goes_on_later(
    finished: dict[str, Path], shelf: Path, tmp_path: Path
) -> None:
    folder = job(shelf, tmp_path / "job", save_every_s=1000)

    code = stop_when(folder, told("step-8"), signal.SIGTERM)
    states = [p.name for p in (folder / "checkpoints").iterdir()]
    run(folder)

    assert 75 == code
    assert 1 == len(states) and "step-6" != states[0]
    assert digest(finished["full"]) == digest(folder)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_paused_it_leaves_a_usable_model_and_goes_on_later(
    finished: dict[str, Path], shelf: Path, tmp_path: Path, tuning: str
) -> None:
    folder = job(shelf, tmp_path / "job", tuning, save_every_s=1000)
    (folder / "pausing").touch()

    code = stop_when(folder, told("step-8"), signal.SIGTERM)
    (folder / "pausing").unlink()
    listed = lines.read(folder / "checkpoints.jsonl")
    run(folder)

    assert 75 == code
    assert [6] == [line["step_number"] for line in listed][:-1]
    snapshot = folder / listed[-1]["path"]
    kinds = {"full": "model.safetensors", "lora": "adapter_model.safetensors"}
    assert (snapshot / kinds[tuning]).exists() and (snapshot / "reconciler.json").exists()
    assert digest(finished[tuning]) == digest(folder)
    steps = [line["step_number"] for line in lines.read(folder / "checkpoints.jsonl")]
    assert sorted({6, listed[-1]["step_number"], 12, 18, 24}) == steps


def test_tuning_an_adapter_further_goes_on_with_the_adapter(
    finished: dict[str, Path], tmp_path: Path
) -> None:
    before = finished["lora"] / "model"
    shelf = finished["lora"].parent
    files = {name: json.loads((finished["lora"] / "job.json").read_text())[name] for name in FILES}
    further = job(shelf, tmp_path / "lora", "lora", model={"path": str(before)}, **files, **hyper(n_epochs=1))
    merged = job(shelf, tmp_path / "full", "full", model={"path": str(before)}, **files, **hyper(n_epochs=1))

    run(further)
    run(merged)

    assert (before / "adapter_model.safetensors").stat().st_size == (
        (further / "model" / "adapter_model.safetensors").stat().st_size
    )
    assert digest(finished["lora"]) != digest(further)
    base = json.loads((before / "reconciler.json").read_text())["base"]
    assert base == json.loads((further / "model" / "reconciler.json").read_text())["base"]
    assert (merged / "model" / "model.safetensors").exists()
    assert not (merged / "model" / "adapter_config.json").exists()


FILES = ("training_file", "validation_file")


def test_a_learning_rate_that_is_far_too_high_is_a_failure_with_its_step(shelf: Path, tmp_path: Path) -> None:
    folder = job(shelf, tmp_path / "job", **hyper(n_epochs=10, batch_size=8, learning_rate_multiplier=1e9))

    error = run(folder)["error"]

    assert "training_diverged" == error["code"]
    assert error["message"].startswith("training diverged at step ")
    assert not (folder / "model").exists() and not (folder / "checkpoints").exists()


def test_weights_that_are_missing_or_torn_are_a_failure(shelf: Path, tmp_path: Path) -> None:
    torn = training_base.base_model(tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    folder = job(shelf, tmp_path / "job", model={"path": str(torn)})

    error = run(folder)["error"]

    assert "invalid_model" == error["code"]
    assert "Traceback" not in error["message"] and str(tmp_path) not in error["message"]


def test_a_process_dies_with_its_parent(shelf: Path, tmp_path: Path) -> None:
    folder = job(shelf, tmp_path / "job")
    script = (
        "import subprocess, sys, time; child = subprocess.Popen("
        "[sys.executable, '-m', 'reconciler.selfhosted.training', sys.argv[1]]);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    end = time.monotonic() + PATIENCE
    while not told("validated")(folder) and time.monotonic() < end:
        time.sleep(0.003)

    parent.kill()
    parent.wait()

    while alive(child) and time.monotonic() < end:
        time.sleep(0.003)
    assert not alive(child)
    assert not (folder / "result.json").exists()


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


SHARED = os.environ.get("RECONCILER_SHARED_DATA")


@pytest.mark.skipif(not SHARED, reason="RECONCILER_SHARED_DATA names no folder of real rows")
@pytest.mark.parametrize("name", ["gsm8k_chat_{}", "stock_toolcall_{}"])
def test_rows_that_others_wrote_are_trained_on(shelf: Path, tmp_path: Path, name: str) -> None:
    folder = Path(str(SHARED))
    training = next(folder.glob(name.format("train*") + ".jsonl"))
    validation = folder / (name.format("validation") + ".jsonl")
    files = {"training_file": str(training), "validation_file": str(validation)}
    base = training_base.base_model(tmp_path / "base", max_length=2048)
    real = job(
        shelf, tmp_path / "job", model={"path": str(base)}, **files, **hyper(n_epochs=1, batch_size=32)
    )

    result = run(real)
    warnings = [event["key"] for event in lines.read(real / "events.jsonl") if event["level"] == "warn"]

    assert ("succeeded", []) == (result["status"], warnings)
