"""Bad input, end to end: `apply` says one sentence with its place, exits 1 and leaves nothing behind."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from core_base import ROWS, edit

from reconciler.cli.main import main

GOLDEN = Path(__file__).parents[1] / "golden" / "bad-input.yaml"
Break = Callable[[Path], object]
Say = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command; answers its exit code, what it printed, and the lines of its complaint."""

    def run(*arguments: str) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["reconciler", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return code, told.out, told.err.splitlines()

    return run


def edits(name: str, before: str, after: str) -> Break:
    return lambda tree: edit(tree / name, before, after)


def adds(text: str, name: str = "more.yaml") -> Break:
    return lambda tree: (tree / name).write_text(text)


def rows(*changed: object, name: str = "train.jsonl") -> Break:
    """The rows of a file, the last ones replaced; bytes stay as they are."""

    def write(tree: Path) -> None:
        texts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in changed]
        kept = (tree / name).read_bytes().splitlines()
        (tree / name).write_bytes(b"\n".join([*kept[: len(kept) - len(texts)], *texts]) + b"\n")

    return write


def replaces_by_link(tree: Path) -> None:
    (tree / "train.jsonl").unlink()
    (tree / "train.jsonl").symlink_to("/etc/passwd")


def one_long_line(tree: Path) -> None:
    with (tree / "train.jsonl").open("wb") as file:
        file.truncate(200_000_000)


def resource(kind: str, name: str, spec: str) -> str:
    return f"apiVersion: reconciler/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


ANSWER = {"role": "assistant", "content": "x"}
SFT = "{type: supervised, supervised: {hyperparameters: {n_epochs: 2}}}"
JOB = "{model: Model/base, training_file: Dataset/train, method: {type: supervised}"
CASES: dict[str, Break] = {
    "unknown kind": edits("train.yaml", "kind: Model", "kind: Modle"),
    "unknown field": edits("train.yaml", "spec: {id: tiny-chat}", "spec: {id: tiny-chat, fodler: x}"),
    "unknown hyperparameter": edits("train.yaml", "n_epochs", "n_epoch"),
    "wrong type": edits("train.yaml", "n_epochs: 2", "n_epochs: many"),
    "missing field": edits("train.yaml", "{file: train.jsonl, format: chat}", "{file: train.jsonl}"),
    "no spec": adds("apiVersion: reconciler/v1\nkind: Model\nmetadata: {name: bare}\n"),
    "duplicate address": adds(resource("Model", "base", "{id: tiny-chat}")),
    "two projects": adds("apiVersion: reconciler/v1\nkind: Project\nmetadata: {name: other}\n"),
    "dangling reference": edits("train.yaml", "Model/base", "Model/bass"),
    "mistyped reference": edits("train.yaml", "training_file: Dataset/train", "training_file: Model/base"),
    "bare reference": edits("train.yaml", "model: Model/base", "model: base"),
    "cycle": adds(resource("FineTuneJob", "a", JOB.replace("Model/base", "FineTuneJob/b") + "}") + "---\n"
                   + resource("FineTuneJob", "b", JOB.replace("Model/base", "FineTuneJob/a") + "}")),
    "missing file": lambda tree: (tree / "train.jsonl").unlink(),
    "empty file": lambda tree: (tree / "train.jsonl").write_text(""),
    "a folder for a file": edits("train.yaml", "file: train.jsonl", "file: ."),
    "invalid JSON": rows(b'{"messages": ['),
    "invalid UTF-8": rows(b'{"messages": "\xff"}'),
    "nested rows": rows(b"[" * 100_000),
    "a 200 MB line": one_long_line,
    "wrong role": rows({"messages": [{"role": "assistent", "content": "x"}]}),
    "no assistant": rows({"messages": [{"role": "user", "content": "x"}]}),
    "nine rows": lambda tree: (tree / "train.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in ROWS[:9])),
    "format that does not fit the method": edits("train.yaml", SFT, "{type: dpo}"),
    "item that does not fit the schema": rows({"item": {"question": 7}}, name="heldout.jsonl"),
    "unknown template variable": edits("measure.yaml", "{{ question }}", "{{ qestion }}"),
    "unknown grader variable": edits("measure.yaml", "item.expected", "item.expcted"),
    "YAML bomb": adds("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))),
    "nested brackets": adds("[" * 100_000 + "]" * 100_000),
    "duplicate keys": edits("train.yaml", "spec: {id: tiny-chat}", "spec: {id: a, id: b}"),
    "tab": adds("kind:\n\t- x\n"),
    "broken YAML": adds("kind: [x\n"),
    "a path out of the tree": edits("train.yaml", "file: train.jsonl", "file: ../train.jsonl"),
    "an absolute path": edits("train.yaml", "file: train.jsonl", "file: /etc/passwd"),
    "a link out of the tree": replaces_by_link,
    "no project": lambda tree: (tree / "project.yaml").unlink(),
    "no manifests": lambda tree: [each.unlink() for each in tree.glob("*.yaml")],
    "unknown platform": adds(resource("Project", "demo", "{platform: remote}"), "project.yaml"),
    "a gate with two bounds": edits("promote.yaml", "at_least: 0.8", "at_least: 0.8, at_most: 0.9"),
    "no baseline": edits("promote.yaml", "  baseline: Model/base\n", ""),
    "a prompt that ends with an answer": edits("measure.yaml", "{role: user,", "{role: assistant,"),
    "an eval without a dataset": edits("measure.yaml", "  dataset: Dataset/heldout\n", ""),
    "python that is none": adds(resource("Grader", "code", '{type: python, source: "def grade(:"}')),
    "a schema that is none": edits("measure.yaml", "type: object", "type: objekt"),
    "a number for a name": edits("train.yaml", "{name: base}", "{name: 7}"),
    "an empty document": adds("apiVersion: reconciler/v1\nkind: Model\nmetadata:\n"),
    "a null for a list": edits("promote.yaml", "candidates: [FineTuneJob/tuned]", "candidates:"),
    "a list for a spec": adds("apiVersion: reconciler/v1\nkind: Model\nmetadata: {name: x}\nspec: [1]\n"),
}  # fmt: skip


PLACE = re.compile(r"manifests/[\w.-]+:\d+: \S")  # path:line, as an editor opens it


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_a_sentence_and_leaves_nothing(
    name: str, tree: Path, say: Say, monkeypatch: pytest.MonkeyPatch, update_golden: bool
) -> None:
    monkeypatch.chdir(tree.parent)
    CASES[name](tree)

    code, printed, told = say("apply", "manifests")

    if update_golden:
        kept = {key: lines for key, lines in golden().items() if key in CASES} | {name: told}
        GOLDEN.write_text(
            yaml.safe_dump({key: kept[key] for key in CASES if key in kept}, sort_keys=False, width=1000)
        )
    assert (1, "") == (code, printed)
    assert golden()[name] == told
    assert [] == [line for line in told[:-1] if not PLACE.match(line) and "kind Project" not in line]
    assert not (tree / ".reconciler").exists()


def golden() -> dict[str, list[str]]:
    """By case, what is said of it."""
    return yaml.safe_load(GOLDEN.read_text()) if GOLDEN.exists() else {}


def test_many_problems_are_told_at_once(tree: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    for name in ("unknown field", "wrong role", "two projects", "unknown grader variable"):
        CASES[name](tree)

    code, _, told = say("validate", "manifests")

    assert 1 == code
    assert "5 problems; nothing was done" == told[-1]


def test_of_many_broken_rows_the_first_twenty_are_told_and_the_rest_counted(
    tree: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.parent)
    (tree / "train.jsonl").write_text("{\n" * 1000)

    code, _, told = say("validate", "manifests")

    assert 1 == code
    assert 20 == sum(1 for line in told if line.startswith("manifests/train.jsonl:"))
    assert [line for line in told if "980 more problems" in line]
