"""A repository with a pull request, and its workflow's steps as real processes."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comment_base import commit, git
from core_base import edit
from github_stub import REPOSITORY, TOKEN, GitHubStub

KEY = "sk-canary-91d3"


@dataclass(frozen=True)
class Ended:
    """How a step ended, what it printed, and what it told the runner."""

    code: int
    out: str
    said: str
    summary: str
    outputs: dict[str, str]


@dataclass
class Workflow:
    """One pull request's jobs. `head` is its last commit."""

    root: Path
    kept: Path
    github: GitHubStub
    head: str = ""
    number: int = 7
    event: dict[str, Any] = field(default_factory=dict)

    def project(self, tree: Path, url: str, name: str) -> None:
        """Give a tree a project and a channel of its own."""
        name = re.sub("[^a-z0-9]+", "-", name.lower())[5:50].strip("-")
        edit(tree / "promote.yaml", "demo/production", f"{name}/production")
        (tree / "project.yaml").write_text(
            f"apiVersion: reconciler/v1\nkind: Project\nmetadata: {{name: {name}}}\nspec:\n"
            f"  platforms:\n    local: {{type: openai, base_url: '{url}', api_key_env: DEMO_KEY}}\n"
        )

    def commit(self, message: str) -> str:
        self.head = commit(self.root, message)
        return self.head

    def pull_request(self, origin: str = REPOSITORY) -> None:
        asked = {
            "number": self.number,
            "head": {"sha": self.head, "repo": {"full_name": origin}},
            "base": {"ref": "main"},
        }
        self.event = {"pull_request": asked}

    def merge(self) -> str:
        """Merge the pull request with a commit of its own."""
        merged = commit(self.root, f"Merge pull request #{self.number}")
        self.github.merge(self.number, self.head, merged)
        self.event = {"ref": "refs/heads/main"}
        return merged

    def upload(self, ended: Ended, **how: Any) -> int:
        """What the action's upload step does with a step's outputs."""
        content = (self.root / ended.outputs["plan"]).read_bytes()
        return self.github.upload(ended.outputs["artifact"], content, self.head, **how)

    def start(self, *arguments: str, token: str | None = TOKEN) -> subprocess.Popen[str]:
        event = self.kept / "event.json"
        event.write_text(json.dumps(self.event))
        for name in ("summary", "outputs"):
            (self.kept / name).write_text("")
        around = {
            "GITHUB_API_URL": self.github.url,
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_SHA": git(self.root, "rev-parse", "HEAD"),
            "GITHUB_REF_NAME": "main",
            "GITHUB_RUN_ID": "42",
            "GITHUB_WORKSPACE": str(self.root),
            "GITHUB_EVENT_PATH": str(event),
            "GITHUB_STEP_SUMMARY": str(self.kept / "summary"),
            "GITHUB_OUTPUT": str(self.kept / "outputs"),
            "DEMO_KEY": KEY,
        }
        around |= {"GITHUB_TOKEN": token} if token else {}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
        return subprocess.Popen(
            [sys.executable, "-m", "reconciler", "ci", *arguments],
            cwd=self.root,
            env={**clean, **around},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, token: str | None = TOKEN) -> Ended:
        started = self.start(*arguments, token=token)
        out, said = started.communicate(timeout=300)
        lines = (self.kept / "outputs").read_text().splitlines()
        outputs = dict(line.partition("=")[::2] for line in lines)
        assert not [word for word in (TOKEN, KEY) if word in out + said], "a secret was printed"
        return Ended(started.returncode, out, said, (self.kept / "summary").read_text(), outputs)
