"""The layout of a job in steps, the folder it lives in, and what its failures say."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import pytest

from reconciler.selfhosted.training import auto, bases, job, lines
from reconciler.selfhosted.training.failures import Failure, explain
from reconciler.selfhosted.training.folder import JobFolder, Story
from reconciler.selfhosted.training.job import Hyperparameters


def plan(rows: int, asked: Hyperparameters | None = None, longest: int = 100) -> auto.Plan:
    return auto.plan(
        asked or Hyperparameters(), rows, usual_batch=16, longest=longest, tokens_in_memory=16_384
    )


@pytest.mark.parametrize(("rows", "epochs"), [(10, 10), (33, 3), (600, 3), (10_000, 2), (30_000, 1)])
def test_automatic_epochs_follow_the_published_heuristic(rows: int, epochs: int) -> None:
    assert epochs == plan(rows).n_epochs


@pytest.mark.parametrize(("rows", "batch"), [(10, 2), (40, 10), (600, 16), (20_000, 40), (10**6, 256)])
def test_automatic_batches_grow_with_the_file_and_leave_steps_in_an_epoch(rows: int, batch: int) -> None:
    assert batch == plan(rows).batch_size


def test_what_was_asked_for_is_kept_and_reported() -> None:
    planned = plan(600, Hyperparameters(n_epochs=6, batch_size=16, learning_rate_multiplier=0.5))

    assert {"n_epochs": 6, "batch_size": 16, "learning_rate_multiplier": 0.5} == planned.resolved()
    assert (38, 228) == (planned.steps_per_epoch, planned.total_steps)


def test_a_batch_that_does_not_fit_in_memory_is_split_evenly() -> None:
    assert [16, 8, 2, 1] == [plan(600, longest=longest).micro_batch for longest in (1000, 2000, 8000, 20_000)]


def test_training_diverged_when_a_loss_is_no_number_or_stays_far_above_guessing() -> None:
    fine = [6.0, 5.0, 4.0, 30.0, 3.0]
    far = [6.0, 40.0, 50.0, 60.0, 50.0, 40.0]

    assert not auto.diverged(fine, 400, ended=True)
    assert not auto.diverged(far[:4], 400, ended=False)
    assert auto.diverged(far, 400, ended=False)
    assert auto.diverged([6.0, math.nan], 400, ended=False)
    assert auto.diverged([6.0, math.inf], 400, ended=False)


def test_a_torn_last_line_is_skipped_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"key": "a"}\n{"key": "b", "mess')

    assert [{"key": "a"}] == lines.read(path)

    lines.Lines(path).add({"key": "c"})
    assert b'{"key": "a"}\n{"key": "c"}\n' == path.read_bytes()


def test_an_event_is_told_once_however_often_the_process_starts(tmp_path: Path) -> None:
    for _ in range(2):
        story = Story(JobFolder(tmp_path))
        story.say("started", "Fine-tuning job started")
        story.measure("Step 1/2: training loss=3.00", {"step": 1, "train_loss": 3.0})
        story.checkpoint(1, {"step": 1})

    assert ["started", "step-1"] == [event["key"] for event in lines.read(tmp_path / "events.jsonl")]
    assert [{"step_number": 1, "path": "models/step-1", "metrics": {"step": 1}}] == lines.read(
        tmp_path / "checkpoints.jsonl"
    )
    assert {1: {"step": 1, "train_loss": 3.0}} == story.metrics


def saved(folder: JobFolder, step: int) -> None:
    """What the trainer leaves behind when it saved."""
    written = folder.saving / f"checkpoint-{step}"
    written.mkdir(parents=True)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "model.safetensors"):
        (written / name).write_text(name)
    (written / "trainer_state.json").write_text("{}")


def test_a_resume_state_that_is_not_whole_is_passed_over(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    saved(folder, 8)
    folder.keep_resume_state(8)
    torn = folder.step("checkpoints", 16)
    torn.mkdir()
    (torn / "trainer_state.json").write_text("{")

    assert (8, folder.step("checkpoints", 8)) == folder.resume_state()


def test_the_newest_resume_state_and_the_last_three_models_are_kept(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    for step in (8, 16, 24, 32):
        saved(folder, step)
        folder.keep_model(step, {"defaults": {}})
        folder.keep_resume_state(step)
        folder.drop_older_models(8)
    folder.finish_model(32)

    assert ["step-32"] == [p.name for p in (tmp_path / "checkpoints").iterdir()]
    assert ["step-16", "step-24", "step-32"] == sorted(p.name for p in (tmp_path / "models").iterdir())
    assert ["model.safetensors", "reconciler.json"] == sorted(p.name for p in folder.model.iterdir())


def test_what_a_kill_left_half_done_is_swept_away(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    saved(folder, 8)
    (tmp_path / "models" / ".step-8").mkdir(parents=True)
    (tmp_path / ".model").mkdir()

    folder.sweep()

    assert ["models"] == [p.name for p in tmp_path.iterdir()]
    assert [] == list((tmp_path / "models").iterdir())


def test_the_result_file_has_one_line_for_each_step(tmp_path: Path) -> None:
    rows = {
        2: {"step": 2, "train_loss": 1.5, "full_valid_loss": 2.0, "eta_s": 1},
        1: {"step": 1, "train_loss": 2},
    }

    JobFolder(tmp_path).write_metrics(rows)

    assert (
        "step,train_loss,train_mean_token_accuracy,valid_loss,valid_mean_token_accuracy,"
        "full_valid_loss,full_valid_mean_token_accuracy\n1,2,,,,,\n2,1.5,,,,2.0,\n"
    ) == (tmp_path / "metrics.csv").read_text()


def test_only_one_process_holds_a_folder(tmp_path: Path) -> None:
    with (
        JobFolder(tmp_path).locked(),
        pytest.raises(BlockingIOError),
        JobFolder(tmp_path).locked(patience=0),
    ):
        pass


def caused(cause: BaseException) -> RuntimeError:
    error = RuntimeError("while saving")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
            "out_of_memory",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk_full"),
        (RuntimeError("basic_ios::clear: iostream error"), "disk_full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 9 vs 8"), "disk_full"),
        (caused(OSError(errno.EDQUOT, "quota")), "disk_full"),
    ],
)
def test_a_full_memory_or_disk_is_a_failure_with_advice(error: BaseException, code: str) -> None:
    failure = explain(error)

    assert failure is not None
    assert (code, None) == (failure.code, failure.param)


def test_an_unknown_error_is_no_failure_but_a_crash() -> None:
    assert explain(ValueError("a bug")) is None


def test_a_base_without_weights_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="its folder is missing"):
        bases.find(tmp_path / "nowhere")
    with pytest.raises(Failure, match=r"no config\.json"):
        bases.find(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_text("a pickle")
    with pytest.raises(Failure, match="no weights in safetensors"):
        bases.find(tmp_path)


def test_an_adapter_finds_its_base_from_the_data_folder_upward(tmp_path: Path) -> None:
    base, adapter = tmp_path / "models" / "base", tmp_path / "jobs" / "1" / "model"
    for folder, config in ((base, "config.json"), (adapter, "adapter_config.json")):
        folder.mkdir(parents=True)
        (folder / config).write_text("{}")
        (folder / "any.safetensors").touch()
    (adapter / "reconciler.json").write_text(json.dumps({"base": "models/base"}))
    (base / "reconciler.json").write_text(json.dumps({"defaults": {"max_length": 77}}))

    found = bases.find(adapter)

    assert (base, adapter, 77) == (found.weights, found.adapter, found.defaults.max_length)


def test_a_job_that_is_not_described_well_names_the_field(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"id": "1", "model": {"path": "/m"}, "training_file": "/t"}))

    with pytest.raises(Failure, match="method: field required") as caught:
        job.read(path)

    assert "invalid_job" == caught.value.code
