"""`reconciler report` as it is typed."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from core_base import Applier, Clock, write
from memory_platform import MemoryPlatform

from reconciler.cli import main, session
from reconciler.engine import World
from reconciler.kinds import all_kinds
from reconciler.platforms.wrappers import ReadOnly

RULE = "PromotionRule/production"
Typed = Callable[..., int]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write(tmp_path / "manifests")


@pytest.fixture
def platform(tree: Path) -> MemoryPlatform:
    """Everything is measured, and one answer is a half of a character."""
    platform = MemoryPlatform()
    applier = Applier(tree, platform, Clock())
    applier.passes(3)
    platform.finish_jobs()
    applier.passes(2)
    platform.finish_runs(lambda model, index: index < (190 if model.startswith("ft:") else 40))
    for path, items in platform.objects.items():
        if path.endswith("/output_items"):
            items[0]["sample"] = {"output": [{"role": "assistant", "content": "\ud83d </script>"}]}
    return platform


@pytest.fixture
def typed(tree: Path, platform: MemoryPlatform, monkeypatch: pytest.MonkeyPatch) -> Typed:
    @contextlib.contextmanager
    def reading(*_: object) -> Iterator[World]:
        yield World("demo", all_kinds(), ReadOnly(platform))

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["reconciler", "report", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        return int(ended.value.code or 0)

    monkeypatch.setattr(session, "reading", reading)
    return run


@pytest.mark.parametrize(
    "form, begins",
    [
        ("html", "<!doctype html>"),
        ("markdown", "### ✅ pass · FineTuneJob/tuned passes"),
        ("junit", "<?xml "),
        ("csv", "eval,run,"),
        ("jsonl", '{"version":1,'),
    ],
)
def test_a_report_is_written_to_its_file(
    typed: Typed, tree: Path, tmp_path: Path, form: str, begins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"

    code = typed(RULE, str(tree), "--format", form, "--out", str(out))

    assert (0, begins) == (code, out.read_text()[: len(begins)])
    assert f"{RULE}: FineTuneJob/tuned passes; {out}\n" == capsys.readouterr().out
    assert 0o644 == out.stat().st_mode & 0o777


def test_a_half_character_is_told_as_its_escape(
    typed: Typed, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "items.jsonl"

    typed(RULE, str(tree), "--format", "jsonl", "--out", str(out))

    typed(RULE, str(tree), "--format", "jsonl")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert (400, "\ud83d </script>") == (len(lines), lines[0]["answer"])
    assert capsys.readouterr().out.endswith(out.read_text())


def test_without_a_file_a_report_goes_to_the_terminal(
    typed: Typed, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = typed(RULE, str(tree), "--format", "markdown")

    assert (0, "### ✅ pass") == (code, capsys.readouterr().out[:10])


def test_a_file_that_cannot_be_written_is_a_sentence_and_leaves_nothing(
    typed: Typed, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()

    missing = typed(RULE, str(tree), "--out", str(tmp_path / "nowhere" / "report.html"))
    taken = typed(RULE, str(tree), "--out", str(tmp_path / "taken"))

    said = capsys.readouterr().err
    assert (1, 1) == (missing, taken)
    assert (
        "nowhere/report.html cannot be written: No such file or directory; name another file with --out"
        in said
    )
    assert {"manifests", "taken"} == {each.name for each in tmp_path.iterdir()}


def test_a_misspelt_address_names_the_near_one(
    typed: Typed, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = typed("PromotionRule/prodction", str(tree))

    assert 1 == code
    assert "did you mean PromotionRule/production?" in capsys.readouterr().err


def test_help_says_where_items_and_answers_go(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    typed("--help")

    said = " ".join(capsys.readouterr().out.split())
    assert "html, csv and jsonl hold the eval's items and the models' answers" in said
    assert "Training rows and secrets are in none of them" in said
