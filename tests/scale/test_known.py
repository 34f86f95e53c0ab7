"""A tree that is looked at again is the same tree as one that is looked at for the first time, and costs less."""

import itertools
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from core_base import FILES, write

from reconciler import project
from reconciler.daemon import lastgood
from reconciler.errors import ManifestError
from reconciler.known import Known
from reconciler.resource import Address, Wanted

LATER = 2_000_000_000_000_000_000  # unix nanoseconds, long after every file here was written
TUNED = Address("FineTuneJob", "tuned")
ANOTHER = """\
apiVersion: reconciler/v1
kind: FineTuneJob
metadata: {name: another}
spec: {model: FineTuneJob/tuned, training_file: Dataset/train, method: {type: supervised}}
"""


def written(root: Path, name: str, text: str) -> None:
    """A file as it is after a while: with a date of its own, and not of this moment."""
    path = root / name
    write(root, {name: text})
    os.utime(path, ns=(0, next(DATES)))


DATES = itertools.count(1_000_000_000_000_000_000, 1_000_000_000)


@pytest.fixture
def known() -> Known:
    return Known(lambda: LATER)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name, text in FILES.items():
        written(root, name, text)
    return root


def found(root: Path, known: Known | None) -> dict[Address, Wanted] | list[str]:
    """What is wanted, or all that is wrong."""
    try:
        return project.load(root, known=known).desired
    except ManifestError as error:
        return list(map(str, error.problems))


def counted(known: Known, act: Callable[[], object]) -> tuple[int, int]:
    """How many files were parsed and resources resolved."""
    before = known.parsed, known.resolved
    act()
    return known.parsed - before[0], known.resolved - before[1]


def change(name: str, before: str = "", after: str = "") -> Callable[[Path], None]:
    """A file as it was at first, but for this."""
    return lambda root: written(root, name, FILES[name].replace(before, after) if before else FILES[name])


EDITS: dict[str, Callable[[Path], None]] = {
    **{f"{name} as it was": change(name) for name in FILES},
    "epochs": change("train.yaml", "n_epochs: 2", "n_epochs: 5"),
    "a slip": change("train.yaml", "n_epochs: 2", "n_epoch: 5"),
    "a variable": change("train.yaml", "n_epochs: 2", "n_epochs: ${EPOCHS}"),
    "a name": change("measure.yaml", "name: ask", "name: asks"),
    "a prompt": change("measure.yaml", "{{ question", "Q: {{ question"),
    "a line": change("measure.yaml", "apiVersion", "# about\napiVersion"),
    "suspended": change("promote.yaml", "spec:", "spec:\n  suspend: true"),
    "a threshold": change("promote.yaml", "at_least: 0.8", "at_least: 0.7"),
    "another project": change("project.yaml", "demo", "other"),
    "variables": change("project.yaml", "{name: demo}", "{name: demo}\nspec: {variables: {EPOCHS: {default: 3}}}"),
    "no YAML": lambda root: written(root, "measure.yaml", "kind: {"),
    "no rule": lambda root: (root / "promote.yaml").unlink(missing_ok=True),
    "rows": lambda root: written(root, "train.jsonl", FILES["train.jsonl"] + FILES["train.jsonl"]),
    "broken rows": lambda root: written(root, "train.jsonl", "no row\n"),
    "broken items": lambda root: written(root, "heldout.jsonl", '{"item": {"question": 1}}\n'),
    "one more": lambda root: written(root, "more/another.yaml", ANOTHER),
    "one less": lambda root: shutil.rmtree(root / "more", ignore_errors=True),
    "twice": lambda root: written(root, "more/again.yaml", FILES["train.yaml"]),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_edited_is_found_as_if_nothing_had_been_known(
    tree: Path, tmp_path: Path, known: Known, seed: int
) -> None:
    chance = random.Random(seed)
    for turn in range(25):
        name = chance.choice(list(EDITS))
        EDITS[name](tree)
        if chance.random() < 0.3:  # another revision of the same tree
            moved = tmp_path / f"tree-{turn}"
            shutil.copytree(tree, moved, copy_function=os.link)
            tree = moved

        assert found(tree, None) == found(tree, known), name


def test_a_look_at_what_has_not_changed_reads_nothing(tree: Path, known: Known) -> None:
    first = project.load(tree, known=known)

    assert (0, 0) == counted(known, lambda: project.load(tree, known=known))
    assert first is project.load(tree, known=known)


def test_one_new_resource_among_many_is_all_that_is_read(tree: Path, known: Known) -> None:
    project.load(tree, known=known)
    written(tree, "more/another.yaml", ANOTHER)

    assert (1, 1) == counted(known, lambda: project.load(tree, known=known))


def test_what_rests_on_a_change_is_resolved_again(tree: Path, known: Known) -> None:
    project.load(tree, known=known)
    EDITS["epochs"](tree)

    # the job, the run that measures it and the rule that wants it
    assert (1, 3) == counted(known, lambda: project.load(tree, known=known))


def test_another_checkout_of_the_same_tree_is_not_read_again(
    tree: Path, tmp_path: Path, known: Known
) -> None:
    project.load(tree, known=known)
    shutil.copytree(tree, tmp_path / "next", copy_function=os.link)

    # the Project says where its rules are written
    assert (0, 1) == counted(known, lambda: project.load(tmp_path / "next", known=known))
    path = project.load(tmp_path / "next", known=known).desired[Address("Dataset", "train")].facts["path"]
    assert str(tmp_path / "next" / "train.jsonl") == path


def test_what_was_written_this_moment_is_read_again(tree: Path) -> None:
    known = Known()
    project.load(tree, known=known)
    write(tree, {"more/another.yaml": ANOTHER})
    os.utime(tree / "more" / "another.yaml", ns=(0, known.now() + 10**9))
    project.load(tree, known=known)

    assert (1, 0) == counted(known, lambda: project.load(tree, known=known))  # and says the same


def test_a_dataset_that_changed_while_it_was_scanned_is_scanned_again(tree: Path) -> None:
    now = [1_500_000_000_000_000_000]
    known = Known(lambda: now[0])
    write(tree, {"train.jsonl": FILES["train.jsonl"]})
    os.utime(tree / "train.jsonl", ns=(0, now[0] + 1))
    project.load(tree, known=known)
    now[0] = LATER

    assert (0, 4) == counted(known, lambda: project.load(tree, known=known))  # with what rests on it


def test_nothing_is_kept_of_what_is_gone(tree: Path, known: Known) -> None:
    written(tree, "more/another.yaml", ANOTHER)
    project.load(tree, known=known)
    EDITS["one less"](tree)
    project.load(tree, known=known)
    EDITS["a line"](tree)
    project.load(tree, known=known)

    assert {name for name in FILES if name.endswith(".yaml")} == {name for name, *_ in known.files}
    assert [set(project.load(tree).desired)] * 2 == [set(each.nodes) for each in known.trees]


def test_what_stands_while_something_is_broken_is_not_read_again(tree: Path, known: Known) -> None:
    last = lastgood.load(tree, tree, None, known).project
    EDITS["a slip"](tree)
    lastgood.load(tree, tree, last, known)

    assert (0, 0) == counted(known, lambda: lastgood.load(tree, tree, last, known))
    assert (
        last.desired[TUNED].fingerprint
        == lastgood.load(tree, tree, last, known).project.desired[TUNED].fingerprint
    )
