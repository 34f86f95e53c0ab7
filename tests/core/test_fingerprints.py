"""
Identity is what is asked for. `tests/golden/fingerprints.json` pins it: a commit that moves one says so,
because it makes something anew and costs somebody money.
"""

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from reconciler import fingerprint, project
from reconciler.kinds import all_kinds
from reconciler.resource import Address, Desired

GOLDEN = Path(__file__).parents[1] / "golden"
TREE = GOLDEN / "tree"
DOCUMENTS: list[dict[str, Any]] = [
    document for path in sorted(TREE.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())
]
COSMETIC = {
    "description", "Dataset/file", "FineTuneJob/suffix", "Eval/dataset", "Eval/prompt", "Eval/sampling_params",
    "Eval/samples_per_item",
}  # fmt: skip
OTHERS = ("Model/hub", "FineTuneJob/rft", "Dataset/pairs", "Prompt/other", "Eval/other", "Grader/other", "eq", "ne",
          "low", "high", "rude", "bleu", "chat", "preference", "user", "system", "pass_rate", "mean_score",
          "spot_check", "all-linear", "local", "shared", "sft", "0.5 * exact")  # fmt: skip


def fingerprints(desired: Desired) -> dict[str, str]:
    return {str(address): wanted.fingerprint for address, wanted in sorted(desired.items())}


def written(folder: Path, documents: list[dict[str, Any]], files: int = 1) -> Path:
    """The documents as a tree of so many files, beside the golden tree's data."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(TREE / "data", folder / "data")
    for number in range(files):
        part = documents[number::files]
        (folder / f"{number}.yaml").write_text(yaml.safe_dump_all(part, sort_keys=False))
    return folder


def test_no_fingerprint_moves_unnoticed(update_golden: bool) -> None:
    found = fingerprints(project.load(TREE).desired)

    path = GOLDEN / "fingerprints.json"
    if update_golden:
        path.write_text(json.dumps({"algorithm": fingerprint.ALGORITHM, "is": found}, indent=2) + "\n")

    pinned = json.loads(path.read_text())
    assert pinned["algorithm"] == fingerprint.ALGORITHM
    assert pinned["is"] == found


def test_the_golden_tree_has_every_kind() -> None:
    assert set(all_kinds()) == {document["kind"] for document in DOCUMENTS}


@given(chance=st.randoms(use_true_random=False), files=st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_order_and_files_and_keys_do_not_count(
    tmp_path_factory: pytest.TempPathFactory, chance: random.Random, files: int
) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shuffled(value[key]) for key in chance.sample(list(value), len(value))}
        return [shuffled(each) for each in value] if isinstance(value, list) else value

    mixed = [shuffled(document) for document in chance.sample(DOCUMENTS, len(DOCUMENTS))]
    tree = written(tmp_path_factory.mktemp("tree"), mixed, files)

    assert fingerprints(project.load(TREE).desired) == fingerprints(project.load(tree).desired)


@given(tail=st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True), chance=st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_names_do_not_count(
    tmp_path_factory: pytest.TempPathFactory, tail: str, chance: random.Random
) -> None:
    names = {f"{d['kind']}/{d['metadata']['name']}" for d in DOCUMENTS}
    text = json.dumps(DOCUMENTS)
    renamed = {name: f"{name}-{tail}" for name in names if chance.random() < 0.5}
    for name, new in renamed.items():
        text = text.replace(f'"{name}"', f'"{new}"')
    documents = json.loads(text)
    for each in documents:
        address = f"{each['kind']}/{each['metadata']['name']}"
        each["metadata"]["name"] = renamed.get(address, address).partition("/")[2]
    tree = written(tmp_path_factory.mktemp("tree"), documents)

    before, after = project.load(TREE).desired, project.load(tree).desired

    assert sorted(w.fingerprint for w in before.values()) == sorted(w.fingerprint for w in after.values())


def test_where_a_file_lies_does_not_count(tmp_path: Path) -> None:
    text = json.dumps(DOCUMENTS).replace("data/train.jsonl", "elsewhere/rows.jsonl")
    tree = written(tmp_path / "tree", json.loads(text))
    (tree / "elsewhere").mkdir()
    (tree / "data" / "train.jsonl").rename(tree / "elsewhere" / "rows.jsonl")

    assert fingerprints(project.load(TREE).desired) == fingerprints(project.load(tree).desired)


@given(words=st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=40))
@settings(max_examples=10, deadline=None)
def test_what_is_cosmetic_does_not_count(tmp_path_factory: pytest.TempPathFactory, words: str) -> None:
    documents = json.loads(json.dumps(DOCUMENTS))
    for each in documents:
        each["spec"]["description"] = words
        each["metadata"] |= {"labels": {"note": words}, "annotations": {"note": words}}
        if each["kind"] == "FineTuneJob":
            each["spec"]["suffix"] = "another"
        if each["kind"] == "Grader":
            each["spec"]["name"] = "called-otherwise"
    tree = written(tmp_path_factory.mktemp("tree"), documents)

    assert fingerprints(project.load(TREE).desired) == fingerprints(project.load(tree).desired)


def test_a_default_written_out_does_not_count(tmp_path: Path) -> None:
    documents = json.loads(json.dumps(DOCUMENTS))
    for each in documents:
        spec = all_kinds()[each["kind"]].parse(each["spec"])
        each["spec"] = spec.model_dump(mode="json", exclude_none=True)
    tree = written(tmp_path / "tree", documents)

    assert len(documents) < sum(len(d["spec"]) for d in documents) - sum(len(d["spec"]) for d in DOCUMENTS)
    assert fingerprints(project.load(TREE).desired) == fingerprints(project.load(tree).desired)


def leaves(value: Any, at: fingerprint.Place = ()) -> Iterator[tuple[fingerprint.Place, Any]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not parts:
        yield at, value
    for key, part in parts:
        yield from leaves(part, (*at, key))


def replaced(value: Any, at: fingerprint.Place, new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inside = copy
    for part in at[:-1]:
        inside = inside[part]
    inside[at[-1]] = new
    return copy


def identity(kind: str, body: dict[str, Any]) -> str:
    """The fingerprint of one spec whose references stay what they are."""
    flat = fingerprint.content(all_kinds()[kind].parse(body), {}, lambda _, address: str(address))
    return fingerprint.fingerprint(kind, flat)


BOUND = {("messages", 1, "role"), ("labels", 0)}  # nothing else may stand here while the rest stays
LEAVES = [
    pytest.param(d["kind"], d["spec"], at, value, id=f"{d['kind']}/{d['metadata']['name']}:{fingerprint.pointer(at)}")
    for d in DOCUMENTS
    for at, value in leaves(d["spec"])
    if at and at[-1] != "type" and at not in BOUND
]  # fmt: skip


@pytest.mark.parametrize("kind, spec, at, value", LEAVES)
def test_every_other_field_counts(kind: str, spec: dict[str, Any], at: fingerprint.Place, value: Any) -> None:
    before = identity(kind, spec)
    changed = set()
    options = (
        (value + 1, value / 2, value * 0.9) if isinstance(value, int | float) else (f"{value}x", *OTHERS)
    )
    for new in (option for option in options if option != value):
        try:
            changed.add(identity(kind, replaced(spec, at, new)) != before)
        except (ValidationError, ValueError):
            continue

    field = str(at[0])
    counts = field not in COSMETIC and f"{kind}/{field}" not in COSMETIC
    assert {counts} == changed, f"{at} may be {options}"


DATASETS = {d["metadata"]["name"]: d["spec"]["file"] for d in DOCUMENTS if d["kind"] == "Dataset"}


@pytest.mark.parametrize("name", DATASETS)
def test_one_changed_row_moves_what_rests_on_it_and_nothing_else(tmp_path: Path, name: str) -> None:
    tree = written(tmp_path / "tree", DOCUMENTS)
    before = project.load(tree).desired
    path = tree / DATASETS[name]
    path.write_text(re.sub(r"say (\d+)", r"please say \1", path.read_text(), count=1))
    after = project.load(tree).desired

    moved = {a for a in before if before[a].fingerprint != after[a].fingerprint}

    assert _resting_on(before, Address("Dataset", name)) == moved


def _resting_on(desired: Desired, address: Address) -> set[Address]:
    found = {address}
    for wanted in desired.values():  # needs come first
        if any(need.address in found for need in wanted.needs):
            found.add(wanted.address)
    return found


def test_numbers_that_are_equal_are_the_same() -> None:
    assert fingerprint.fingerprint("K", {"/a": 1}) == fingerprint.fingerprint("K", {"/a": 1.0})


@pytest.mark.parametrize("one, other", [(1, True), (1, "1"), (None, ""), ([], {}), ("1", ["1"]), (0, -1)])
def test_values_that_differ_are_not_the_same(one: Any, other: Any) -> None:
    assert fingerprint.fingerprint("K", {"/a": one}) != fingerprint.fingerprint("K", {"/a": other})
