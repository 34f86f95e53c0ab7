"""The eighteen places where OpenAI contradicts itself, by their number in section 9 of the contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from contract_server import Platform
from contract_tour import CHAT, ROWS
from eval_base import EQUAL, completions, make_eval, run_of, words

from reconciler.selfhosted.training import formats


@pytest.fixture
def http(platform: Platform) -> httpx.Client:
    return httpx.Client(base_url=f"{platform.url}/v1", trust_env=False, verify=False, timeout=30)


@pytest.fixture
def file(platform: Platform) -> str:
    return upload(platform, ROWS)


def upload(platform: Platform, content: bytes, purpose: Any = "fine-tune") -> str:
    return platform.client.files.create(file=("rows.jsonl", content), purpose=purpose).id


def job(http: httpx.Client, file: str, **more: Any) -> dict[str, Any]:
    answer = http.post("/fine_tuning/jobs", json={"model": "tiny", "training_file": file, **more})
    assert 200 == answer.status_code, answer.text
    return dict(answer.json())


def until(look: Callable[[], dict[str, Any]], status: str) -> dict[str, Any]:
    while (seen := look())["status"] != status:
        assert seen["status"] not in ("failed", "cancelled"), seen["error"]
    return seen


def succeeded(http: httpx.Client, id: str) -> dict[str, Any]:
    return until(lambda: http.get(f"/fine_tuning/jobs/{id}").json(), "succeeded")


def test_1_a_paused_job_says_so(platform: Platform, http: httpx.Client) -> None:
    plan, go = platform.hold("inconsistency-1")
    made = job(http, upload(platform, ROWS + json.dumps(plan).encode()))
    until(lambda: http.get(f"/fine_tuning/jobs/{made['id']}").json(), "running")

    paused = http.post(f"/fine_tuning/jobs/{made['id']}/pause").json()
    typed = platform.client.fine_tuning.jobs.retrieve(made["id"])
    resumed = http.post(f"/fine_tuning/jobs/{made['id']}/resume").json()
    go.touch()

    assert ("paused", "paused", "queued") == (paused["status"], typed.status, resumed["status"])
    succeeded(http, made["id"])


def test_2_a_file_for_evals_says_that_it_is_one(platform: Platform) -> None:
    id = upload(platform, b"{}", "evals")

    listed = platform.client.files.list(purpose="evals", limit=1).data[0]

    assert ("evals", id) == (listed.purpose, listed.id)


@pytest.mark.parametrize("graders", [{"same": EQUAL}, EQUAL])
def test_3_the_graders_of_a_multi_are_a_map_or_the_one_that_the_specification_says(
    http: httpx.Client, graders: dict[str, Any]
) -> None:
    multi = {"type": "multi", "name": "m", "graders": graders, "calculate_output": "same * 2"}
    if graders is EQUAL:
        multi |= {"graders": {**EQUAL, "name": "same"}}

    answer = http.post(
        "/fine_tuning/alpha/graders/run",
        json={"grader": multi, "item": {"expected": "a"}, "model_sample": "a"},
    )

    assert (200, 2.0) == (answer.status_code, answer.json().get("reward"))


@pytest.mark.parametrize("spelling", ["max_completions_tokens", "max_completion_tokens"])
def test_4_the_tokens_of_a_completion_are_limited_in_either_spelling(
    platform: Platform, spelling: str
) -> None:
    made = make_eval(platform)

    run = platform.ended(run_of(platform, made.id, words(1), sampling_params={spelling: 7}))

    assert 7 == platform.items(run)[0].sample.max_completion_tokens
    judge = {"type": "score_model", "name": "j", "model": "tiny", "sampling_params": {spelling: 7}}
    judge |= {"input": [{"role": "user", "content": "x"}]}
    platform.client.fine_tuning.alpha.graders.validate(grader=judge)  # type: ignore[arg-type]


@pytest.mark.parametrize("word", ["output", "completion"])
def test_5_a_preference_is_an_output_or_a_completion(word: str) -> None:
    yes, no = ([{"role": "assistant", "content": text}] for text in ("yes", "no"))
    row = {"input": {"messages": CHAT}, f"preferred_{word}": yes, f"non_preferred_{word}": no}

    formats.check_preference(row)

    assert yes == formats.one_of(row, formats.PREFERRED)


def test_6_what_only_the_guides_know_is_taken_and_told(http: httpx.Client, file: str) -> None:
    format = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    grader = {**EQUAL, "reference": "a"}
    asked = {"type": "reinforcement", "reinforcement": {"grader": grader, "response_format": format}}

    made = job(http, file, validation_file=file, method=asked, suffix="mine", shared_with_openai=False)

    assert format == made["method"]["reinforcement"]["response_format"]
    assert "mine" == made["user_provided_suffix"]
    assert (None, None, False) == tuple(
        made[name] for name in ("eval_id", "usage_metrics", "shared_with_openai")
    )


@pytest.mark.parametrize("path", ["", "/cancel"])
def test_7_a_run_is_cancelled_on_either_path(platform: Platform, http: httpx.Client, path: str) -> None:
    stuck = [{"item": {"word": "stuck", "expected": "x"}}]
    made = make_eval(platform)
    run = run_of(platform, made.id, stuck)

    answer = http.post(f"/evals/{made.id}/runs/{run.id}{path}")

    assert (200, "canceled") == (answer.status_code, answer.json()["status"])


def test_8_the_metrics_of_a_job_are_csv_and_not_base64(http: httpx.Client, file: str) -> None:
    done = succeeded(http, job(http, file)["id"])

    csv = http.get(f"/files/{done['result_files'][0]}/content")

    assert "step,train_loss" == csv.text.splitlines()[0]


def test_9_an_eval_and_a_run_are_created_with_201_and_all_else_with_200(
    http: httpx.Client, file: str
) -> None:
    config = {"type": "custom", "item_schema": {"type": "object"}}
    made = http.post("/evals", json={"data_source_config": config, "testing_criteria": [EQUAL]})
    run = http.post(f"/evals/{made.json()['id']}/runs", json={"data_source": completions(words(1))})
    updated = http.post(f"/evals/{made.json()['id']}", json={"name": "other"})
    training = http.post("/fine_tuning/jobs", json={"model": "tiny", "training_file": file})

    assert [201, 201, 200, 200] == [each.status_code for each in (made, run, updated, training)]


def test_10_what_has_no_error_says_null(platform: Platform, http: httpx.Client, file: str) -> None:
    run = run_of(platform, make_eval(platform).id, words(1))

    raw = http.get(f"/evals/{run.eval_id}/runs/{run.id}").json()

    assert raw["error"] is None and job(http, file)["error"] is None
    assert run.error is None


def test_11_a_run_that_has_not_begun_has_no_aggregates(platform: Platform, http: httpx.Client) -> None:
    made = make_eval(platform)

    run = http.post(f"/evals/{made.id}/runs", json={"data_source": completions(words(1))}).json()
    done = platform.ended(platform.client.evals.runs.retrieve(run["id"], eval_id=made.id))

    assert run["per_model_usage"] is None and run["per_testing_criteria_results"] is None
    assert 1 == done.per_model_usage[0].invocation_count == done.per_testing_criteria_results[0].passed


def test_12_runs_are_canceled_and_jobs_batches_and_uploads_cancelled(
    platform: Platform, http: httpx.Client, file: str
) -> None:
    plan, go = platform.hold("inconsistency-12")
    held = job(http, upload(platform, ROWS + json.dumps(plan).encode()))["id"]
    ended = [http.post(f"/fine_tuning/jobs/{held}/cancel").json()]
    go.touch()
    announced = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 1, "mime_type": "text/plain"}
    ended.append(http.post(f"/uploads/{http.post('/uploads', json=announced).json()['id']}/cancel").json())
    row = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
    row |= {"body": {"model": "tiny", "messages": [{"role": "user", "content": "stuck"}]}}
    asked = {"input_file_id": upload(platform, json.dumps(row).encode(), "batch")}
    asked |= {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = http.post("/batches", json=asked).json()["id"]
    http.post(f"/batches/{batch}/cancel")
    ended.append(until_ended(http, batch))
    run = run_of(platform, make_eval(platform).id, [{"item": {"word": "stuck", "expected": "x"}}])
    run = platform.client.evals.runs.cancel(run.id, eval_id=run.eval_id)

    assert ["cancelled"] * 3 == [each["status"] for each in ended]
    assert "canceled" == run.status
    assert [run.id] == [r.id for r in platform.client.evals.runs.list(run.eval_id, status="canceled")]


def until_ended(http: httpx.Client, batch: str) -> dict[str, Any]:
    while (seen := http.get(f"/batches/{batch}").json())["status"] != "cancelled":
        assert seen["status"] in ("validating", "in_progress", "cancelling"), seen
    return dict(seen)


def test_13_jobs_and_events_are_listed_without_their_ends(http: httpx.Client, file: str) -> None:
    id = job(http, file)["id"]

    jobs, events, files = (
        http.get(path).json() for path in ("/fine_tuning/jobs", f"/fine_tuning/jobs/{id}/events", "/files")
    )

    assert {"object", "data", "has_more"} == jobs.keys() == events.keys()
    assert {"object", "data", "has_more", "first_id", "last_id"} == files.keys()


def test_14_orders_have_two_spellings_and_two_defaults(
    platform: Platform, http: httpx.Client, file: str
) -> None:
    model = succeeded(http, job(http, file)["id"])["fine_tuned_model"]
    path = f"/fine_tuning/checkpoints/{model}/permissions"
    granted = {one["project_id"] for one in http.post(path, json={"project_ids": ["a", "b"]}).json()["data"]}
    spelt = {
        order: [one["project_id"] for one in http.get(path, params={"order": order}).json()["data"]]
        for order in ("ascending", "asc", "descending", "desc")
    }
    unsaid = [one["project_id"] for one in http.get(path).json()["data"]]
    evals = [http.get("/evals", params=ask).json()["data"][0]["id"] for ask in ({}, {"order": "asc"})]
    files = [http.get("/files", params=ask).json()["data"][0]["id"] for ask in ({}, {"order": "desc"})]

    assert {"a", "b"} == granted
    assert spelt["ascending"] == spelt["asc"] == spelt["descending"][::-1] == spelt["desc"][::-1]
    assert unsaid == spelt["descending"]
    assert (1, 1) == (len(set(evals)), len(set(files)))


def test_15_an_item_schema_comes_back_as_a_schema(platform: Platform, http: httpx.Client) -> None:
    made = make_eval(platform, schema={"type": "object"})

    config = http.get(f"/evals/{made.id}").json()["data_source_config"]

    assert {"type", "schema"} == config.keys()
    assert {"item", "sample"} == config["schema"]["properties"].keys()


def test_16_token_usage_is_an_object_as_in_the_example_or_null(http: httpx.Client) -> None:
    judge = {"type": "score_model", "name": "j", "model": "tiny"}
    judge |= {"input": [{"role": "user", "content": '{"result": 0.5}'}]}
    used = []

    for grader in (judge, {**EQUAL, "reference": "a"}):
        asked = {"grader": grader, "item": {}, "model_sample": "a"}
        used.append(http.post("/fine_tuning/alpha/graders/run", json=asked).json()["metadata"]["token_usage"])

    assert {"prompt_tokens", "completion_tokens"} <= used[0].keys()
    assert used[1] is None


@pytest.mark.parametrize("operation", ["ne", "neq"])
def test_17_unequal_has_two_names(http: httpx.Client, operation: str) -> None:
    grader = {**EQUAL, "operation": operation, "reference": "b"}

    asked = {"grader": grader, "item": {}, "model_sample": "a"}

    assert 1.0 == http.post("/fine_tuning/alpha/graders/run", json=asked).json()["reward"]


@pytest.mark.parametrize("prompt", [{"prompt": {"id": "pmpt_1"}}, {"prompt_id": "pmpt_1"}])
def test_18_a_stored_prompt_is_refused_under_either_name(platform: Platform, prompt: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        platform.client.responses.create(model="tiny", input="a", extra_body=prompt)

    assert next(iter(prompt)) == refused.value.param
