"""The real trainer and the real engine behind the real server, driven by the official SDK."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable

import pytest
from openai.types.fine_tuning import FineTuningJob
from server_base import Server, until

pytestmark = pytest.mark.train

ROWS = "".join(
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"Say the number {n}."},
                {"role": "assistant", "content": f"{n}"},
            ]
        }
    )
    + "\n"
    for n in range(40)
)
SUPERVISED = {"hyperparameters": {"n_epochs": 4, "batch_size": 8}}


class RealServer(Server):
    """The server as it is shipped."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "reconciler.selfhosted", "serve"]


@pytest.fixture
def real_server(new_server: Callable[[type[Server]], Server]) -> Server:
    return new_server(RealServer).start()


def create(server: Server, **more: object) -> FineTuningJob:
    client = server.client()
    file = client.files.create(file=("rows.jsonl", ROWS.encode()), purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        model="tiny-chat",
        training_file=file.id,
        seed=7,
        suffix="numbers",
        method={"type": "supervised", "supervised": SUPERVISED},  # type: ignore[typeddict-item]
        **more,  # type: ignore[arg-type]
    )


def ended(server: Server, id: str) -> FineTuningJob:
    def end() -> FineTuningJob | None:
        job = server.client().fine_tuning.jobs.retrieve(id)
        return job if job.status in ("succeeded", "failed", "cancelled") else None

    return until(end, 300)


def weights(server: Server, id: str) -> str:
    [file] = (server.data / "jobs" / id / "model").glob("*.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def steps(server: Server, id: str) -> list[int]:
    events = server.client().fine_tuning.jobs.list_events(id, limit=100).data
    return sorted(int(event.data["step"]) for event in events if event.type == "metrics")  # type: ignore[index]


@pytest.mark.parametrize("tuning", [{"type": "full"}, {"type": "lora", "rank": 4}])
def test_the_sdk_trains_a_model_and_chats_with_it(real_server: Server, tuning: dict[str, object]) -> None:
    client = real_server.client()

    job = ended(real_server, create(real_server, extra_body={"reconciler": {"tuning": tuning}}).id)

    assert "succeeded" == job.status, job.error
    assert job.fine_tuned_model is not None
    assert list(range(1, 21)) == steps(real_server, job.id)
    assert 3 == len(client.fine_tuning.jobs.checkpoints.list(job.id).data)
    header = client.files.content(job.result_files[0]).read().splitlines()[0]
    assert header.startswith(b"step,train_loss,train_mean_token_accuracy")
    asked = [{"role": "user", "content": "Say the number 7."}]
    answer = client.chat.completions.create(model=job.fine_tuned_model, messages=asked, temperature=0)  # type: ignore[arg-type]
    stream = client.chat.completions.create(
        model=job.fine_tuned_model,
        messages=asked,  # type: ignore[arg-type]
        temperature=0,
        stream=True,
    )
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert answer.choices[0].message.content == streamed
    assert streamed


def test_whatever_is_killed_the_weights_are_those_of_an_uninterrupted_run(
    new_server: Callable[[type[Server]], Server],
) -> None:
    server = new_server(RealServer).start()
    tuning = {"extra_body": {"reconciler": {"tuning": {"type": "full"}}}}
    whole = create(server, **tuning)
    assert "succeeded" == ended(server, whole.id).status

    broken = create(server, **tuning)
    until(lambda: len(steps(server, broken.id)) >= 6, 120)
    os.kill(server.children("selfhosted.training")[0], signal.SIGKILL)
    until(lambda: len(steps(server, broken.id)) >= 11, 120)
    server.kill(signal.SIGKILL)
    server.start()

    assert "succeeded" == ended(server, broken.id).status
    assert weights(server, whole.id) == weights(server, broken.id)
    assert list(range(1, 21)) == steps(server, broken.id)


def test_rows_that_cannot_train_fail_the_job_with_the_reason(real_server: Server) -> None:
    client = real_server.client()
    few = "".join(ROWS.splitlines(keepends=True)[:9])
    file = client.files.create(file=("rows.jsonl", few.encode()), purpose="fine-tune")

    job = ended(real_server, client.fine_tuning.jobs.create(model="tiny-chat", training_file=file.id).id)

    assert job.error is not None
    assert ("failed", "invalid_n_examples", "training_file") == (
        job.status,
        job.error.code,
        job.error.param,
    )
