"""A job of any method that is killed or told to stop ends, in the end, with the weights of one that was not."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import training_jobs
from test_training import digest
from training_jobs import KINDS, STEPS, Nursery

from reconciler.selfhosted.training import lines

pytestmark = pytest.mark.train

STOPPED = 75


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_jobs.fill(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def whole(shelf: Path, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A job of every kind that nobody interrupted."""
    root = tmp_path_factory.mktemp("whole")
    folders = {kind: training_jobs.job(shelf, root / kind, kind) for kind in KINDS}
    for folder in folders.values():
        assert 0 == nursery.train(folder), (folder / "trainer.log").read_text()[-2000:]
        assert "succeeded" == json.loads((folder / "result.json").read_text())["status"]
    return folders


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_at_a_step_it_ends_with_the_same_weights(
    shelf: Path, nursery: Nursery, whole: dict[str, Path], tmp_path: Path, kind: str, how: signal.Signals
) -> None:
    folder = training_jobs.job(shelf, tmp_path / "job", kind)

    codes = [nursery.train(folder, step, how) for step in (2, 4)]
    ended = nursery.train(folder)

    expected = -signal.SIGKILL if how == signal.SIGKILL else STOPPED
    assert ([expected, expected], 0) == (codes, ended), (folder / "trainer.log").read_text()[-2000:]
    assert digest(whole[kind]) == digest(folder)
    assert (whole[kind] / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()
    keys = [event["key"] for event in lines.read(folder / "events.jsonl")]
    assert [f"step-{n}" for n in range(1, STEPS + 1)] == [key for key in keys if key.startswith("step-")]
    assert 2 == sum(key.startswith("resumed-") for key in keys)
