"""What something unfinished needs is not taken away: models that are asked or judge, and files that are read."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_base import FakeEngine, Server, completions, echo, make_eval, words
from openai import ConflictError, NotFoundError

from reconciler.selfhosted.context import DEFAULT_PROJECT
from reconciler.selfhosted.engine import Ask
from reconciler.selfhosted.registry import models
from reconciler.selfhosted.tuning import supervisor

TRAINER = Path(__file__).parent / "server_trainer.py"
JUDGE = {
    "type": "score_model",
    "name": "judge",
    "model": "tuned",
    "input": [{"role": "user", "content": "Rate {{sample.output_text}}"}],
    "range": [0, 1],
    "pass_threshold": 0.5,
}
ROWS = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 10


class Clock:
    """A time that moves on when it is told to; about now, for the sweep compares it with files."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path, clock: Clock) -> Iterator[Server]:
    def says(ask: Ask) -> str:
        return json.dumps({"steps": [], "result": 1}) if ask.response_format else echo(ask)

    engine = FakeEngine(says)
    engine.sticks_at = 1
    trainer = (sys.executable, str(TRAINER))
    server = Server(tmp_path / "data", engine, now=clock, trainer=trainer)
    tuned = models.ModelRow("tuned", tmp_path / "tuned", "tiny", "tuned")
    server.store.write_now(lambda tx: tx.put(models.model_record("tuned", DEFAULT_PROJECT, 1, "me", tuned)))
    with server.running():
        yield server


def begun(server: Server, source: Any, *criteria: dict[str, Any]) -> Any:
    """A run whose first batch is never answered."""
    made = make_eval(server, *criteria)
    run = server.client.evals.runs.create(made.id, data_source=source)
    assert server.engine.stuck.wait(10)
    return run


def test_a_model_that_a_run_asks_or_is_graded_by_stays_until_the_run_ends(server: Server) -> None:
    run = begun(server, completions(words(2)), JUDGE)

    with pytest.raises(ConflictError, match=f"eval run {run.id} is graded by it"):
        server.client.models.delete("tuned")
    server.client.evals.runs.cancel(run.id, eval_id=run.eval_id)

    assert server.client.models.delete("tuned").deleted


def test_a_model_that_grades_a_job_stays_until_the_job_ends(server: Server, tmp_path: Path) -> None:
    rows = ROWS + json.dumps({"plan": {"hold_at": 1, "go": str(tmp_path / "go")}}).encode()
    training, validation = (
        server.client.files.create(file=("rows.jsonl", content), purpose="fine-tune").id
        for content in (rows, ROWS)
    )
    reinforcement: Any = {"grader": {key: JUDGE[key] for key in JUDGE if key != "pass_threshold"}}
    job = server.client.fine_tuning.jobs.create(
        model="tiny",
        training_file=training,
        validation_file=validation,
        method={"type": "reinforcement", "reinforcement": reinforcement},
    )

    with pytest.raises(ConflictError, match=f"job {job.id} is graded by it"):
        server.client.models.delete("tuned")
    server.client.fine_tuning.jobs.cancel(job.id)

    assert server.client.models.delete("tuned").deleted


def test_a_file_that_a_run_reads_stays_until_the_run_ends(server: Server) -> None:
    content = b"".join(json.dumps(row).encode() + b"\n" for row in words(2))
    file = server.client.files.create(file=("rows.jsonl", content), purpose="evals").id
    run = begun(server, completions([], source={"type": "file_id", "id": file}))

    with pytest.raises(ConflictError, match=f"eval run {run.id}"):
        server.client.files.delete(file)
    server.client.evals.runs.cancel(run.id, eval_id=run.eval_id)

    assert server.client.files.delete(file).deleted


def test_a_file_that_expires_while_it_is_read_loses_its_bytes_only_afterwards(
    server: Server, clock: Clock
) -> None:
    content = b"".join(json.dumps(row).encode() + b"\n" for row in words(2))
    life: Any = {"anchor": "created_at", "seconds": 3600}
    file = server.client.files.create(file=("rows.jsonl", content), purpose="evals", expires_after=life).id
    run = begun(server, completions([], source={"type": "file_id", "id": file}))
    bytes_of = server.here.blobs.path(file)

    clock.ahead = 2 * 3600
    asyncio.run(supervisor.sweep(server.here))
    kept = bytes_of.read_bytes()
    with pytest.raises(NotFoundError):
        server.client.files.retrieve(file)
    server.client.evals.runs.cancel(run.id, eval_id=run.eval_id)
    asyncio.run(supervisor.sweep(server.here))

    assert content == kept
    assert not bytes_of.exists()
