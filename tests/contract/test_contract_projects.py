"""What one project's key made, another project's key neither sees, nor uses, nor changes: in no collection."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from contract_server import Platform
from contract_tour import CHAT, ROWS
from eval_base import EQUAL, completions, words

from reconciler.selfhosted import app, auth, openapi


class Projects(NamedTuple):
    """Two callers of one server, and where the first one's objects are."""

    platform: Platform
    keys: tuple[str, str]
    red: httpx.Client
    blue: httpx.Client
    made: dict[str, str]  # by collection: the id of what red has in it


JOBS, EVALS, CHECKPOINTS = "/v1/fine_tuning/jobs", "/v1/evals", "/v1/fine_tuning/checkpoints"
RUNS = EVALS + "/{eval}/runs"
BODIES: dict[str, dict[str, Any]] = {  # good ones, so that nothing but the object can be refused
    "/v1/uploads/{id}/complete": {"part_ids": ["part_x"]},
    CHECKPOINTS + "/{model:path}/permissions": {"project_ids": ["x"]},
    RUNS: {"data_source": completions(words(1))},
    "/v1/chat/completions/{id}": {"metadata": {"a": "b"}},
    "/v1/webhook_endpoints/{id}/test": {"event_type": "batch.completed"},
}


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Projects]:
    platform = Platform(tmp_path_factory.mktemp("projects"))
    keys = (auth.add_key(platform.store, "red", "red"), auth.add_key(platform.store, "blue", "blue"))
    with platform.running(), client(platform, keys[0]) as red, client(platform, keys[1]) as blue:
        yield Projects(platform, keys, red, blue, make_one_of_each(red))


def client(platform: Platform, key: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=platform.url, headers=headers, trust_env=False, verify=False, timeout=30)


def make_one_of_each(http: httpx.Client) -> dict[str, str]:
    def make(path: str, **body: Any) -> str:
        answer = http.post(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["id"])

    def when(status: str, path: str) -> dict[str, Any]:
        while (seen := http.get(path).json())["status"] != status:
            assert seen["status"] not in ("failed", "cancelled"), seen
        return dict(seen)

    file = upload(http)
    made = {"/v1/files": file}
    made["/v1/uploads"] = make(
        "/v1/uploads", filename="a.jsonl", purpose="fine-tune", bytes=1, mime_type="text/plain"
    )
    made[JOBS] = make(JOBS, model="tiny", training_file=file)
    made["/v1/models"] = made[CHECKPOINTS] = when("succeeded", f"{JOBS}/{made[JOBS]}")["fine_tuned_model"]
    granted = http.post(f"{CHECKPOINTS}/{made['/v1/models']}/permissions", json={"project_ids": ["third"]})
    made[CHECKPOINTS + "/{model:path}/permissions"] = granted.json()["data"][0]["id"]
    made["/v1/reconciler/aliases"] = make("/v1/reconciler/aliases", name="mine", model=made["/v1/models"])
    config = {"type": "custom", "item_schema": {"type": "object"}}
    made[EVALS] = make(EVALS, data_source_config=config, testing_criteria=[EQUAL])
    runs = f"{EVALS}/{made[EVALS]}/runs"
    made[RUNS] = make(runs, data_source=completions(words(1)))
    when("completed", f"{runs}/{made[RUNS]}")
    items = http.get(f"{runs}/{made[RUNS]}/output_items").json()
    made[RUNS + "/{run}/output_items"] = items["data"][0]["id"]
    made["/v1/chat/completions"] = make("/v1/chat/completions", model="tiny", messages=CHAT, store=True)
    made["/v1/responses"] = make("/v1/responses", model="tiny", input="a")
    row = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {"model": "tiny", "input": "a"},
    }
    rows = upload(http, json.dumps(row).encode(), "batch")
    made["/v1/batches"] = make(
        "/v1/batches", input_file_id=rows, endpoint="/v1/embeddings", completion_window="24h"
    )
    when("completed", f"/v1/batches/{made['/v1/batches']}")
    hook = {"name": "a", "url": "http://127.0.0.1:9/", "event_types": ["fine_tuning.job.failed"]}
    made["/v1/webhook_endpoints"] = make("/v1/webhook_endpoints", **hook)
    return made


def upload(http: httpx.Client, content: bytes = ROWS, purpose: str = "fine-tune") -> str:
    sent = http.post("/v1/files", data={"purpose": purpose}, files={"file": ("a.jsonl", content)})
    return str(sent.json()["id"])


def filled(route: str, made: dict[str, str]) -> str:
    """The route's template with the ids of what red has."""
    return re.sub(r"\{\w+(:\w+)?\}", lambda found: made[route[: found.start() - 1]], route)


ABOUT_ONE = [
    (method, route.path)
    for route in app.all_routes()
    for method in sorted(route.methods - {"HEAD"})
    if "{" in route.path
]
LISTS = [
    route.path for route in app.all_routes() if route.endpoint in openapi.PAGED and "{" not in route.path
]


@pytest.mark.parametrize(("method", "route"), ABOUT_ONE)
def test_an_object_of_another_project_is_not_there(projects: Projects, method: str, route: str) -> None:
    path = filled(route, projects.made)
    form = {"files": {"data": ("a", b"x")}} if route.endswith("/parts") else {"json": BODIES.get(route, {})}

    answer = projects.blue.request(method, path, **({} if method in ("GET", "DELETE") else form))

    assert 404 == answer.status_code, answer.text
    if method == "GET":
        assert 200 == projects.red.get(path).status_code


@pytest.mark.parametrize("path", LISTS)
def test_a_list_shows_nothing_of_another_project(projects: Projects, path: str) -> None:
    assert [] == projects.blue.get(path).json()["data"]
    assert [] != projects.red.get(path).json()["data"]


def test_the_models_of_another_project_are_not_listed(projects: Projects) -> None:
    seen = [
        {one["id"] for one in who.get("/v1/models").json()["data"]} for who in (projects.red, projects.blue)
    ]

    assert {"tiny"} == seen[1] < seen[0]
    assert projects.made["/v1/models"] in seen[0]


USES: dict[str, Callable[[dict[str, str], str], tuple[str, dict[str, Any]]]] = {
    "a job of a file": lambda made, own: (JOBS, {"model": "tiny", "training_file": made["/v1/files"]}),
    "a job of a model": lambda made, own: (JOBS, {"model": made["/v1/models"], "training_file": own}),
    "a batch of a file": lambda made, own: (
        "/v1/batches",
        {"input_file_id": made["/v1/files"], "endpoint": "/v1/embeddings", "completion_window": "24h"},
    ),
    "a chat with a model": lambda made, own: (
        "/v1/chat/completions",
        {"model": made["/v1/models"], "messages": CHAT},
    ),
    "a chat with an alias": lambda made, own: ("/v1/chat/completions", {"model": "mine", "messages": CHAT}),
    "an embedding by a model": lambda made, own: (
        "/v1/embeddings",
        {"model": made["/v1/models"], "input": "a"},
    ),
    "a response after a response": lambda made, own: (
        "/v1/responses",
        {"model": "tiny", "input": "a", "previous_response_id": made["/v1/responses"]},
    ),
    "an alias of a model": lambda made, own: (
        "/v1/reconciler/aliases",
        {"name": "other", "model": made["/v1/models"]},
    ),
}


@pytest.mark.parametrize("use", USES)
def test_nothing_of_another_project_can_be_used(projects: Projects, use: str) -> None:
    path, body = USES[use](projects.made, upload(projects.blue))

    refused, taken = (who.post(path, json=body) for who in (projects.blue, projects.red))

    assert refused.status_code in (400, 404) and "error" in refused.json()
    if "training_file" not in body and "batch" not in use:  # those are red's files and fit their purpose
        assert 200 == taken.status_code, taken.text


def test_a_run_reads_neither_files_nor_logs_of_another_project(projects: Projects) -> None:
    blue, model = projects.blue, "tiny"
    config = {"type": "stored_completions"}
    criteria = [{**EQUAL, "reference": "x"}]
    own = blue.post(EVALS, json={"data_source_config": config, "testing_criteria": criteria}).json()["id"]
    logged = {"type": "completions", "model": model, "source": {"type": "stored_completions"}}
    of_file = {"type": "jsonl", "source": {"type": "file_id", "id": projects.made["/v1/files"]}}

    answers = [blue.post(f"{EVALS}/{own}/runs", json={"data_source": each}) for each in (logged, of_file)]

    assert 404 == answers[1].status_code
    assert 400 == answers[0].status_code or 0 == answers[0].json()["result_counts"]["total"]


def test_the_same_idempotency_key_of_two_projects_is_two_keys(projects: Projects) -> None:
    body = {"data_source_config": {"type": "custom", "item_schema": {}}, "testing_criteria": [EQUAL]}

    ids = {
        who.post(EVALS, json=body, headers={"idempotency-key": "same"}).json()["id"]
        for who in (projects.red, projects.red, projects.blue)
    }
    for one in ids:
        for who in (projects.red, projects.blue):
            who.delete(f"{EVALS}/{one}")

    assert 2 == len(ids)


def test_no_key_is_kept_where_it_can_be_read(projects: Projects) -> None:
    kept = [each.read_bytes() for each in projects.platform.here.data.rglob("*") if each.is_file()]
    digests = {key.digest for key in auth.list_keys(projects.platform.store)}

    assert [] == [key for key in projects.keys for content in kept if key.encode() in content]
    assert any(digest.encode() in content for digest in digests for content in kept)
