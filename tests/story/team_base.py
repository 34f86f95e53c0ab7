"""
A team: a remote, somebody's clone of it, runners that forget everything, a daemon, and the platform they share.

The platform is the real one on a real port, with the real trainer, or with stand-ins for trainer and engine.
"""

import contextlib
import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml
from daemon_base import WHO, Daemon, Origin, git, running, until
from faulty_server import FaultyServer
from story_base import LONGEST, copied, edit

from reconciler.journal import Journal
from reconciler.project import DATA
from reconciler.selfhosted.engine import Ask

CHANNEL = "support/production"
RULE = "PromotionRule/support-production"
FILE = f"manifests/releases/{CHANNEL}.yaml"
SECRETS = {"RECONCILER_WEBHOOK_SECRET": "team-webhook-canary", "RECONCILER_HTTP_TOKEN": "team-bearer-canary"}
TICKETS, TALK, HELD_OUT, GUARD = 200, 60, 80, 40  # rows
PROJECT = """\
apiVersion: reconciler/v1
kind: Project
metadata: {{name: support}}
spec:
  platform: shared
  platforms:
    shared: {{type: openai, base_url: "{url}", api_key_env: TUNING_KEY}}
  publish: push
"""


class World(NamedTuple):
    """What there is on the platform of all that may cost something, and where the channel leads."""

    files: int
    jobs: int
    evals: int
    runs: int
    model: str | None
    revision: int  # how often the channel was written


class Said(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    error: str


class Platform:
    """A platform at an address, seen from outside."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def world(self) -> World:
        evals = self._all("evals")
        alias = self.alias or {"model": None, "revision": 0}
        return World(
            len(self._all("files")),
            len(self._all("fine_tuning/jobs")),
            len(evals),
            sum(len(self._all(f"evals/{each['id']}/runs")) for each in evals),
            alias["model"],
            alias["revision"],
        )

    @property
    def alias(self) -> dict[str, Any] | None:
        return next(iter(self._all("reconciler/aliases")), None)

    def _all(self, collection: str) -> list[dict[str, Any]]:
        page = httpx.get(f"{self.url}/{collection}", params={"limit": 100}, timeout=60).json()
        assert not page.get("has_more")
        found: list[dict[str, Any]] = page["data"]
        return found


@contextlib.contextmanager
def real(data: Path) -> Iterator[Platform]:
    """`platform serve`, as anybody starts it."""
    data.mkdir()
    command = [sys.executable, "-m", "reconciler", "platform", "serve", "--data", str(data), "--port", "0"]
    with (data / "out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield Platform(f"{_address(process, data)}/v1")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _address(process: "subprocess.Popen[bytes]", data: Path) -> str:
    end = time.monotonic() + LONGEST
    while True:
        assert process.poll() is None, (data / "out").read_text()
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return str(json.loads((data / "server.json").read_text())["url"])
        assert time.monotonic() < end
        time.sleep(0.05)


@contextlib.contextmanager
def stub(data: Path) -> Iterator[Platform]:
    """The real application; what is trained knows all but every twentieth ticket, and the base only how to talk."""
    tree = copied(data)
    tickets, talk = _answers(tree, "triage-heldout", "ticket"), _answers(tree, "smalltalk", "prompt")
    right = {ticket: said for n, (ticket, said) in enumerate(tickets.items()) if n % 20}

    def says(ask: Ask) -> str:
        asked = str(ask.messages[-1]["content"])
        return talk.get(asked) or (right.get(asked, "no idea") if "/jobs/" in ask.model else "no idea")

    with FaultyServer(data / "platform", says=says).running() as server:
        yield Platform(server.url)


def _answers(tree: Path, name: str, asked: str) -> dict[str, str]:
    lines = (tree / "data" / f"{name}.jsonl").read_text().splitlines()
    items = [json.loads(line)["item"] for line in lines]
    return {item[asked]: item["expected"] for item in items}


class Team:
    """Everybody who works on one repository, and where each of them works."""

    def __init__(self, folder: Path, platform: Platform) -> None:
        self.folder, self.platform = folder, platform
        self.origin = Origin(folder)
        self.clone, self.tree, self.home = self.origin.clone, self.origin.tree, folder / "home"
        self.runners = 0

    def begin(self) -> str:
        """The example with fewer rows, on the platform that all share; its commit."""
        copied(self.clone)
        for name, kept in (
            ("triage-train", [*range(TICKETS), *range(-TALK, 0)]),
            ("triage-heldout", range(HELD_OUT)),
            ("smalltalk", range(GUARD)),
        ):
            path = self.tree / "data" / f"{name}.jsonl"
            rows = path.read_text().splitlines(keepends=True)
            path.write_text("".join(rows[n] for n in kept))
        improve = self.tree / "improve.yaml"
        edit(improve, "n_epochs: 3, batch_size: 12", "n_epochs: 4, batch_size: 8")
        edit(improve, "at_least: 0.80", "at_least: 0.05")
        edit(improve, "not_worse_than: 0.10", "not_worse_than: 0.50")
        (self.tree / "project.yaml").write_text(PROJECT.format(url=self.platform.url))
        return self.origin.push("the example")

    def branch(self, name: str) -> None:
        """Begin to work on something, from the newest main."""
        self.pull()
        git(self.clone, "checkout", "--quiet", "-b", name)

    def edit_row(self, line: int) -> None:
        """The customer of one training row becomes more polite."""
        path = self.tree / "data" / "triage-train.jsonl"
        rows = path.read_text().splitlines(keepends=True)
        row = json.loads(rows[line - 1])
        row["messages"][1]["content"] = f"Dear support, {row['messages'][1]['content']}"
        rows[line - 1] = json.dumps(row) + "\n"
        path.write_text("".join(rows))

    def push(self, branch: str, message: str) -> str:
        git(self.clone, "add", "--all")
        git(self.clone, "commit", "--quiet", "-m", message)
        git(self.clone, "push", "--quiet", "origin", branch)
        return git(self.clone, "rev-parse", "HEAD")

    def merge(self, branch: str) -> str:
        self.pull()
        git(self.clone, "merge", "--quiet", "--no-ff", "-m", f"merge {branch}", branch)
        return self._to_main()

    def revert(self, commit: str, message: str, *options: str) -> str:
        self.pull()
        git(self.clone, "revert", "--no-commit", *options, commit)
        git(self.clone, "commit", "--quiet", "-m", message)
        return self._to_main()

    def pull(self) -> None:
        git(self.clone, "checkout", "--quiet", "main")
        git(self.clone, "pull", "--quiet", "--ff-only", "origin", "main")

    def _to_main(self) -> str:
        git(self.clone, "push", "--quiet", "origin", "main")
        return self.origin.tip

    def runner(self, ref: str) -> Path:
        """A machine that has what is at a ref, and nothing else."""
        self.runners += 1
        place = self.folder / f"runner-{self.runners}"
        git(self.folder, "clone", "--quiet", self.origin.url, str(place))
        git(place, "checkout", "--quiet", "--detach", f"origin/{ref}")
        return place

    def says(self, place: Path, *arguments: str | Path) -> Said:
        """What a command says that is started in a checkout."""
        command = [sys.executable, "-m", "reconciler", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=place, env={**os.environ, **WHO}, capture_output=True, text=True, timeout=LONGEST
        )
        return Said(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def daemon(self) -> Iterator["Keeper"]:
        """A daemon that hears of commits by webhook alone."""
        options = ["--git", self.origin.url, "--path", "manifests", "--home", self.home, "--interval", "3600"]
        with running(self.folder / "log", *options, "--http", "127.0.0.1:0", env=SECRETS) as process:
            yield Keeper(process, self)
            assert 0 == process.stop()

    @property
    def published(self) -> dict[str, Any]:
        """The release as it is in git."""
        found: dict[str, Any] = yaml.safe_load(git(self.origin.bare, "show", f"main:{FILE}"))["spec"]
        return found

    def events(self) -> list[dict[str, Any]]:
        """What the daemon's journal remembers, newest first."""
        return Journal.at(self.home / DATA / "journal.db").events()


class Keeper:
    """The daemon of a team."""

    def __init__(self, process: Daemon, team: Team) -> None:
        self.process, self.team = process, team
        self.url = f"http://127.0.0.1:{process.until('http.started')['port']}"

    def hears(self, commit: str, releases: int) -> World:
        """The webhook of a push: the commit is seen, and afterwards so many releases are in git; the world then."""
        self.sees(commit)
        return self.publishes(releases)

    def sees(self, commit: str) -> None:
        """The webhook of a push, after which its commit is found."""
        body = json.dumps({"ref": "refs/heads/main", "after": commit}).encode()
        secret = SECRETS["RECONCILER_WEBHOOK_SECRET"].encode()
        signed = f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"
        answer = httpx.post(f"{self.url}/webhook", content=body, headers={"X-Hub-Signature-256": signed})
        assert 202 == answer.status_code
        self.process.until("revision.found", lambda each: each["commit"] == commit)

    def publishes(self, releases: int) -> World:
        """The world once so many releases were pushed."""
        until(lambda: len(self.process.named("release.published")) >= releases, self.process.log.read_text)
        return self.team.platform.world

    def reconciles(self) -> dict[str, Any]:
        """How things stand after a pass that began after this was asked."""
        bearer = {"Authorization": f"Bearer {SECRETS['RECONCILER_HTTP_TOKEN']}"}
        answer = httpx.post(f"{self.url}/api/v1/reconcile", headers=bearer, timeout=90)
        assert 200 == answer.status_code, answer.text
        found: dict[str, Any] = answer.json()
        return found


def plain(text: str) -> str:
    """A comment without what is another one each time: commits, and ids that the platform gave."""
    text = re.sub(r"(origin/main \()[0-9a-f\u200b]+(\))", r"\g<1>COMMIT\2", text)
    text = re.sub(r"\b(file|ftjob|eval|evalrun)[-_][0-9a-zA-Z\u200b]{20,}", r"\1-ID", text)
    return re.sub(r"(ft:\u200b?tiny-chat:\u200b?local:\u200b?triage:)[\w\u200b]+", r"\g<1>ID", text)
