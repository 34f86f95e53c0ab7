"""A server whose jobs train in two processes, driven by the official SDK: a rank dies, the model answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from server_base import Server, until
from test_platform_train import RealServer, create, ended, weights
from test_training_ranks import children

pytestmark = pytest.mark.train


@pytest.fixture
def server(new_server: Callable[[type[Server]], Server]) -> Server:
    return new_server(RealServer).start("--processes", "2")


def ranks(server: Server) -> list[int]:
    """The processes that train, once there are two of them."""
    assert server.process is not None
    trainers = [
        pid
        for pid in children(server.process.pid)
        if b"reconciler.selfhosted.training" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]
    return [rank for trainer in trainers for rank in children(trainer)]


def test_a_job_in_two_processes_survives_one_of_them_and_its_model_answers(server: Server) -> None:
    whole = ended(server, create(server).id)
    job = create(server)
    checkpoints = server.client().fine_tuning.jobs.checkpoints
    killed = until(lambda: checkpoints.list(job.id).data and ranks(server), 300)[-1]

    os.kill(killed, signal.SIGKILL)
    job = ended(server, job.id)

    assert ("succeeded", "succeeded") == (whole.status, job.status), job.error
    assert weights(server, whole.id) == weights(server, job.id)
    told = [event.message for event in server.client().fine_tuning.jobs.list_events(job.id, limit=100).data]
    assert "Training in 2 processes, each with its share of every batch" in told
    assert any(message.startswith("Training resumed from step") for message in told)
    answer = server.client().chat.completions.create(
        model=str(job.fine_tuned_model),
        messages=[{"role": "user", "content": "Say the number 7."}],
        max_tokens=8,
    )
    assert answer.choices[0].message.content
