"""Models and aliases: names, what they lead to, and what may not be taken away."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
from server_base import Server, register, until, upload


def tuned(server: Server, base: Path, **more: str) -> str:
    """The name of a model that a job made."""
    jobs = server.client().fine_tuning.jobs
    job = jobs.create(model=register(server, base), training_file=upload(server))
    return until(lambda: jobs.retrieve(job.id).fine_tuned_model)


def alias(server: Server, name: str, model: str, **metadata: str) -> dict[str, object]:
    with server.http() as http:
        asked = {"name": name, "model": model, "metadata": metadata}
        answer = http.post("/v1/reconciler/aliases", json=asked)
    assert 200 == answer.status_code, answer.text
    return dict(answer.json())


def test_a_registered_folder_is_a_model_like_any_other(shared_server: Server, base_model: Path) -> None:
    id = register(shared_server, base_model)

    again = register(shared_server, base_model)
    models = shared_server.client().models

    assert id == again
    assert (id, "model") == (models.retrieve(id).id, models.retrieve(id).object)
    assert 1 == [model.id for model in models.list()].count(id)


def test_a_name_of_two_parts_works_in_a_path(shared_server: Server, base_model: Path) -> None:
    with shared_server.http() as http:
        asked = {"id": "org/some:model", "source": {"folder": str(base_model)}}
        http.post("/v1/reconciler/models", json=asked)

        plain = http.get("/v1/models/org/some:model").json()["id"]
        escaped = http.get("/v1/models/org%2Fsome%3Amodel").json()["id"]

    assert ("org/some:model", "org/some:model") == (plain, escaped)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json", "."])
def test_a_folder_that_is_no_model_is_refused(shared_server: Server, base_model: Path, missing: str) -> None:
    folder = base_model / "nowhere" if missing == "." else base_model
    if missing != ".":
        (base_model / missing).unlink()

    with shared_server.http() as http:
        asked = {"id": "broken", "source": {"folder": str(folder)}}
        answer = http.post("/v1/reconciler/models", json=asked)

    assert (400, "invalid_model_folder") == (answer.status_code, answer.json()["error"]["code"])


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"folder": "relative"},
        {"hub": "org/name", "revision": "main"},
        {"hub": "..", "revision": "0" * 40},
    ],
)
def test_a_source_that_says_too_little_is_refused(shared_server: Server, source: dict[str, str]) -> None:
    with shared_server.http() as http:
        answer = http.post("/v1/reconciler/models", json={"id": "broken", "source": source})

    assert 400 == answer.status_code


def test_another_source_under_a_known_name_is_a_conflict(
    shared_server: Server, base_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    id = register(shared_server, base_model)

    with shared_server.http() as http:
        asked = {"id": id, "source": {"folder": str(tmp_path_factory.getbasetemp())}}
        refused = http.post("/v1/reconciler/models", json=asked)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (base_model.parent / name).touch()
        conflict = http.post(
            "/v1/reconciler/models", json={"id": id, "source": {"folder": str(base_model.parent)}}
        )

    assert (400, 409) == (refused.status_code, conflict.status_code)


def test_a_tuned_model_is_deleted_with_its_files_but_a_base_is_not(
    shared_server: Server, base_model: Path
) -> None:
    models, name = shared_server.client().models, tuned(shared_server, base_model)
    weights = list(shared_server.data.glob("jobs/*/model/model.safetensors"))

    gone = models.delete(name)

    assert (name, True) == (gone.id, gone.deleted)
    assert 1 == len(weights) - len(list(shared_server.data.glob("jobs/*/model/model.safetensors")))
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        models.retrieve(name)
    with pytest.raises(openai.PermissionDeniedError, match="base model"):
        models.delete(base_model.name)


def test_a_model_that_a_release_points_at_stays(shared_server: Server, base_model: Path) -> None:
    models, name = shared_server.client().models, tuned(shared_server, base_model)
    alias(shared_server, f"{base_model.name}/production", name)

    with pytest.raises(openai.ConflictError, match="production"):
        models.delete(name)


def test_a_model_answers_until_its_shutdown_date_and_so_do_its_tunes(
    shared_server: Server, base_model: Path
) -> None:
    client, name, id = shared_server.client(), tuned(shared_server, base_model), base_model.name

    def shut_down(on: str | None) -> int:
        with shared_server.http() as http:
            asked = {"id": id, "source": {"folder": str(base_model)}, "shutdown_date": on}
            return http.post("/v1/reconciler/models", json=asked).status_code

    assert 200 == shut_down("2999-12-31")
    assert {"2999-12-31"} == {client.models.retrieve(model).shutdown_date for model in (id, name)}
    register(shared_server, base_model)  # without a date it stays
    assert "2999-12-31" == client.models.retrieve(id).shutdown_date
    assert "hello" == chat(client, name)

    assert 200 == shut_down("2026-01-01")
    for model in (id, name):
        with pytest.raises(openai.NotFoundError, match="shut down on 2026-01-01"):
            chat(client, model)
    assert "2026-01-01" == client.models.retrieve(name).shutdown_date

    assert (200, 400) == (shut_down(None), shut_down("2026-13-01"))
    assert "hello" == chat(client, name)


def chat(client: openai.OpenAI, model: str) -> str | None:
    made = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    return made.choices[0].message.content


def test_an_alias_moves_in_one_step_and_remembers(shared_server: Server, base_model: Path) -> None:
    name, model = f"{base_model.name}/production", tuned(shared_server, base_model)

    made = alias(shared_server, name, base_model.name, commit="1")
    same = alias(shared_server, name, base_model.name, commit="1")
    moved = alias(shared_server, name, model, commit="2")
    with shared_server.http() as http:
        got = http.get(f"/v1/reconciler/aliases/{name}").json()
        listed = http.get("/v1/reconciler/aliases").json()["data"]

    assert made == same
    assert moved == got
    assert got in listed
    assert [(base_model.name, {"commit": "1"}), (model, {"commit": "2"})] == [
        (step["model"], step["metadata"]) for step in got["history"]
    ]


def test_an_alias_works_as_the_base_of_a_job_and_is_resolved_once(
    shared_server: Server, base_model: Path
) -> None:
    register(shared_server, base_model)
    name = f"{base_model.name}/current"
    alias(shared_server, name, base_model.name)

    job = shared_server.client().fine_tuning.jobs.create(model=name, training_file=upload(shared_server))

    assert base_model.name == job.model
    assert base_model.name == shared_server.client().models.retrieve(name).id


def test_a_deleted_alias_leads_nowhere(shared_server: Server, base_model: Path) -> None:
    name, model = f"{base_model.name}/old", register(shared_server, base_model)
    alias(shared_server, name, model)

    with shared_server.http() as http:
        gone = http.delete(f"/v1/reconciler/aliases/{name}")
        again = http.delete(f"/v1/reconciler/aliases/{name}")

    assert (200, 404) == (gone.status_code, again.status_code)
    with pytest.raises(openai.NotFoundError):
        shared_server.client().models.retrieve(name)


@pytest.mark.parametrize(
    ("name", "model", "status"),
    [("", None, 400), ("a b", None, 400), ("x" * 201, None, 400), ("ok", "nobody", 404), (None, None, 409)],
)
def test_an_alias_that_cannot_be_is_refused(
    shared_server: Server, base_model: Path, name: str | None, model: str | None, status: int
) -> None:
    base = register(shared_server, base_model)

    with shared_server.http() as http:
        asked = {"name": base if name is None else name, "model": model or base}
        answer = http.post("/v1/reconciler/aliases", json=asked)

    assert status == answer.status_code
