"""Jobs: what a client sees of them, and what happens to them when processes die."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob
from server_base import Server, alive, register, until, upload

from reconciler.selfhosted.storage.store import Store


def create(server: Server, base: Path, plan: dict[str, Any] | None = None, **more: Any) -> FineTuningJob:
    jobs = server.client().fine_tuning.jobs
    asked = {"model": register(server, base), "training_file": upload(server, **plan or {}), **more}
    return jobs.create(**asked)


def held(step: int, base: Path) -> dict[str, Any]:
    """A plan to wait after a step until `go` is said."""
    return {"hold_at": step, "go": str(base / "go")}


def go(base: Path) -> None:
    (base / "go").touch()


def ended(server: Server, id: str) -> FineTuningJob:
    jobs = server.client().fine_tuning.jobs

    def end() -> FineTuningJob | None:
        job = jobs.retrieve(id)
        return job if job.status in ("succeeded", "failed", "cancelled") else None

    return until(end)


def messages(server: Server, id: str) -> list[str]:
    events = list(server.client().fine_tuning.jobs.list_events(id, limit=3))
    return [event.message for event in events][::-1]


def starts(server: Server, id: str) -> list[int]:
    file = server.data / "jobs" / id / "starts"
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def test_a_job_leaves_a_model_checkpoints_events_and_a_result_file(
    shared_server: Server, base_model: Path
) -> None:
    client = shared_server.client()

    job = ended(
        shared_server, create(shared_server, base_model, suffix="My triage", seed=7, metadata={"op": "1"}).id
    )

    assert ("succeeded", 42, 7, {"op": "1"}) == (job.status, job.trained_tokens, job.seed, job.metadata)
    assert 3 == job.hyperparameters.n_epochs
    assert job.fine_tuned_model is not None
    assert job.fine_tuned_model.startswith(f"ft:{base_model.name}:local:My-triage:")
    assert 8 == len(job.fine_tuned_model.rpartition(":")[2])
    assert job.fine_tuned_model == client.models.retrieve(job.fine_tuned_model).id
    assert b"step,train_loss\n1,1.0\n" == client.files.content(job.result_files[0]).read()
    assert "fine-tune-results" == client.files.retrieve(job.result_files[0]).purpose
    steps = [c.step_number for c in client.fine_tuning.jobs.checkpoints.list(job.id, limit=2)]
    assert [3, 2, 1] == steps
    assert [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {job.training_file}",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        "Step 1/3: training loss=1.00",
        "Step 2/3: training loss=0.50",
        "Step 3/3: training loss=0.33",
        f"New fine-tuned model created: {job.fine_tuned_model}",
        "The job has successfully completed",
    ] == messages(shared_server, job.id)


def test_a_checkpoint_is_a_model_and_may_be_the_base_of_the_next_job(
    shared_server: Server, base_model: Path
) -> None:
    client = shared_server.client()
    first = ended(shared_server, create(shared_server, base_model, suffix="one").id)
    checkpoint = client.fine_tuning.jobs.checkpoints.list(first.id).data[0].fine_tuned_model_checkpoint

    second = client.fine_tuning.jobs.create(model=checkpoint, training_file=first.training_file, suffix="two")

    assert checkpoint.endswith(":ckpt-step-3")
    assert checkpoint.split(":")[4] != (first.fine_tuned_model or "").split(":")[4]
    assert (ended(shared_server, second.id).fine_tuned_model or "").startswith(
        f"ft:{base_model.name}:local:two:"
    )


def test_a_checkpoint_that_the_trainer_dropped_last_is_no_model_any_more(
    shared_server: Server, base_model: Path
) -> None:
    client = shared_server.client()
    job = create(shared_server, base_model, {"drops": [1], "go": str(base_model / "go")})
    told = until(lambda: _checkpoints(shared_server, job.id, 3))

    go(base_model)
    ended(shared_server, job.id)

    assert [3, 2] == [c.step_number for c in client.fine_tuning.jobs.checkpoints.list(job.id)]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(told[-1])


def _checkpoints(server: Server, id: str, count: int) -> list[str]:
    listed = server.client().fine_tuning.jobs.checkpoints.list(id).data
    return [c.fine_tuned_model_checkpoint for c in listed] if len(listed) == count else []


def test_a_running_job_says_when_it_will_end(shared_server: Server, base_model: Path) -> None:
    job = create(shared_server, base_model, held(2, base_model))

    running = until(lambda: _running(shared_server, job.id))

    assert running.estimated_finish is not None
    assert running.estimated_finish > job.created_at + 50
    go(base_model)


def _running(server: Server, id: str) -> FineTuningJob | None:
    job = server.client().fine_tuning.jobs.retrieve(id)
    return job if job.status == "running" else None


def test_a_cancelled_job_stops_its_trainer_and_cannot_be_cancelled_again(
    shared_server: Server, base_model: Path
) -> None:
    jobs = shared_server.client().fine_tuning.jobs
    job = create(shared_server, base_model, held(2, base_model))
    [trainer] = until(lambda: starts(shared_server, job.id))

    cancelled = jobs.cancel(job.id)

    assert "cancelled" == cancelled.status
    until(lambda: not alive(trainer))
    assert "cancelled" == jobs.retrieve(job.id).status
    with pytest.raises(openai.BadRequestError, match="already been cancelled"):
        jobs.cancel(job.id)


def test_a_second_job_waits_in_the_queue_and_is_trained_after_the_first(
    shared_server: Server, base_model: Path
) -> None:
    jobs = shared_server.client().fine_tuning.jobs
    first = create(shared_server, base_model, held(1, base_model))
    until(lambda: starts(shared_server, first.id))

    second = jobs.create(model=base_model.name, training_file=first.training_file)

    until(lambda: jobs.retrieve(second.id).status == "queued")
    assert [] == starts(shared_server, second.id)
    go(base_model)
    assert ("succeeded", "succeeded") == (
        ended(shared_server, first.id).status,
        ended(shared_server, second.id).status,
    )


def test_a_killed_trainer_is_started_again_and_nothing_is_told_twice(
    shared_server: Server, base_model: Path
) -> None:
    job = create(shared_server, base_model, held(2, base_model))
    until(lambda: "Step 2/3: training loss=0.50" in messages(shared_server, job.id))

    os.kill(starts(shared_server, job.id)[0], signal.SIGKILL)
    go(base_model)

    assert "succeeded" == ended(shared_server, job.id).status
    assert 2 == len(starts(shared_server, job.id))
    told = messages(shared_server, job.id)
    assert sorted(set(told)) == sorted(told)
    assert 3 == len(shared_server.client().fine_tuning.jobs.checkpoints.list(job.id).data)


def test_a_trainer_that_only_crashes_fails_the_job_without_telling_the_rows(
    shared_server: Server, base_model: Path
) -> None:
    job = ended(shared_server, create(shared_server, base_model, {"die_at": 1, "deaths": 99}).id)

    assert job.error is not None
    assert ("failed", "trainer_crashed") == (job.status, job.error.code)
    assert "ValueError" in job.error.message
    assert "secret" not in job.error.message + shared_server.log()
    assert 3 == len(starts(shared_server, job.id)) or 4 == len(starts(shared_server, job.id))


def test_a_trainer_that_is_killed_again_and_again_ran_out_of_memory(
    shared_server: Server, base_model: Path
) -> None:
    plan = {"die_at": 1, "deaths": 99, "killed": True}

    job = ended(shared_server, create(shared_server, base_model, plan).id)

    assert job.error is not None
    assert ("failed", "out_of_memory") == (job.status, job.error.code)
    assert "was killed 3 times without progress" in job.error.message
    assert "choose a smaller batch_size" in job.error.message


def test_a_trainer_that_refuses_the_rows_fails_the_job_with_its_reason(
    shared_server: Server, base_model: Path
) -> None:
    refusal = {"code": "invalid_n_examples", "message": "9 rows; at least 10", "param": "training_file"}

    job = ended(shared_server, create(shared_server, base_model, {"fail": refusal}).id)

    assert job.error is not None
    assert refusal == {"code": job.error.code, "message": job.error.message, "param": job.error.param}
    assert "Fine-tuning job failed: 9 rows; at least 10" == messages(shared_server, job.id)[-1]


def test_a_model_that_cannot_be_served_fails_its_job(shared_server: Server, base_model: Path) -> None:
    job = ended(shared_server, create(shared_server, base_model, {"unservable": True}).id)

    assert job.error is not None
    assert ("failed", "model_not_servable") == (job.status, job.error.code)
    assert job.fine_tuned_model is None


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_killed_server_goes_on_with_its_jobs_by_itself(
    new_server: Callable[[], Server], base_model: Path, moment: int
) -> None:
    server = new_server().start("--allow-model-sources")
    job = create(server, base_model, held(moment, base_model))
    until(lambda: f"Step {moment}/3" in str(messages(server, job.id)))

    server.kill()
    for trainer in starts(server, job.id):  # the real one dies with its parent
        os.kill(trainer, signal.SIGKILL)
    go(base_model)
    server.start("--allow-model-sources")

    assert "succeeded" == ended(server, job.id).status
    told = messages(server, job.id)
    assert sorted(set(told)) == sorted(told)
    assert [3, 2, 1] == [c.step_number for c in server.client().fine_tuning.jobs.checkpoints.list(job.id)]


def test_a_stopped_server_stops_its_trainer_and_leaves_the_job_running(
    new_server: Callable[[], Server], base_model: Path
) -> None:
    server = new_server().start("--allow-model-sources")
    job = create(server, base_model, held(2, base_model))
    [trainer] = until(lambda: starts(server, job.id))
    until(lambda: _running(server, job.id))

    code = server.kill(signal.SIGTERM)

    assert (0, False) == (code, alive(trainer))
    go(base_model)
    server.start()
    assert "succeeded" == ended(server, job.id).status


def test_jobs_are_found_by_their_metadata(shared_server: Server, base_model: Path) -> None:
    team = base_model.name
    one = create(shared_server, base_model, metadata={"op": "1", "team": team})
    two = create(shared_server, base_model, metadata={"op": "2", "team": team})
    bare = create(shared_server, base_model)
    jobs = shared_server.client().fine_tuning.jobs

    def found(**filters: str) -> list[str]:
        return [job.id for job in jobs.list(metadata=filters, limit=1)]

    unmarked = [job.id for job in jobs.list(extra_query={"metadata": "null"})]

    assert [two.id, one.id] == found(team=team)
    assert [one.id] == found(team=team, op="1")
    assert [] == found(team=team, op="3")
    assert bare.id == unmarked[0]
    assert not {one.id, two.id} & set(unmarked)
    with shared_server.http() as http:
        assert {"object", "data", "has_more"} == http.get("/v1/fine_tuning/jobs").json().keys()


def test_a_job_without_a_seed_gets_one_and_keeps_its_tuning(shared_server: Server, base_model: Path) -> None:
    tuning = {"type": "lora", "rank": 4, "alpha": 8.0, "target": "all-linear"}

    job = create(shared_server, base_model, extra_body={"reconciler": {"tuning": tuning}})

    assert 0 <= job.seed <= 2**31 - 1
    assert {"tuning": tuning} == (job.model_extra or {})["reconciler"]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "nobody"}, 404, "model_not_found"),
        ({"training_file": "file-nothing"}, 400, "file_not_found"),
        ({"validation_file": "file-nothing"}, 400, "file_not_found"),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 3}}}}, 400, "invalid_value"),
        ({"method": {"type": "reinforcement"}}, 400, None),
        ({"method": {"type": "reinforcement", "reinforcement": {}}}, 400, "invalid_value"),
        ({"method": {"type": "reinforcement", "reinforcement": {"grader": {}}}}, 400, None),
        ({"method": {"type": "other"}}, 400, "invalid_value"),
        ({"seed": -1}, 400, "invalid_value"),
        ({"suffix": ""}, 400, "invalid_value"),
        ({"suffix": "x" * 65}, 400, "invalid_value"),
        ({"hyperparameters": {"n_epochs": 51}}, 400, "invalid_value"),
        ({"hyperparameters": {"batch_size": "large"}}, 400, "invalid_value"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, 400, "invalid_value"),
        ({"metadata": {"k": 1}}, 400, None),
        ({"metadata": {str(n): "" for n in range(17)}}, 400, None),
        ({"metadata": {"k" * 65: ""}}, 400, None),
        ({"metadata": {"k": "v" * 513}}, 400, None),
        ({"integrations": [{"type": "wandb"}]}, 400, None),
        ({"reconciler": {"tuning": {"type": "lora", "ranks": 3}}}, 400, "invalid_value"),
    ],
)
def test_a_job_that_cannot_be_is_refused_with_a_sentence(
    shared_server: Server, base_model: Path, change: dict[str, Any], status: int, code: str | None
) -> None:
    asked = {"model": register(shared_server, base_model), "training_file": upload(shared_server)}

    with shared_server.http() as http:
        before = [job["id"] for job in http.get("/v1/fine_tuning/jobs").json()["data"]]
        answer = http.post("/v1/fine_tuning/jobs", json=asked | change)
        after = [job["id"] for job in http.get("/v1/fine_tuning/jobs").json()["data"]]

    assert (status, code, before) == (answer.status_code, answer.json()["error"]["code"], after)


def test_a_file_of_another_purpose_does_not_train(shared_server: Server, base_model: Path) -> None:
    model, file = register(shared_server, base_model), upload(shared_server, "evals")

    with pytest.raises(openai.BadRequestError, match="has the purpose 'evals'"):
        shared_server.client().fine_tuning.jobs.create(model=model, training_file=file)


def test_a_file_that_a_job_uses_cannot_be_deleted(shared_server: Server, base_model: Path) -> None:
    job = create(shared_server, base_model, held(1, base_model))

    with pytest.raises(openai.ConflictError, match=job.id):
        shared_server.client().files.delete(job.training_file)
    go(base_model)


def test_a_worker_that_lost_its_lease_writes_nothing(tmp_path: Path) -> None:
    from reconciler.selfhosted.storage.store import Record
    from reconciler.selfhosted.tuning import jobbook

    now = [1000.0]
    store = Store(f"sqlite:///{tmp_path / 'db'}", now=lambda: now[0])
    body = {"id": "ftjob-1", "status": "queued"}
    store.write_now(lambda tx: tx.insert(Record("job", "ftjob-1", "p", body, 1000, status="queued")))
    slow = store.write_now(lambda tx: jobbook.claim(tx, "slow", frozenset()))
    assert slow is not None
    assert store.write_now(lambda tx: jobbook.claim(tx, "other", frozenset())) is None

    now[0] += jobbook.LEASE + 1
    other = store.write_now(lambda tx: jobbook.claim(tx, "other", frozenset()))

    assert other is not None
    with pytest.raises(jobbook.Lost):
        store.write_now(lambda tx: jobbook.fail(tx, slow, "late", "late"))
    assert "queued" == store.write_now(lambda tx: jobbook.held(tx, other)).status
    store.close()


def test_a_paused_job_leaves_a_model_and_goes_on_when_resumed(
    shared_server: Server, base_model: Path
) -> None:
    jobs = shared_server.client().fine_tuning.jobs
    job = create(shared_server, base_model, held(2, base_model))
    until(lambda: "Step 2/3: training loss=0.50" in messages(shared_server, job.id))
    [first] = starts(shared_server, job.id)

    paused: Any = jobs.pause(job.id)
    snapshot = until(lambda: [each for each in jobs.checkpoints.list(job.id) if each.step_number == 2])[
        0
    ].fine_tuned_model_checkpoint
    until(lambda: not alive(first))
    go(base_model)

    assert ("paused", None) == (paused.status, paused.estimated_finish)
    assert "paused" == jobs.pause(job.id).status == jobs.retrieve(job.id).status
    assert [first] == starts(shared_server, job.id)
    assert "hello" == chat(shared_server, snapshot)

    resumed = jobs.resume(job.id)

    assert "queued" == resumed.status
    assert "succeeded" == ended(shared_server, job.id).status
    assert 2 == len(starts(shared_server, job.id))
    assert [3, 2, 1] == [each.step_number for each in jobs.checkpoints.list(job.id)]
    told = messages(shared_server, job.id)
    assert told.index("Fine-tuning job paused") < told.index("Fine-tuning job resumed")
    for call in (jobs.pause, jobs.resume):
        with pytest.raises(openai.BadRequestError, match="already succeeded"):
            call(job.id)


def test_a_paused_job_stays_so_when_the_server_dies_and_can_be_cancelled(
    new_server: Callable[[], Server], base_model: Path
) -> None:
    server = new_server().start("--allow-model-sources")
    job = create(server, base_model, held(1, base_model))
    until(lambda: starts(server, job.id))
    server.client().fine_tuning.jobs.pause(job.id)
    server.kill()

    server.start("--allow-model-sources")
    other = create(server, base_model)
    assert "succeeded" == ended(server, other.id).status  # whoever waits was taken up by now
    jobs = server.client().fine_tuning.jobs

    assert "paused" == jobs.retrieve(job.id).status
    with pytest.raises(openai.ConflictError, match=job.id):
        server.client().files.delete(job.training_file)
    assert "cancelled" == jobs.cancel(job.id).status
    assert not (server.data / "jobs" / job.id / "checkpoints").exists()


def test_only_a_paused_job_can_be_resumed(shared_server: Server, base_model: Path) -> None:
    job = create(shared_server, base_model, held(1, base_model))

    with pytest.raises(openai.BadRequestError, match="not paused"):
        shared_server.client().fine_tuning.jobs.resume(job.id)

    go(base_model)
    ended(shared_server, job.id)


def chat(server: Server, model: str) -> str | None:
    made = server.client().chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    return made.choices[0].message.content
