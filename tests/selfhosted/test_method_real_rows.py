"""Rows that nobody here wrote, for a few steps of each method. `RECONCILER_SHARED_DATA` names their folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from test_training import run

from reconciler.selfhosted.training import lines

TINY = Path(__file__).parents[2] / "reconciler" / "selfhosted" / "tiny"
DATA = os.environ.get("RECONCILER_SHARED_DATA")
COUNTDOWN = {
    "type": "python",
    "name": "countdown",
    "source": "def grade(sample, item):\n    return 1.0 if str(item['target']) in sample['output_text'] else 0.1\n",
}
STEPS = {"n_epochs": 1, "batch_size": 4}
pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(DATA is None, reason="RECONCILER_SHARED_DATA names no folder of real rows"),
]


@pytest.mark.parametrize(
    ("file", "validation", "rows", "method"),
    [
        ("gsm8k_chat_train.jsonl", "gsm8k_chat_validation.jsonl", 16, "supervised"),
        ("stock_toolcall_training.jsonl", "stock_toolcall_validation.jsonl", 16, "supervised"),
        ("orca_dpo_pairs.jsonl", None, 12, "dpo"),
        ("countdown_rft_train.jsonl", "countdown_rft_validation.jsonl", 12, "reinforcement"),
    ],
)
def test_real_rows_train_for_a_few_steps(
    tmp_path: Path, file: str, validation: str | None, rows: int, method: str
) -> None:
    options: dict[str, Any] = {"hyperparameters": STEPS}
    if method == "reinforcement":
        options["hyperparameters"] = STEPS | {"compute_multiplier": 0.25}
        options["grader"] = COUNTDOWN
    wanted = {
        "id": "ftjob-1",
        "model": {"path": str(TINY)},
        "training_file": str(first(file, rows, tmp_path)),
        "validation_file": str(first(validation, 4, tmp_path)) if validation else None,
        "method": {"type": method, method: options},
        "seed": 1,
        "tuning": {"type": "full"},
        "threads": 1,
    }
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps(wanted))

    result = run(folder)

    assert "succeeded" == result["status"], result
    metrics = [event for event in lines.read(folder / "events.jsonl") if event["type"] == "metrics"]
    assert len(metrics) >= 2


def first(name: str, rows: int, folder: Path) -> Path:
    """The first rows of a file, in a file of their own."""
    assert DATA is not None
    path = folder / name
    path.write_text("".join((Path(DATA) / name).read_text().splitlines(keepends=True)[:rows]))
    return path
