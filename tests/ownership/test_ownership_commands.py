"""What belongs to a project, on a real platform: drift, prune, destroy, adopt, and parts of a tree."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from core_base import FILES, Say, edit, write
from faulty_server import FaultyServer, fails_after, loses_reply

from reconciler.kind import Stamp

PROJECT = """\
apiVersion: reconciler/v1
kind: Project
metadata: {{name: {name}}}
spec:
  platforms:
    local: {{type: openai, base_url: "{url}", api_key_env: DEMO_KEY}}
"""
SPARE = """\
apiVersion: reconciler/v1
kind: Dataset
metadata: {name: spare}
spec: {file: spare.jsonl, format: chat}
---
apiVersion: reconciler/v1
kind: FineTuneJob
metadata: {name: spare}
spec:
  model: Model/base
  training_file: Dataset/spare
  method: {type: supervised, supervised: {hyperparameters: {n_epochs: 1}}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    with FaultyServer(tmp_path_factory.mktemp("platform")).running() as running:
        yield running


class Told:
    """A project of its own on the shared server, and what stands of it."""

    def __init__(self, root: Path, server: FaultyServer, name: str) -> None:
        files = {file: text.replace("demo/", f"{name}/") for file, text in FILES.items()}
        self.root = write(root / name, files | {"project.yaml": PROJECT.format(name=name, url=server.url)})
        self.name, self.client = name, httpx.Client(base_url=server.url, timeout=60)

    def get(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get(path, params={"limit": 100}).json()["data"]
        return found

    def stamped(self, path: str) -> list[str]:
        """The ids of what carries this project's stamp."""
        found = []
        for each in self.get(path):
            stamp = Stamp.read(each.get("metadata"))
            own = f"@{self.name}." in each.get("filename", "") or (stamp and stamp.project == self.name)
            found += [each.get("id") or each["name"]] if own else []
        return found

    def standing(self) -> dict[str, list[str]]:
        return {path: self.stamped(path) for path in ("files", "evals", "reconciler/aliases")}

    def models(self) -> list[str]:
        known = {each["id"] for each in self.client.get("models").json()["data"]}
        jobs = [
            j
            for j in self.get("fine_tuning/jobs")
            if (j["metadata"] or {}).get("reconciler_project") == self.name
        ]
        return [job["fine_tuned_model"] for job in jobs if job["fine_tuned_model"] in known]

    def spare(self) -> None:
        """A dataset and a job that nothing else uses."""
        (self.root / "spare.jsonl").write_text(FILES["train.jsonl"].replace("say", "tell"))
        (self.root / "spare.yaml").write_text(SPARE)


@pytest.fixture
def project(tmp_path: Path, server: FaultyServer, request: pytest.FixtureRequest) -> Told:
    server.faults.clear()
    server.always.clear()
    return Told(tmp_path, server, f"p{abs(hash(request.node.nodeid)) % 10**8}")


def test_prune_says_what_would_go_and_deletes_it_when_told_to(
    project: Told, say: Say, server: FaultyServer
) -> None:
    project.spare()
    assert 0 == say("apply", project.root)[0]
    (project.root / "spare.yaml").unlink()
    files, models = len(project.stamped("files")), len(project.models())

    dry, printed, _ = say("prune", project.root)
    assert (2, files, models) == (dry, len(project.stamped("files")), len(project.models()))
    assert "no manifest wants FineTuneJob/spare" in printed
    assert f"2 to delete · 0 kept; `reconciler prune {project.root} --yes` does it" in printed

    done, printed, _ = say("prune", project.root, "--yes", "--by", "ada", "--output", "json")
    told = json.loads(printed)
    assert (0, ["FineTuneJob/spare", "Dataset/spare"]) == (
        done,
        [each["address"] for each in told["deleted"]],
    )
    assert (files - 1, models - 1) == (len(project.stamped("files")), len(project.models()))
    assert (0, f"{project.name} on local: nothing to delete\n") == say("prune", project.root)[:2]


def test_a_pruned_job_is_trained_again_when_its_manifest_is_back(project: Told, say: Say) -> None:
    project.spare()
    say("apply", project.root)
    (project.root / "spare.yaml").unlink()
    say("prune", project.root, "--yes")
    project.spare()

    code, printed, _ = say("plan", project.root)
    assert (2, True) == (code, "+ FineTuneJob/spare" in printed)
    assert 0 == say("apply", project.root)[0]
    assert 2 == len(project.models())
    assert 0 == say("plan", project.root)[0]


def test_a_lost_reply_to_a_delete_is_looked_at_again(project: Told, say: Say, server: FaultyServer) -> None:
    project.spare()
    say("apply", project.root)
    (project.root / "spare.yaml").unlink()
    model = project.models()[0]  # newest first: the spare job's
    server.faults[f"DELETE models/{model}"] = [loses_reply]

    first, printed, _ = say("prune", project.root, "--yes")
    assert (1, True) == (first, "the next pass looks again" in printed)
    assert (0, True) == ((again := say("prune", project.root, "--yes"))[0], "1 deleted" in again[1])
    project.spare()
    assert "+ FineTuneJob/spare" in say("plan", project.root)[1]


def test_a_project_that_prunes_does_so_with_every_apply(project: Told, say: Say) -> None:
    project.spare()
    edit(project.root / "project.yaml", "spec:\n", "spec:\n  prune: true\n  prune_after: 0s\n")
    assert 0 == say("apply", project.root)[0]
    (project.root / "spare.yaml").unlink()

    planned, printed, _ = say("plan", project.root)
    assert (2, True) == (planned, "2 to delete" in printed)
    assert "- FineTuneJob/spare" in printed
    part = say("apply", project.root, "--target", "Eval/*")
    assert (0, 2) == (part[0], len(project.models()))
    applied, printed, _ = say("apply", project.root)
    assert (0, 1, True) == (applied, len(project.models()), "no manifest wants Dataset/spare" in printed)
    assert 0 == say("plan", project.root)[0]


def test_evals_go_with_their_runs(project: Told, say: Say) -> None:
    say("apply", project.root, "--target", "EvalRun/right@Model/base")
    for file in ("promote.yaml", "measure.yaml"):
        (project.root / file).unlink()
    [measure] = project.stamped("evals")

    code, printed, _ = say("prune", project.root, "--yes")

    assert (0, True) == (code, "3 deleted" in printed)
    assert 404 == project.client.get(f"evals/{measure}").status_code
    assert [] == project.stamped("files")


def test_destroy_takes_down_one_project_and_leaves_the_others(
    project: Told, tmp_path: Path, server: FaultyServer, say: Say
) -> None:
    other = Told(tmp_path, server, f"{project.name}-other")
    for each in (project, other):
        assert 0 == say("apply", each.root)[0]
    before = other.standing(), other.models()

    assert (6, True) == (
        (told := say("destroy", project.root))[0],
        "say --releases to take it off" in told[2],
    )
    assert 2 == say("destroy", project.root, "--releases")[0]
    assert "the project is called" in say("destroy", project.root, "--yes", "production", "--releases")[2]
    code, printed, _ = say("destroy", project.root, "--yes", project.name, "--releases")

    assert (0, True) == (code, "7 deleted · 0 kept" in printed)
    assert ({"files": [], "evals": [], "reconciler/aliases": []}, []) == (
        project.standing(),
        project.models(),
    )
    assert before == (other.standing(), other.models())
    assert (project.root / "train.yaml").exists()
    assert not list((project.root / "releases").rglob("*.yaml"))
    assert 0 == say("apply", project.root)[0]


def test_what_is_protected_stands_in_the_way_and_outlives_its_manifest(project: Told, say: Say) -> None:
    project.spare()
    edit(project.root / "spare.yaml", "format: chat", "format: chat, protect: true")
    say("apply", project.root)
    (project.root / "spare.yaml").unlink()
    file = next(
        each
        for each in project.get("files")
        if f"@{project.name}." in each["filename"] and "spare" in each["filename"]
    )
    assert file["filename"].endswith(".protected.jsonl")

    _, printed, _ = say("prune", project.root)
    assert "Dataset/spare was protected; write its manifest again" in printed
    (project.root / ".reconciler" / "journal.db").unlink()
    _, printed, _ = say("prune", project.root)
    assert "its stamp protects it; write the manifest of Dataset/spare again" in printed
    code, _, error = say("destroy", project.root, "--yes", project.name, "--releases")
    assert (6, True) == (code, f"{file['id']}: its stamp protects it" in error)
    assert file["id"] in project.stamped("files")


def test_an_evals_protection_is_written_on_it_and_taken_off_again(project: Told, say: Say) -> None:
    say("apply", project.root, "--target", "Eval/right")
    [id] = project.stamped("evals")
    edit(project.root / "measure.yaml", "graders: [Grader/exact]", "graders: [Grader/exact]\n  protect: true")

    assert 0 == say("apply", project.root, "--target", "Eval/right")[0]
    on = project.client.get(f"evals/{id}").json()["metadata"]
    edit(project.root / "measure.yaml", "protect: true", "protect: false")
    say("apply", project.root, "--target", "Eval/right")
    off = project.client.get(f"evals/{id}").json()["metadata"]

    assert ("true", None) == (on.get("reconciler_protect"), off.get("reconciler_protect"))
    assert [id] == project.stamped("evals")


def test_drift_tells_what_vanished_and_what_nobody_wants(project: Told, say: Say) -> None:
    project.spare()
    say("apply", project.root)
    assert (0, f"{project.name} on local: nothing differs\n") == say("drift", project.root)[:2]
    (project.root / "spare.yaml").unlink()
    heldout = next(
        each["id"] for each in project.get("files") if each["filename"].startswith(f"heldout@{project.name}.")
    )
    project.client.delete(f"files/{heldout}")
    edit(project.root / "train.yaml", "n_epochs: 2", "n_epochs: 3")

    code, printed, _ = say("drift", project.root, "--output", "json")

    found = {each["address"]: each["drift"] for each in json.loads(printed)["drift"]}
    assert 3 == code
    expected = {
        "Dataset/heldout": "vanished", "FineTuneJob/tuned": "config pending", "Dataset/spare": "unmanaged",
        "FineTuneJob/spare": "unmanaged",
    }  # fmt: skip
    assert expected.items() <= found.items()


def test_a_job_made_elsewhere_is_adopted_by_an_annotation(project: Told, say: Say) -> None:
    edit(project.root / "train.yaml", "n_epochs: 2", "n_epochs: 3")  # as this server's trainer always says
    files = {"file": ("train.jsonl", FILES["train.jsonl"])}
    file = project.client.post("files", files=files, data={"purpose": "fine-tune"}).json()["id"]
    job = {"model": "tiny-chat", "training_file": file, "seed": 42}
    job |= {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}}}
    id = project.client.post("fine_tuning/jobs", json=job).json()["id"]
    while project.client.get(f"fine_tuning/jobs/{id}").json()["status"] not in ("succeeded", "failed"):
        pass

    code, printed, _ = say("adopt", "FineTuneJob/tuned", id, project.root)
    assert 0 == code
    told = yaml.safe_load(printed[printed.index("metadata:") :])
    annotations = json.dumps(told["metadata"]["annotations"])
    edit(project.root / "train.yaml", "{name: tuned}", f"{{name: tuned, annotations: {annotations}}}")

    assert 0 == say("apply", project.root)[0]
    assert [] == [
        j
        for j in project.get("fine_tuning/jobs")
        if (j["metadata"] or {}).get("reconciler_project") == project.name
    ]
    edit(project.root / "train.yaml", "n_epochs: 3", "n_epochs: 4")
    code, printed, _ = say("plan", project.root, "--target", "FineTuneJob/tuned")
    assert (2, True) == (code, "+ FineTuneJob/tuned" in printed)


def test_what_does_not_fit_is_told_difference_by_difference(project: Told, say: Say) -> None:
    files = {"file": ("train.jsonl", FILES["train.jsonl"].replace("say 3", "say three"))}
    file = project.client.post("files", files=files, data={"purpose": "fine-tune"}).json()["id"]
    job = {"model": "tiny-chat", "training_file": file, "seed": 7}
    job |= {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}}
    id = project.client.post("fine_tuning/jobs", json=job).json()["id"]
    while project.client.get(f"fine_tuning/jobs/{id}").json()["status"] not in ("succeeded", "failed"):
        pass

    code, _, error = say("adopt", "FineTuneJob/tuned", id, project.root)

    assert 1 == code
    assert f"training_file: file {file} holds other bytes than" in error
    assert "seed: the manifest wants 42, the platform has 7" in error


def test_an_eval_made_elsewhere_is_adopted_by_its_metadata(project: Told, say: Say) -> None:
    schema = {
        "type": "object",
        "properties": {"question": {"type": "string"}, "expected": {"type": "string"}},
    }
    criterion = {"type": "string_check", "operation": "eq", "name": "exact"}
    criterion |= {"input": "{{ sample.output_text }}", "reference": "{{ item.expected }}"}
    config = {"type": "custom", "item_schema": schema, "include_sample_schema": True}
    body = {
        "name": "by hand",
        "data_source_config": config,
        "testing_criteria": [criterion],
        "metadata": {"a": "b"},
    }
    id = project.client.post("evals", json=body).json()["id"]
    other = project.client.post(
        "evals", json=body | {"testing_criteria": [criterion | {"operation": "ne"}]}
    ).json()

    assert 0 == (told := say("adopt", "Eval/right", id, project.root))[0], told
    assert ([id], "b") == (
        project.stamped("evals"),
        project.client.get(f"evals/{id}").json()["metadata"]["a"],
    )
    say("apply", project.root, "--target", "Eval/right")
    assert [id] == project.stamped("evals")
    code, _, error = say("adopt", "Eval/right", other["id"], project.root)
    assert (1, True) == (
        code,
        'testing_criteria[0].operation: the manifest wants "eq", the platform has "ne"' in error,
    )
    assert (6, True) == (
        (again := say("adopt", "Eval/right", id, project.root))[0],
        "was made for Eval/right" in again[2],
    )


def test_a_file_is_adopted_by_its_bytes(project: Told, say: Say) -> None:
    def upload(text: str) -> str:
        files = {"file": ("any.jsonl", text)}
        return str(project.client.post("files", files=files, data={"purpose": "fine-tune"}).json()["id"])

    same, other = upload(FILES["train.jsonl"]), upload(FILES["train.jsonl"].replace("say 3", "say x"))

    assert 1 == say("adopt", "Dataset/train", other, project.root)[0]
    code, printed, _ = say("adopt", "Dataset/train", same, project.root)
    assert (0, True) == (code, f'reconciler/id: "{same}"' in printed)
    annotations = json.dumps(yaml.safe_load(printed[printed.index("metadata:") :])["metadata"]["annotations"])
    edit(project.root / "train.yaml", "{name: train}", f"{{name: train, annotations: {annotations}}}")
    assert 0 == say("apply", project.root, "--target", "Dataset/train")[0]
    assert [] == project.stamped("files")


def test_an_annotation_that_names_nothing_is_a_sentence_and_no_create(project: Told, say: Say) -> None:
    edit(
        project.root / "train.yaml",
        "{name: train}",
        '{name: train, annotations: {"reconciler/id": "file-none"}}',
    )

    code, printed, _ = say("apply", project.root, "--target", "Dataset/train")

    assert (1, []) == (code, project.stamped("files"))
    assert "the platform has no file file-none, which reconciler/id names" in printed


def test_an_alias_made_elsewhere_is_adopted_and_then_judged_as_any_other(project: Told, say: Say) -> None:
    channel = f"{project.name}/production"
    project.client.post("reconciler/aliases", json={"name": channel, "model": "tiny-chat"})

    code, printed, _ = say("adopt", "PromotionRule/production", channel, project.root)

    assert (0, [channel]) == (code, project.stamped("reconciler/aliases")), printed
    assert 0 == say("apply", project.root)[0]
    assert 0 == say("rollback", channel, project.root, "--to", "tiny-chat")[0]


def test_a_part_is_applied_and_the_rest_waits(project: Told, say: Say) -> None:
    code, printed, _ = say("apply", project.root, "--target", "Dataset/*", "--exclude", "Dataset/heldout")

    assert (0, 1) == (code, len(project.stamped("files")))
    assert "left out by --exclude Dataset/heldout" in printed
    code, _, error = say("plan", project.root, "--target", "Dataset/trian")
    assert (1, True) == (code, "did you mean Dataset/train?" in error)


def test_a_delete_that_fails_says_so_and_the_next_one_goes_on(
    project: Told, say: Say, server: FaultyServer
) -> None:
    say("apply", project.root, "--target", "Dataset/*")
    (project.root / "measure.yaml").unlink()
    (project.root / "promote.yaml").unlink()
    [file] = [f["id"] for f in project.get("files") if f["filename"].startswith(f"heldout@{project.name}.")]
    server.faults[f"DELETE files/{file}"] = [fails_after]

    assert 1 == say("prune", project.root, "--yes")[0]
    assert (0, True) == ((again := say("prune", project.root))[0], "nothing to delete" in again[1])


def test_two_projects_that_want_the_same_get_their_own(
    tmp_path: Path, server: FaultyServer, say: Say
) -> None:
    first, second = Told(tmp_path, server, "one-of-two"), Told(tmp_path, server, "two-of-two")

    for each in (first, second):
        assert 0 == say("apply", each.root, "--target", "Dataset/*")[0]

    assert (2, 2) == (len(first.stamped("files")), len(second.stamped("files")))


def test_a_suspended_project_deletes_nothing_by_itself(project: Told, say: Say) -> None:
    project.spare()
    say("apply", project.root, "--target", "Dataset/*")
    (project.root / "spare.yaml").unlink()
    edit(
        project.root / "project.yaml", "spec:\n", "spec:\n  prune: true\n  prune_after: 0s\n  suspend: true\n"
    )
    files = project.stamped("files")

    assert 0 == say("apply", project.root)[0]
    assert files == project.stamped("files")
    assert 2 == say("prune", project.root)[0]


def test_a_value_is_given_on_the_command_line_for_one_command(project: Told, say: Say) -> None:
    variables = "spec:\n  variables: {EPOCHS: {default: 3}}\n"
    edit(project.root / "project.yaml", "spec:\n", variables)
    edit(project.root / "train.yaml", "n_epochs: 2", "n_epochs: '${EPOCHS}'")
    say("apply", project.root, "--target", "FineTuneJob/tuned")

    assert 0 == say("plan", project.root, "--target", "FineTuneJob/tuned", "--set", "EPOCHS=3")[0]
    code, printed, _ = say("plan", project.root, "--target", "FineTuneJob/tuned", "--set", "EPOCHS=4")
    assert (2, True) == (code, "n_epochs: 3 → 4" in printed)
    assert 0 == say("plan", project.root, "--target", "FineTuneJob/tuned")[0]
    code, _, error = say("plan", project.root, "--set", "EPOCH=4")
    assert (1, True) == (
        code,
        "--set EPOCH: the Project declares no variable EPOCH; did you mean EPOCHS?" in error,
    )
    code, _, error = say("plan", project.root, "--set", "EPOCHS")
    assert (1, True) == (code, "EPOCHS is no NAME=VALUE" in error)
