"""Variables put values into manifests, and nothing but values: what they are counts, not where they come from."""

import json
from pathlib import Path

import pytest
from core_base import FILES, edit, write

from reconciler import known, loader, project
from reconciler.errors import ManifestError
from reconciler.resource import Address
from reconciler.variables import typed

PROJECT = """\
apiVersion: reconciler/v1
kind: Project
metadata: {name: demo}
spec:
  variables:
    EPOCHS: {default: 2, description: how long}
    BASE: {default: tiny-chat}
    TEAM: {}
"""
JOB = Address("FineTuneJob", "tuned")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = write(tmp_path / "manifests", {**FILES, "project.yaml": PROJECT})
    edit(root / "train.yaml", "n_epochs: 2", 'n_epochs: "${EPOCHS}"')
    edit(root / "train.yaml", "{id: tiny-chat}", "{id: '${BASE}'}")
    return root


def told(root: Path, **environment: str) -> list[str]:
    """What is wrong, without places."""
    _, problems = loader.read_tree(root, environment)
    return [each.what for each in problems]


def read(root: Path, kind: str = "FineTuneJob", **environment: str) -> dict[str, object]:
    tree, problems = loader.read_tree(root, environment)
    assert [] == problems
    return next(each.body for each in tree.documents if each.kind == kind)


def epochs(body: dict[str, object]) -> object:
    return body["spec"]["method"]["supervised"]["hyperparameters"]["n_epochs"]  # type: ignore[index]


def test_a_default_keeps_its_type(tree: Path) -> None:
    assert 2 == epochs(read(tree))


def test_what_the_command_says_goes_before_what_the_environment_says(tree: Path) -> None:
    assert 5 == epochs(read(tree, RECONCILER_VAR_EPOCHS="5"))
    assert 6 == epochs(read(tree, RECONCILER_VAR_EPOCHS="5", RECONCILER_SET_EPOCHS="6"))


def test_the_value_is_identity_and_where_it_comes_from_is_not(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = project.load(write(tmp_path / "plain")).desired
    monkeypatch.setenv("RECONCILER_VAR_EPOCHS", "2")
    same = project.load(tree).desired
    monkeypatch.setenv("RECONCILER_VAR_EPOCHS", "3")
    other = project.load(tree).desired

    assert plain[JOB].fingerprint == same[JOB].fingerprint != other[JOB].fingerprint


def test_what_was_resolved_is_not_remembered_for_another_value(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "YOUNG", -1.0)
    project.keep(tree / ".reconciler")
    first = project.load(tree).desired[JOB].fingerprint
    assert (tree / ".reconciler" / "resolved.cache").exists()

    monkeypatch.setenv("RECONCILER_SET_EPOCHS", "3")

    assert first != project.load(tree).desired[JOB].fingerprint


@pytest.mark.parametrize(
    "value",
    [
        "a\nkind: Project",
        "{x: 1}",
        "- 1",
        "tiny-chat, folder: /etc",
        "'quoted",
        "# none",
        "${TEAM}",
        "!!python/x",
    ],
)
def test_a_value_cannot_become_anything_but_text(tree: Path, value: str) -> None:
    assert {"id": value} == read(tree, "Model", RECONCILER_VAR_BASE=value)["spec"]


def test_inside_text_a_value_is_text(tree: Path) -> None:
    edit(tree / "train.yaml", "'${BASE}'", "'${BASE}-${EPOCHS}'")

    assert {"id": "tiny-chat-2"} == read(tree, "Model")["spec"]


def test_what_is_not_declared_is_left_alone_in_text_and_refused_as_a_whole(tree: Path) -> None:
    edit(tree / "train.yaml", "'${BASE}'", "'see ${nothing} here'")
    assert {"id": "see ${nothing} here"} == read(tree, "Model")["spec"]

    edit(tree / "train.yaml", "see ${nothing} here", "${BSAE}")
    expected = "the Project declares no variable BSAE; did you mean BASE?; write $${BSAE} for the text itself"
    assert [expected] == told(tree)


def test_two_dollars_are_the_text_itself(tree: Path) -> None:
    edit(tree / "train.yaml", "'${BASE}'", "'$${BASE}'")

    assert {"id": "${BASE}"} == read(tree, "Model")["spec"]


def test_a_tree_without_variables_is_as_it_was(tmp_path: Path) -> None:
    root = write(tmp_path / "manifests")
    edit(root / "train.yaml", "{id: tiny-chat}", "{id: '${BASE} $${BASE}'}")

    assert {"id": "${BASE} $${BASE}"} == read(root, "Model", RECONCILER_VAR_BASE="x")["spec"]


def test_a_variable_without_a_value_says_how_to_give_one(tree: Path) -> None:
    edit(tree / "train.yaml", "'${BASE}'", "'${TEAM}'")

    assert [
        "the variable TEAM has no value and no default; say --set TEAM=VALUE or set RECONCILER_VAR_TEAM"
    ] == told(tree)


def test_a_slip_on_the_command_line_is_told_and_one_in_the_environment_is_somebody_elses(tree: Path) -> None:
    assert ["--set EPOCH: the Project declares no variable EPOCH; did you mean EPOCHS?"] == told(
        tree, RECONCILER_SET_EPOCH="3"
    )
    assert [] == told(tree, RECONCILER_VAR_EPOCH="3")


def test_labels_take_values_and_names_do_not(tree: Path) -> None:
    edit(
        tree / "train.yaml",
        "metadata: {name: tuned}",
        "metadata: {name: tuned, labels: {epochs: '${EPOCHS}'}}",
    )

    assert {"name": "tuned", "labels": {"epochs": "2"}} == read(tree)["metadata"]


@pytest.mark.parametrize(
    "text, default, value",
    [
        ("3", 1, 3), ("3", None, 3), ("3", "x", "3"), ("3.5", 1, 3.5), ("true", None, True), ("true", False, True),
        ("true", "x", "true"), ('"3"', None, "3"), ("010", None, "010"), ("x # y", None, "x # y"), ("", None, ""),
    ],
)  # fmt: skip
def test_a_value_has_its_defaults_type(text: str, default: str | int | None, value: object) -> None:
    assert json.dumps(value) == json.dumps(typed(text, default))


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({"RECONCILER_VAR_EPOCHS": "many"}, "the variable EPOCHS is a number, not many"),
        ({"RECONCILER_VAR_EPOCHS": "true"}, "the variable EPOCHS is a number, not true"),
    ],
)
def test_a_value_of_another_type_is_told_with_its_place(
    tree: Path, environment: dict[str, str], expected: str
) -> None:
    [problem] = loader.read_tree(tree, environment)[1]

    assert (expected, str(tree / "train.yaml")) == (problem.what, problem.where.partition(":")[0])


def test_variables_of_the_project_itself_are_put_in(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PROJECT + "  platforms:\n    local: {type: openai, base_url: 'https://${TEAM}.example.com/v1'}\n"
    (tree / "project.yaml").write_text(text)
    monkeypatch.setenv("RECONCILER_VAR_TEAM", "tuning")

    assert "https://tuning.example.com/v1" == project.load(tree).spec.platforms["local"].base_url  # type: ignore[union-attr]


def test_a_bad_declaration_is_told(tree: Path) -> None:
    edit(tree / "project.yaml", "TEAM: {}", "no-name: {defualt: 1}")

    with pytest.raises(ManifestError) as told:
        project.load(tree)

    assert 2 == len(told.value.problems)
