"""A broken manifest keeps what depends on it as it was, and nothing else."""

from pathlib import Path

import pytest
from core_base import edit, write

from reconciler import project
from reconciler.daemon import lastgood
from reconciler.errors import ManifestError
from reconciler.resource import Address, Desired

OTHER = """\
apiVersion: reconciler/v1
kind: FineTuneJob
metadata: {name: other}
spec:
  model: Model/base
  training_file: Dataset/train
  method: {type: supervised}
"""
RULE_RUNS = ("EvalRun/right@FineTuneJob/tuned", "EvalRun/right@Model/base")


def differing(before: Desired, after: Desired) -> list[str]:
    """What is not as it was: changed, new or gone."""
    both = before.keys() | after.keys()
    print_ = lambda desired, a: desired[a].fingerprint if a in desired else None  # noqa: E731
    return sorted(str(a) for a in both if print_(before, a) != print_(after, a))


@pytest.fixture
def last(tree: Path) -> project.Project:
    return project.load(tree)


def test_a_whole_tree_is_taken_as_it_is(tree: Path, last: project.Project) -> None:
    loaded = lastgood.load(tree, tree, last)

    assert ((), ()) == (loaded.problems, loaded.kept)


def test_without_a_last_tree_every_problem_is_told(tree: Path) -> None:
    edit(tree / "train.yaml", "n_epochs: 2", "n_epoch: 2")

    with pytest.raises(ManifestError, match="did you mean n_epochs"):
        lastgood.load(tree, tree, None)


@pytest.mark.parametrize(
    "before, after", [("n_epochs: 2", "n_epoch: 3"), ("kind: FineTuneJob", "kind: FineTuneJob: {")]
)
def test_what_others_say_is_taken_and_the_broken_file_stands_as_it_was(
    tree: Path, before: str, after: str
) -> None:
    (tree / "promote.yaml").unlink()
    last = project.load(tree)
    edit(tree / "train.yaml", before, after)
    edit(tree / "measure.yaml", 'content: "{{ question }}"', 'content: "Q: {{ question }}"')

    loaded = lastgood.load(tree, tree, last)

    kept = {Address("Model", "base"), Address("Dataset", "train"), Address("FineTuneJob", "tuned")}
    assert kept == set(loaded.kept)
    assert "Prompt/ask" in differing(last.desired, loaded.project.desired)
    assert "FineTuneJob/tuned" not in differing(last.desired, loaded.project.desired)
    assert any("train.yaml:" in problem.where for problem in loaded.problems)


def test_what_a_kept_rule_rests_on_is_kept_with_it(tree: Path, last: project.Project) -> None:
    edit(tree / "train.yaml", "n_epochs: 2", "n_epoch: 3")
    edit(tree / "measure.yaml", 'content: "{{ question }}"', 'content: "Q: {{ question }}"')

    loaded = lastgood.load(tree, tree, last)

    assert [] == differing(last.desired, loaded.project.desired)
    assert {Address("Prompt", "ask"), Address("PromotionRule", "production")} <= set(loaded.kept)


def test_what_needs_the_broken_one_and_is_changed_as_well_stands_as_it_was(
    tree: Path, last: project.Project
) -> None:
    edit(tree / "train.yaml", "n_epochs: 2", "n_epoch: 3")
    edit(tree / "promote.yaml", "at_least: 0.8", "at_least: 0.9")

    loaded = lastgood.load(tree, tree, last)

    assert [] == differing(last.desired, loaded.project.desired)
    assert Address("PromotionRule", "production") in loaded.kept


def test_a_new_resource_elsewhere_is_wanted_at_once(tree: Path, last: project.Project) -> None:
    edit(tree / "promote.yaml", "at_least: 0.8", "at_last: 0.9")
    write(tree, {"other.yaml": OTHER})

    loaded = lastgood.load(tree, tree, last)

    assert ["FineTuneJob/other"] == differing(last.desired, loaded.project.desired)


def test_a_new_resource_that_needs_a_broken_one_is_not_wanted_yet(tree: Path, last: project.Project) -> None:
    (tree / "train.yaml").write_text((tree / "train.yaml").read_text() + "---\napiVersion: no\n")
    write(tree, {"other.yaml": OTHER})

    loaded = lastgood.load(tree, tree, last)

    assert [] == differing(last.desired, loaded.project.desired)


def test_what_was_removed_from_a_sound_file_is_gone(tree: Path, last: project.Project) -> None:
    write(tree, {"other.yaml": OTHER})
    last = project.load(tree)
    (tree / "other.yaml").unlink()
    edit(tree / "promote.yaml", "at_least: 0.8", "at_last: 0.9")

    loaded = lastgood.load(tree, tree, last)

    assert ["FineTuneJob/other"] == differing(last.desired, loaded.project.desired)


def test_old_and_new_never_mix_inside_one_identity(tree: Path, last: project.Project) -> None:
    measure = (tree / "measure.yaml").read_text()
    head, _, prompt = measure.partition("---\napiVersion: reconciler/v1\nkind: Prompt")
    (tree / "measure.yaml").write_text("apiVersion: reconciler/v1\nkind: Prompt" + prompt)
    write(tree, {"heldout.yaml": head})
    last = project.load(tree)
    edit(tree / "measure.yaml", "dataset: Dataset/heldout", "data_set: Dataset/heldout")
    (tree / "heldout.jsonl").write_text(
        (tree / "heldout.jsonl").read_text() + '{"item": {"question": "say 99", "expected": "99"}}\n'
    )

    loaded = lastgood.load(tree, tree, last)

    assert [] == differing(last.desired, loaded.project.desired)


def test_of_two_that_bear_one_name_none_is_taken(tree: Path, last: project.Project) -> None:
    text = (tree / "train.yaml").read_text()
    twin = text[text.rindex("---") :].replace("n_epochs: 2", "n_epochs: 7")
    write(tree, {"a-copy.yaml": twin})

    loaded = lastgood.load(tree, tree, last)

    assert [] == differing(last.desired, loaded.project.desired)


def test_rows_that_are_broken_keep_their_dataset_as_it_was(tree: Path, last: project.Project) -> None:
    (tree / "train.jsonl").write_text("no json\n")

    loaded = lastgood.load(tree, tree, last)

    assert [] == differing(last.desired, loaded.project.desired)
    assert {Address("Dataset", "train"), Address("FineTuneJob", "tuned")} <= set(loaded.kept)


def test_a_broken_project_stands_as_it_was(tree: Path, last: project.Project) -> None:
    edit(tree / "project.yaml", "name: demo", "name: Demo!")

    loaded = lastgood.load(tree, tree, last)

    assert "demo" == loaded.project.name
    assert [] == differing(last.desired, loaded.project.desired)


def test_a_revision_in_another_folder_keeps_what_it_takes_from_the_one_before(
    tree: Path, last: project.Project, tmp_path: Path
) -> None:
    import shutil

    newer = tmp_path / "newer"
    shutil.copytree(tree, newer)
    edit(newer / "train.yaml", "n_epochs: 2", "n_epoch: 3")

    loaded = lastgood.load(newer, tmp_path, last)

    assert [] == differing(last.desired, loaded.project.desired)
    [job] = [w for a, w in loaded.project.desired.items() if a == Address("FineTuneJob", "tuned")]
    assert str(tree) in job.file
    assert any(str(newer) in wanted.file for wanted in loaded.project.desired.values())
