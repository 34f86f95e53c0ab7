"""One job in several processes: who does what, and that they learn as one and survive as one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import training_base
import training_jobs
from test_training import PATIENCE, alive, digest, run, start, stop_when, told

from reconciler.selfhosted.training import auto, hardware, launch, lines
from reconciler.selfhosted.training.hardware import Hardware
from reconciler.selfhosted.training.job import Hyperparameters

CPU, OLD, NEW = Hardware(0), Hardware(1), Hardware(4, bf16=True)
FLASH = Hardware(4, bf16=True, flash=True)


@pytest.mark.parametrize(
    ("asked", "gpus", "processes"),
    [("auto", 0, 1), ("auto", 1, 1), ("auto", 4, 4), (2, 0, 2), (2, 4, 2), (8, 4, 4), (1, 4, 1)],
)
def test_there_is_a_process_for_each_gpu_and_one_on_a_cpu(asked: Any, gpus: int, processes: int) -> None:
    assert processes == hardware.processes(asked, gpus)


@pytest.mark.parametrize(
    ("visible", "gpus", "processes", "seen"),
    [(None, 0, 1, "0"), (None, 4, 1, "0"), (None, 4, 2, "0,1"), ("3,5,7", 3, 2, "3,5"), ("", 0, 1, "")],
)
def test_a_process_sees_no_gpu_that_its_job_does_not_use(
    visible: str | None, gpus: int, processes: int, seen: str
) -> None:
    assert seen == hardware.devices(visible, gpus, processes)


def test_processes_share_the_cores() -> None:
    assert [None, 3, 4, 2, 1] == [
        hardware.threads(asked, processes, 8)
        for asked, processes in ((None, 1), (3, 1), (None, 2), (4, 2), (1, 2))
    ]


@pytest.mark.parametrize(
    ("here", "full", "precision", "attention"),
    [
        (CPU, False, "float32", "sdpa"),
        (OLD, False, "float32", "sdpa"),
        (NEW, False, "bfloat16", "sdpa"),
        (NEW, True, "float32", "sdpa"),
        (FLASH, False, "bfloat16", "flash_attention_2"),
        (FLASH, True, "float32", "sdpa"),
    ],
)
def test_precision_and_attention_follow_from_the_hardware(
    here: Hardware, full: bool, precision: str, attention: str
) -> None:
    assert precision == hardware.precision(here, full=full)
    assert attention == hardware.attention(here, full=full)
    assert (attention == "flash_attention_2") == hardware.padding_free(here, full=full)


def test_large_models_compute_twice_what_they_do_not_keep() -> None:
    small, large = (hardware.arguments(NEW, parameters) for parameters in (10**8, 10**9))

    assert (True, False, True) == (large["bf16"], large["use_cpu"], large["dataloader_pin_memory"])
    assert (False, True) == (small["gradient_checkpointing"], large["gradient_checkpointing"])
    assert {"use_reentrant": False} == large["gradient_checkpointing_kwargs"]
    assert (False, True) == (hardware.arguments(CPU, 1)["bf16"], hardware.arguments(CPU, 1)["use_cpu"])
    assert ("gloo", "cpu:gloo,cuda:nccl") == (hardware.backend(CPU), hardware.backend(NEW))


@pytest.mark.parametrize(
    ("batch", "processes", "used", "micro", "micro_batches"),
    [
        (16, 1, 1, 16, 1),
        (16, 2, 2, 8, 1),
        (16, 3, 2, 8, 1),
        (12, 4, 4, 3, 1),
        (7, 4, 1, 7, 1),
        (64, 2, 2, 16, 2),
    ],
)
def test_processes_share_a_batch_evenly_or_do_without_each_other(
    batch: int, processes: int, used: int, micro: int, micro_batches: int
) -> None:
    plan = auto.plan(
        Hyperparameters(batch_size=batch), 640, 16, longest=1000, tokens_in_memory=16_384, processes=processes
    )

    assert (used, micro, micro_batches) == (plan.processes, plan.micro_batch, plan.micro_batches)
    assert batch == plan.processes * plan.micro_batch * plan.micro_batches
    assert -(-640 // batch) == plan.steps_per_epoch


@pytest.mark.parametrize(
    ("codes", "outcome"),
    [
        ([None, None], None),
        ([0, None], None),
        ([0, 0], 0),
        ([None, -9], -9),
        ([0, 1], 1),
        ([75, None], None),
        ([75, 75], 75),
        ([75, 1], 1),
        ([None, 65], 65),
    ],
)
def test_one_process_that_breaks_decides_for_all(codes: list[int | None], outcome: int | None) -> None:
    assert outcome == launch.outcome(codes)


@pytest.mark.train
def test_rows_one_behind_the_other_are_learned_as_rows_with_padding_are(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from reconciler.selfhosted.training.encode import Encoder

    model = AutoModelForCausalLM.from_pretrained(training_base.base_model(tmp_path)).eval()
    rows = [{"messages": training_base.row(i)["messages"][i % 2 :]} for i in range(4)]
    encoded = Encoder(training_base.tokenizer(), 128).encode(enumerate(rows), "training_file").dataset

    padded, free = (DataCollatorForLanguageModeling(0, padding_free=free) for free in (False, True))
    losses = [model(**collate(list(encoded)), use_cache=False).loss for collate in (padded, free)]

    assert torch.allclose(*losses, atol=1e-5)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_jobs.fill(tmp_path_factory.mktemp("shelf"))


# Runs one process of a job and writes down what its model was in the end.
WITNESS = """
import hashlib, os, sys
from pathlib import Path
from reconciler.selfhosted.training import __main__, watch
ended = watch.Watch.on_train_end
def on_train_end(self, args, state, control, model, **more):
    whole = getattr(model, "module", model).state_dict()
    digest = hashlib.sha256(b"".join(whole[name].numpy().tobytes() for name in sorted(whole))).hexdigest()
    Path(sys.argv[1], "weights-" + os.environ["RANK"]).write_text(digest)
    ended(self, args, state, control, model=model, **more)
watch.Watch.on_train_end = on_train_end
sys.exit(__main__.main(sys.argv[1:]))
"""


@pytest.mark.train
@pytest.mark.parametrize("kind", training_jobs.KINDS)
def test_two_processes_end_with_the_same_weights(shelf: Path, tmp_path: Path, kind: str) -> None:
    folder = training_jobs.job(shelf, tmp_path / "job", kind)
    reading, writing = os.pipe()

    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", WITNESS, str(folder), str(rank), "2", str(writing)], pass_fds=[writing]
        )
        for rank in range(2)
    ]
    codes = [rank.wait(PATIENCE) for rank in ranks]

    os.close(writing)
    os.close(reading)
    assert [0, 0] == codes
    first, second = ((folder / f"weights-{rank}").read_text() for rank in range(2))
    assert first == second
    assert "succeeded" == json.loads((folder / "result.json").read_text())["status"]
    events = {event["key"]: event for event in lines.read(folder / "events.jsonl")}
    assert "Training in 2 processes, each with its share of every batch" == events["processes"]["message"]


@pytest.mark.train
@pytest.mark.parametrize("kind", ["sft-full", "sft-lora"])
def test_two_processes_learn_what_one_learns(tmp_path: Path, kind: str) -> None:
    base = training_base.base_model(tmp_path / "base")  # without dropout, which each would draw for itself
    for name, numbers in (("training", range(24)), ("validation", range(24, 32))):
        training_base.write_rows(tmp_path / f"sft-{name}.jsonl", [training_base.row(i) for i in numbers])
    ours = {"model": {"path": str(base)}}
    alone = training_jobs.job(tmp_path, tmp_path / "alone", kind, **ours)
    both = training_jobs.job(tmp_path, tmp_path / "both", kind, **ours, processes=2, threads=2)

    results = [run(folder) for folder in (alone, both)]

    assert results[0] == results[1]
    one, two = (losses(folder) for folder in (alone, both))
    assert two == pytest.approx(one, rel=1e-3)
    assert two[-1] < two[0] - 0.3


def losses(folder: Path) -> list[float]:
    events = lines.read(folder / "events.jsonl")
    return [event["data"]["train_loss"] for event in events if event["type"] == "metrics"]


@pytest.mark.train
def test_a_rank_that_is_killed_is_a_crash_after_which_the_job_ends_with_the_same_weights(
    shelf: Path, tmp_path: Path
) -> None:
    whole, broken, stopped = (
        training_jobs.job(shelf, tmp_path / name, "sft-full", processes=2, method=LONG)
        for name in ("whole", "broken", "stopped")
    )

    run(whole)
    crash = start(broken)
    wait_for(broken, "step-3", crash)
    victim = children(crash.pid)[1]
    os.kill(victim, signal.SIGKILL)
    code = crash.wait(PATIENCE)
    left = [pid for pid in (victim, *children(crash.pid)) if alive(pid)]
    end = stop_when(stopped, told("step-3"), signal.SIGTERM)
    for folder in (broken, stopped):
        run(folder)

    assert (137, 75, []) == (code, end, left)
    assert digest(whole) == digest(broken) == digest(stopped)
    assert (whole / "metrics.csv").read_text() == (broken / "metrics.csv").read_text()
    assert any(event["key"].startswith("resumed-") for event in lines.read(broken / "events.jsonl"))


# So many steps that a signal surely comes before the last.
LONG = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 20, "batch_size": 8}}}


def wait_for(folder: Path, key: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while not told(key)(folder) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.003)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


@pytest.mark.train
def test_a_batch_without_equal_shares_is_trained_by_fewer(shelf: Path, tmp_path: Path) -> None:
    odd = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 3}}}
    folder = training_jobs.job(shelf, tmp_path / "job", "sft-full", processes=2, method=odd)

    result = run(folder)

    assert ("succeeded", 3) == (result["status"], result["hyperparameters"]["batch_size"])
    events = {event["key"]: event for event in lines.read(folder / "events.jsonl")}
    sentence = "Training in 1 of 2 processes: a batch of 3 rows has no equal shares for more"
    assert ("warn", sentence) == (events["processes"]["level"], events["processes"]["message"])


@pytest.mark.train
def test_why_a_process_of_several_cannot_go_on_is_why_the_job_failed(shelf: Path, tmp_path: Path) -> None:
    hot = {"n_epochs": 20, "batch_size": 8, "learning_rate_multiplier": 1e9}
    method = {"type": "supervised", "supervised": {"hyperparameters": hot}}
    folder = training_jobs.job(shelf, tmp_path / "job", "sft-full", processes=2, method=method)

    error = run(folder)["error"]

    assert "training_diverged" == error["code"]
    assert not (folder / "checkpoints").exists() and not (folder / "model").exists()
