"""A journal in a team's database: found by a variable's name, and safe to be looked at by who may not write."""

import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from reconciler import owner, project
from reconciler.cli import session
from reconciler.cli.main import main
from reconciler.errors import ReconcilerError
from reconciler.journal import Journal, memory
from reconciler.resource import Address, Wanted

VARIABLE = "TEAM_JOURNAL"
PROJECT = f"""\
apiVersion: reconciler/v1
kind: Project
metadata: {{name: demo}}
spec: {{journal: {{url_env: {VARIABLE}}}}}
---
apiVersion: reconciler/v1
kind: Model
metadata: {{name: base}}
spec: {{id: elsewhere}}
"""
MODEL = Address("Model", "base")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "manifests"
    root.mkdir()
    (root / "project.yaml").write_text(PROJECT)
    return root


def said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    """How a command ended, and all it said."""
    monkeypatch.setattr(sys, "argv", ["reconciler", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    output = capsys.readouterr()
    return int(str(end.value.code)), output.out + output.err


def test_a_variable_that_is_not_set_is_named(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)

    code, words = said(capsys, monkeypatch, "apply", str(tree))

    assert (
        1,
        f"error: the journal is at the URL in {VARIABLE}, which is not set; set it and run again\n",
    ) == (
        code,
        words,
    )


@pytest.mark.parametrize(
    "url", ["postgresql://me:hunter2@127.0.0.1:1/x", "postgres://me:hunter2@127.0.0.1:1/x"]
)
def test_a_database_that_does_not_answer_gets_a_sentence_without_its_password(
    url: str, tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg", reason="PostgreSQL needs the extra `postgres`")
    monkeypatch.setenv(VARIABLE, url)

    code, words = said(capsys, monkeypatch, "apply", str(tree))

    assert (1, 1) == (code, words.count("\n"))
    assert "127.0.0.1" in words
    assert "hunter2" not in words


@pytest.mark.parametrize("url", ["no url", "nodatabase://x", "hunter2"])
def test_what_is_no_url_is_not_repeated(
    url: str, tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, url)

    code, words = said(capsys, monkeypatch, "apply", str(tree))

    assert (1, True, False) == (code, "postgresql://user:password@host/name" in words, url in words)


def test_who_may_only_select_can_plan(tree: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, postgres)
    wanted = project.load(tree)
    Journal.open(postgres).remember("local", [wanted.desired[MODEL]])
    with create_engine(postgres).begin() as db:
        db.execute(text("CREATE ROLE looker LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker"))
    monkeypatch.setenv(VARIABLE, postgres.replace("me@", "looker@"))

    recalled = session.memory(wanted, "local")

    assert wanted.desired[MODEL].fingerprint == recalled[MODEL].fingerprint
    with pytest.raises(ReconcilerError, match="may use it"):
        Journal.open(wanted.journal_url({VARIABLE: postgres.replace("me@", "looker@")})).remember(
            "local", [other()]
        )


def test_looking_makes_no_table(tree: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, postgres)

    assert {} == session.memory(project.load(tree), "local")
    with create_engine(postgres).begin() as db:
        assert not db.dialect.has_table(db, memory.name)


def test_a_team_s_journal_serves_one_project(postgres: str) -> None:
    journal = Journal.open(postgres)
    mine = owner.series(journal, "mine", shared=True)

    with pytest.raises(
        ReconcilerError, match="belongs to the project mine; give yours a database of its own"
    ):
        owner.series(Journal.open(postgres), "yours", shared=True)

    assert mine == owner.series(Journal.open(postgres), "mine", shared=True)


def test_a_new_journal_asks_with_keys_of_its_own(tmp_path: Path) -> None:
    journals = [Journal.at(tmp_path / name / "journal.db") for name in ("old", "new")]

    names = [owner.series(journal, "demo", shared=False) for journal in journals]

    assert names[0] != names[1]


def other() -> Wanted:
    return Wanted(Address("Model", "x"), "a" * 64, {}, (), {}, {}, "x.yaml", 1)
