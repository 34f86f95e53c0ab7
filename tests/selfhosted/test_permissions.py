"""Permissions for checkpoints, through the official SDK and with two projects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from server_base import Server, register, until, upload

from reconciler.selfhosted import auth
from reconciler.selfhosted.storage.store import Store


def tuned(server: Server, base: Path) -> str:
    jobs = server.client().fine_tuning.jobs
    job = jobs.create(model=register(server, base), training_file=upload(server))
    return until(lambda: jobs.retrieve(job.id).fine_tuned_model)


def chat(client: openai.OpenAI, model: str) -> str | None:
    made = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    return made.choices[0].message.content


def test_a_permission_is_listed_once_and_in_both_orders(shared_server: Server, base_model: Path) -> None:
    model = tuned(shared_server, base_model)
    permissions = shared_server.client().fine_tuning.checkpoints.permissions

    made = list(permissions.create(model, project_ids=["proj_a", "proj_b", "proj_a"]))
    again = list(permissions.create(model, project_ids=["proj_b"]))

    assert ["proj_a", "proj_b"] == [each.project_id for each in made]
    assert ["checkpoint.permission"] * 2 == [each.object for each in made]
    assert made[1:] == again
    assert ["proj_b", "proj_a"] == [each.project_id for each in permissions.list(model, limit=1)]
    assert ["proj_a", "proj_b"] == [each.project_id for each in permissions.list(model, order="ascending")]
    assert ["proj_b"] == [each.project_id for each in permissions.list(model, project_id="proj_b")]
    with pytest.raises(openai.BadRequestError, match="project_ids"):
        permissions.create(model, project_ids=[])
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        permissions.list("ft:nobody")


def test_only_a_granted_project_uses_the_model_and_only_its_owner_deletes_it(
    server: Server, base_model: Path
) -> None:
    model = tuned(server, base_model)
    store = Store(f"sqlite:///{server.data / 'platform.db'}")
    keys = {project: auth.add_key(store, project, project) for project in ("default", "other")}
    store.close()
    owner, other = server.client(keys["default"]), server.client(keys["other"])
    permissions = owner.fine_tuning.checkpoints.permissions

    def refused() -> Any:  # until the server has looked at the keys again
        try:
            chat(other, model)
        except openai.NotFoundError as error:
            return error
        return None

    until(refused)
    [permission] = permissions.create(model, project_ids=["other"])

    assert "hello" == chat(other, model)
    assert model in [each.id for each in other.models.list()]
    assert model == other.models.retrieve(model).id
    with pytest.raises(openai.NotFoundError):
        other.models.delete(model)
    with pytest.raises(openai.NotFoundError):
        other.fine_tuning.checkpoints.permissions.create(model, project_ids=["third"])

    gone = permissions.delete(permission.id, fine_tuned_model_checkpoint=model)

    assert (permission.id, True) == (gone.id, gone.deleted)
    assert refused()
    assert model not in [each.id for each in other.models.list()]
    with pytest.raises(openai.NotFoundError, match=permission.id):
        permissions.delete(permission.id, fine_tuned_model_checkpoint=model)
