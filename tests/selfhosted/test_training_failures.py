"""What a job cannot get over ends it, with a code and a sentence that says what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import training_base
from test_training import hyper, job, run

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shelf = tmp_path_factory.mktemp("shelf")
    training_base.base_model(shelf / "base")
    training_base.write_rows(shelf / "training.jsonl", [training_base.row(i) for i in range(16)])
    training_base.write_rows(shelf / "validation.jsonl", [training_base.row(i) for i in range(16, 20)])
    return shelf


def error_of(folder: Path) -> dict[str, Any]:
    """The error of a job that failed, and left nothing that only training needs."""
    result = run(folder)
    assert "failed" == result["status"]
    assert not any((folder / name).exists() for name in ("model", "checkpoints", ".saving"))
    error: dict[str, Any] = result["error"]
    return error


def test_weights_that_went_away_are_named(shelf: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(shelf / "base", tmp_path / "base"))
    (base / "model.safetensors").unlink()

    error = error_of(job(shelf, tmp_path / "job", model={"path": str(base)}))

    assert "invalid_model" == error["code"]
    assert "the base model cannot be trained: its folder has no weights in safetensors" == error["message"]


def test_a_tensor_that_is_missing_is_not_made_up(shelf: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = Path(shutil.copytree(shelf / "base", tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})

    error = error_of(job(shelf, tmp_path / "job", model={"path": str(base)}))

    assert "invalid_model" == error["code"]
    assert "1 of its tensors are missing or have another shape than its config says" in error["message"]


def test_more_memory_than_there_is_is_a_failure_with_advice(shelf: Path, tmp_path: Path) -> None:
    folder = job(shelf, tmp_path / "job")
    beyond = {"type": "lora", "rank": 1 << 40}  # more bytes than addresses
    described = json.loads((folder / "job.json").read_text())
    (folder / "job.json").write_text(json.dumps(described | {"tuning": beyond}))

    error = error_of(folder)

    assert "out_of_memory" == error["code"]
    assert "choose a smaller batch_size, shorter rows, lora tuning or a smaller model" in error["message"]


# Trains on a disk of a size that the base and the logs fit on, and a resume state does not.
FULL_DISK = """
set -e
mount -t tmpfs -o size=600k tmpfs "$1"
cp "$2" "$1/job.json"
"$0" -m reconciler.selfhosted.training "$1" 2> /dev/null
cat "$1/result.json"
"""


def test_a_full_disk_is_a_failure_with_advice(shelf: Path, tmp_path: Path) -> None:
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*own, "true"], capture_output=True).returncode:
        pytest.skip("nobody may mount a small disk here")
    folder = job(shelf, tmp_path / "job", **hyper(n_epochs=1, batch_size=4))
    disk = tmp_path / "disk"
    disk.mkdir()

    command = [*own, "sh", "-c", FULL_DISK, sys.executable, str(disk), str(folder / "job.json")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)

    error = json.loads(ended.stdout)["error"]
    assert "disk_full" == error["code"]
    assert "free some space and create it again" in error["message"]
