"""A project whose every row and key can be recognised goes through its whole life, and nothing says either."""

import json
import os
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from canary import MARK, Canary, Leak
from core_base import FILES, edit, write
from daemon_base import git, running
from memory_server import MemoryServer
from sqlalchemy import create_engine, text

from reconciler.cli.main import main

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"{MARK} asks {n}"},
            {"role": "assistant", "content": f"{MARK} {n}"},
        ]
    }
    for n in range(12)
]
ITEMS = [{"item": {"question": f"{MARK} asks {n}", "expected": f"{MARK} {n}"}} for n in range(20)]
WORDS = f"{MARK} words"  # no name that a field could have; those are told
BROKEN = (  # rows that something is wrong with, each in another place
    {"messages": [{"role": MARK, "content": MARK}]},
    {"messages": [{"role": "user", WORDS: MARK}]},
    {"messages": MARK},
    {WORDS: 1},
    {"messages": [{"role": "user", "content": {WORDS: MARK}}, {"role": "assistant", "content": [MARK]}]},
)
PROJECT = """\
apiVersion: reconciler/v1
kind: Project
metadata: {{name: demo}}
spec:
  platform: shared
  platforms: {{shared: {{type: openai, base_url: "{url}", api_key_env: DEMO_KEY}}}}
{more}"""
RUN = "EvalRun/right@FineTuneJob/tuned"
LOOKING = (
    "validate", "plan", "status", "graph", "costs", "drift", "prune", "releases", "explain Dataset/train",
    "explain FineTuneJob/tuned", "explain PromotionRule/production",
)  # fmt: skip
REPORTS = tuple(f"report {RUN} --format {form}" for form in ("html", "markdown", "junit", "csv", "jsonl"))
BEFORE = ("plan --base HEAD~1 --output markdown", "plan --out plan.json", *LOOKING)
AFTER = (*LOOKING, *(f"{command} --output json" for command in LOOKING if command != "graph"), *REPORTS)


def lines(rows: object) -> str:
    assert isinstance(rows, list)
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def tree(tmp_path: Path, server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In a repository of two commits, the second of which changes rows of both datasets."""
    tree = write(tmp_path / "manifests", FILES)
    (tree / "project.yaml").write_text(PROJECT.format(url=server.url, more=""))
    (tree / "train.jsonl").write_text(lines(ROWS))
    (tree / "heldout.jsonl").write_text(lines(ITEMS))
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    edit(tree / "train.jsonl", f'"{MARK} 3"', f'"{MARK} three"')
    edit(tree / "heldout.jsonl", f'"{MARK} 4"', f'"{MARK} four"')
    git(tmp_path, "commit", "--quiet", "-am", "second")
    return tree


@pytest.fixture
def canary(request: pytest.FixtureRequest) -> Canary:
    found = request.config.pluginmanager.get_plugin("canary")
    assert isinstance(found, Canary)
    return found


@pytest.fixture
def say(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], int]:
    """Runs a command on the tree; the canary looks at what it prints."""

    def run(command: str) -> int:
        monkeypatch.setattr(sys, "argv", ["reconciler", *command.split(), str(tree)])
        with pytest.raises(SystemExit) as end:
            main()
        assert "Usage:" not in capsys.readouterr().err
        return int(str(end.value.code))

    return run


def leaked(canary: Canary, folder: Path, before: int) -> list[Leak]:
    canary.look_below(folder, folder.name)
    return canary.leaks[before:]


def test_no_command_says_a_row_or_a_key(say: Callable[[str], int], canary: Canary, tmp_path: Path) -> None:
    before = len(canary.leaks)

    codes = {command: say(command) for command in BEFORE}
    assert 0 == say("apply")
    codes |= {f"{command} after": say(command) for command in AFTER}

    assert {command for command, code in codes.items() if code == 1} == set()
    assert [] == leaked(canary, tmp_path, before)


@pytest.mark.parametrize("row", BROKEN)
@pytest.mark.parametrize("file", ["train.jsonl", "heldout.jsonl"])
def test_no_sentence_about_a_broken_row_quotes_it(
    say: Callable[[str], int], tree: Path, canary: Canary, tmp_path: Path, row: dict[str, object], file: str
) -> None:
    before = len(canary.leaks)
    with (tree / file).open("a") as rows:
        rows.write(json.dumps(row) + "\n" + json.dumps(row)[:-2] + "\n")

    assert (1, 1) == (say("validate"), say("validate --output json"))

    assert [] == leaked(canary, tmp_path, before)


def test_neither_log_nor_metrics_nor_status_of_a_daemon_has_a_row_or_a_secret(
    tree: Path, canary: Canary, tmp_path: Path
) -> None:
    before = len(canary.leaks)
    asking = {"Authorization": f"Bearer {os.environ['RECONCILER_HTTP_TOKEN']}"}

    with running(tmp_path / "log", tree, "--interval", "0.5", "--http", "127.0.0.1:0") as daemon:
        port = daemon.until("http.started")["port"]
        daemon.settles()
        for name in ("healthz", "readyz", "metrics", "api/v1/status", "api/v1/history"):
            asked = urllib.request.Request(f"http://127.0.0.1:{port}/{name}", headers=asking)
            with urllib.request.urlopen(asked) as answer:
                canary.look(name, answer.read())
        (tree / "train.jsonl").write_text(lines([*ROWS, BROKEN[0]]))
        daemon.until("manifests.refused")
        daemon.stop()

    assert [] == leaked(canary, tmp_path, before)


def test_a_journal_on_postgresql_holds_neither(
    say: Callable[[str], int], tree: Path, server: MemoryServer, canary: Canary, postgres: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before = len(canary.leaks)
    monkeypatch.setenv("TEAM_JOURNAL", postgres)
    more = "  journal: {url_env: TEAM_JOURNAL}\n"
    (tree / "project.yaml").write_text(PROJECT.format(url=server.url, more=more))

    assert 0 == say("apply")

    with create_engine(postgres).connect() as db:
        tables = (
            db.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
        )
        assert {"intents", "history", "memory"} <= set(tables)
        for table in tables:
            canary.look(table, repr(db.execute(text(f'SELECT * FROM "{table}"')).all()))
    assert [] == list(canary.leaks[before:])
