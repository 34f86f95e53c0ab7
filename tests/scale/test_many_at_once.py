"""Two appliers, a CI job and a daemon that want the same at the same moment share it: made once, seen by all."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from core_base import FILES, write
from crowd import LIMIT, together
from memory_server import MemoryServer

ROUNDS = 100
PROJECT = """\
apiVersion: reconciler/v1
kind: Project
metadata: {{name: demo}}
spec:
  platform: shared
  platforms: {{shared: {{type: openai, base_url: "{url}"}}}}
  journal: {{url_env: TEAM_JOURNAL}}
"""
APPLIERS = ("laptop", "desktop", "ci")


@pytest.fixture
def journal(postgres: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty journal on PostgreSQL, known to all by a variable."""
    monkeypatch.setenv("TEAM_JOURNAL", postgres)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return postgres


def checkouts(tmp_path: Path, server: MemoryServer) -> Mapping[str, Path]:
    """Everybody's own copy of the same manifests."""
    files = {**FILES, "project.yaml": PROJECT.format(url=server.url)}
    return {name: write(tmp_path / "trees" / name, files) for name in (*APPLIERS, "daemon")}


def ids(said: Path) -> dict[str, str]:
    """What an apply says stands in the end, by address."""
    return {step["address"]: step["id"] for step in json.loads(said.read_text())["steps"] if step.get("id")}


def test_the_same_change_wanted_by_four_at_once_is_made_once_a_hundred_times(
    tmp_path: Path, server: MemoryServer, journal: str
) -> None:
    trees = checkouts(tmp_path, server)
    for turn in range(ROUNDS):
        row = {
            "messages": [
                {"role": "user", "content": f"again {turn}"},
                {"role": "assistant", "content": "yes"},
            ]
        }
        for tree in trees.values():
            with (tree / "train.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        said = tmp_path / "said"
        shutil.rmtree(said, ignore_errors=True)
        said.mkdir()
        commands = {name: ["apply", str(trees[name]), "--output", "json"] for name in APPLIERS}

        with together(said, daemon=["run", str(trees["daemon"]), "--interval", "0.5"], **commands) as crowd:
            for name in APPLIERS:
                crowd[name].join(LIMIT)
            crowd["daemon"].terminate()
            crowd["daemon"].join(LIMIT)
            codes = {name: process.exitcode for name, process in crowd.items()}

        words = {name: (said / name).read_text() for name in codes}
        assert dict.fromkeys(codes, 0) == codes, words
        seen = [ids(said / name) for name in APPLIERS]
        assert seen[0] == seen[1] == seen[2], words
        made = {what: server.count(what) for what in ("files", "fine_tuning/jobs", "evals", "runs")}
        assert {"files": 2 + turn, "fine_tuning/jobs": 1 + turn, "evals": 1, "runs": 2 + turn} == made, words
