"""Releases in git: pushed with their evidence, kept in one pull request, heard when somebody reverts or edits them."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from core_base import write
from daemon_base import PROJECT, Daemon, Origin, git, running, until
from faulty_server import FaultyServer

from reconciler.daemon.pullrequest import PullRequests
from reconciler.git import GitFailed, Remote

FILE, TOKEN = "releases/demo/production.yaml", "github-canary-token"
RULE = ("    - {eval: Eval/right, at_least: 0.8}", "    - {eval: Eval/right, at_least: 0.7}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    with FaultyServer(tmp_path / "platform").running() as running_:
        yield running_


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


def follow(origin: Origin, tmp_path: Path, *more: str) -> list[str | Path]:
    return [
        "--git",
        origin.url,
        "--path",
        "manifests",
        "--home",
        tmp_path / "home",
        "--interval",
        "0.3",
        *more,
    ]


def model(origin: Origin, branch: str = "main") -> str:
    return str(yaml.safe_load(git(origin.bare, "show", f"{branch}:manifests/{FILE}"))["spec"]["model"])


def alias(server: FaultyServer) -> dict[str, Any]:
    found: list[dict[str, Any]] = httpx.get(f"{server.url}/reconciler/aliases").json()["data"]
    return found[0]


def published(daemon: Daemon, count: int) -> str:
    until(lambda: len(daemon.named("release.published")) >= count, daemon.log.read_text)
    return str(daemon.named("release.published")[-1]["commit"])


def twice(origin: Origin, daemon: Daemon) -> tuple[str, str]:
    """Two releases, one after the other, each pushed; their models."""
    published(daemon, 1)
    first = model(origin)
    origin.pull()
    origin.edit("train.yaml", "n_epochs: 2", "n_epochs: 3")
    published(daemon, 2)
    return first, model(origin)


def test_a_release_is_pushed_with_its_evidence_and_does_not_loop(
    origin: Origin, server: FaultyServer, tmp_path: Path
) -> None:
    wanted = origin.write(server.url, "  publish: push\n")
    with running(tmp_path / "log", *follow(origin, tmp_path)) as daemon:
        commit = published(daemon, 1)
        before = len(daemon.events)
        for _ in range(3):
            before = len(daemon.events)
            daemon.settles(after=before)
        daemon.stop()

    assert commit == origin.tip
    assert alias(server)["model"] == model(origin)
    assert [wanted] == [each["commit"] for each in daemon.named("revision.found")]
    assert 1 == len(daemon.named("release.published"))
    title, *rest = git(origin.bare, "show", "--no-patch", "--format=%B", commit).splitlines()
    assert "Release demo/production → FineTuneJob/tuned" == title
    assert f"Reconciler-Release: {FILE}" in rest
    assert "Reconciler-Rule: PromotionRule/production" in rest
    assert f"Reconciler-Model: {model(origin)}" in rest
    assert f"Reconciler-Commit: {wanted}" in rest
    assert any(line.startswith("Reconciler-Evidence: Eval/right pass_rate 1 ") for line in rest)
    assert [f"manifests/{FILE}"] == git(origin.bare, "show", "--format=", "--name-only", commit).splitlines()


def test_a_revert_of_our_commit_rolls_back_and_stays_so(
    origin: Origin, server: FaultyServer, tmp_path: Path
) -> None:
    origin.write(server.url, "  publish: push\n")
    with running(tmp_path / "log", *follow(origin, tmp_path)) as daemon:
        first, second = twice(origin, daemon)
        jobs = server.asked["POST fine_tuning/jobs"]
        origin.pull()
        git(origin.clone, "revert", "--no-edit", "HEAD")
        git(origin.clone, "push", "--quiet", "origin", "HEAD:main")
        moved = daemon.until("release.moved")
        published(daemon, 3)
        before = len(daemon.events)
        held = daemon.settles(after=before)

    assert first != second
    assert ("demo/production", first, "rolled back", "Ada") == tuple(
        moved[key] for key in ("channel", "model", "how", "by")
    )
    assert first == alias(server)["model"] == model(origin)
    assert alias(server)["state"]["hold"]["reason"].startswith('in git: Revert "Release demo/production')
    assert "held by Ada" in held["blocked"]["PromotionRule/production"]
    assert jobs == server.asked["POST fine_tuning/jobs"]


def test_a_revert_of_the_manifests_goes_back_without_a_hold(
    origin: Origin, server: FaultyServer, tmp_path: Path
) -> None:
    origin.write(server.url, "  publish: push\n")
    with running(tmp_path / "log", *follow(origin, tmp_path)) as daemon:
        first, _ = twice(origin, daemon)
        origin.pull()
        origin.edit("train.yaml", "n_epochs: 3", "n_epochs: 2")
        published(daemon, 3)

    assert first == alias(server)["model"] == model(origin)
    assert alias(server)["state"]["hold"] is None


@pytest.mark.parametrize("on_drift", ["report", "restore"])
def test_an_edit_by_hand_is_drift_and_the_rule_says_what_becomes_of_it(
    origin: Origin, server: FaultyServer, tmp_path: Path, on_drift: str
) -> None:
    origin.write(server.url, "  publish: push\n")
    origin.edit("promote.yaml", "  gates:", f"  on_drift: {on_drift}\n  gates:")
    with running(tmp_path / "log", *follow(origin, tmp_path)) as daemon:
        published(daemon, 1)
        released = model(origin)
        origin.pull()
        edited = origin.edit(FILE, f"model: {released}", "model: mine")
        daemon.until("release.edited")
        if on_drift == "restore":
            published(daemon, 2)
            assert released == model(origin)
        else:
            blocked = daemon.until("pass.done", lambda each: bool(each["blocked"]))["blocked"]
            assert "drift: " in blocked["PromotionRule/production"]
            daemon.until("pass.done", after=len(daemon.events))
            assert (edited, "mine") == (origin.tip, model(origin))

    assert released == alias(server)["model"]


def test_a_push_that_comes_too_late_is_made_again_on_top_of_what_came_between(
    origin: Origin, server: FaultyServer, tmp_path: Path
) -> None:
    origin.write(server.url, "  publish: push\n")
    hook = origin.bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'wait a little' >&2\nexit 1\n")
    hook.chmod(0o755)
    with running(tmp_path / "log", *follow(origin, tmp_path)) as daemon:
        refused = daemon.until("release.unpublished")
        hook.unlink()
        (origin.clone / "README.md").write_text("hello")
        between = origin.push("something else")
        commit = published(daemon, 1)

    assert [FILE] == refused["files"]
    assert between == git(origin.bare, "rev-parse", f"{commit}^")
    assert "hello" == git(origin.bare, "show", "main:README.md")
    assert model(origin) == alias(server)["model"]


def test_what_was_not_pushed_before_a_restart_is_pushed_after_it(
    origin: Origin, server: FaultyServer, tmp_path: Path
) -> None:
    origin.write(server.url, "  publish: push\n")
    hook = origin.bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with running(tmp_path / "log", *follow(origin, tmp_path)) as daemon:
        daemon.until("release.unpublished")
        daemon.stop()
    hook.unlink()

    with running(tmp_path / "log", *follow(origin, tmp_path)) as daemon:
        published(daemon, 1)

    assert model(origin) == alias(server)["model"]


def test_a_lost_home_takes_nothing_back(origin: Origin, server: FaultyServer, tmp_path: Path) -> None:
    origin.write(server.url, "  publish: push\n")
    with running(tmp_path / "log", *follow(origin, tmp_path)) as daemon:
        _, second = twice(origin, daemon)
        daemon.stop()
    origin.pull()
    git(origin.clone, "revert", "--no-edit", "HEAD")  # as if the last push had been lost as well
    git(origin.clone, "push", "--quiet", "origin", "HEAD:main")

    (tmp_path / "home").rename(tmp_path / "lost")
    with running(tmp_path / "log2", *follow(origin, tmp_path)) as daemon:
        published(daemon, 1)

    assert second == alias(server)["model"] == model(origin)
    assert [] == daemon.named("release.moved")


def test_a_checkout_of_somebodys_gets_commits_of_releases_alone(
    origin: Origin, server: FaultyServer, tmp_path: Path
) -> None:
    write(origin.tree)
    (origin.tree / "project.yaml").write_text(PROJECT.format(url=server.url, more="  publish: push\n"))
    origin.push("all of it")
    git(origin.clone, "branch", "--set-upstream-to=origin/main")
    (origin.clone / "notes.txt").write_text("not finished")
    git(origin.clone, "add", "notes.txt")
    with running(tmp_path / "log", origin.tree, "--interval", "0.3") as daemon:
        commit = published(daemon, 1)
        assert [f"manifests/{FILE}"] == git(
            origin.bare, "show", "--format=", "--name-only", commit
        ).splitlines()
        assert "A  notes.txt" in git(origin.clone, "status", "--porcelain")
        first = model(origin)
        path = origin.tree / "train.yaml"
        path.write_text(path.read_text().replace("n_epochs: 2", "n_epochs: 3"))
        second = published(daemon, 2)
        assert first != model(origin)
        origin.push("finished")
        git(origin.clone, "revert", "--no-edit", second)
        assert "rolled back" == daemon.until("release.moved")["how"]
        refused = daemon.until("release.unpublished")["error"]
        git(origin.clone, "push", "--quiet")
        published(daemon, 3)

    assert first == alias(server)["model"] == model(origin)
    assert "1 commit of yours that origin/main has not; push them, releases follow" in refused


class Hub(BaseHTTPRequestHandler):
    """The endpoints of GitHub that a pull request needs."""

    requests: list[dict[str, Any]]

    def do_GET(self) -> None:
        self._reply(200, [each for each in self.requests if each["state"] == "open"])

    def do_POST(self) -> None:
        number = len(self.requests) + 1
        self.requests.append(
            {**self._body(), "number": number, "state": "open", "html_url": f"http://hub/{number}"}
        )
        self._reply(201, self.requests[-1])

    def do_PATCH(self) -> None:
        found = self.requests[int(self.path.rpartition("/")[2]) - 1]
        found.update(self._body())
        self._reply(200, found)

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def _reply(self, status: int, body: Any) -> None:
        allowed = self.headers["authorization"] == f"Bearer {TOKEN}"
        sent = json.dumps(body if allowed else {}).encode()
        self.send_response(status if allowed else 403)
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def hub() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """GitHub's API on a port of this machine, and the pull requests it has."""
    requests: list[dict[str, Any]] = []
    listening = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Hub,), {"requests": requests}))
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}", requests
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_one_pull_request_is_kept_up_to_date_and_a_late_merge_takes_nothing_back(
    origin: Origin, server: FaultyServer, tmp_path: Path, hub: tuple[str, list[dict[str, Any]]]
) -> None:
    api, requests = hub
    origin.write(server.url, "  publish: pull_request\n")
    env = {"GITHUB_API_URL": api, "DEMO_GITHUB": TOKEN}
    with running(
        tmp_path / "log", *follow(origin, tmp_path, "--git-token-env", "DEMO_GITHUB"), env=env
    ) as daemon:
        daemon.until("release.offered")
        git(origin.clone, "fetch", "--quiet", "origin")
        early = git(origin.bare, "rev-parse", "reconciler/releases")
        origin.edit("train.yaml", "n_epochs: 2", "n_epochs: 3")
        until(lambda: len(daemon.named("release.offered")) == 2)
        second = model(origin, "reconciler/releases")
        git(origin.clone, "merge", "--quiet", "--no-edit", early)
        git(origin.clone, "push", "--quiet", "origin", "HEAD:main")
        merged = origin.tip
        daemon.until("revision.found", lambda each: each["commit"] == merged)
        before = len(daemon.events)
        daemon.settles(after=before)
        daemon.settles(after=len(daemon.events))
        daemon.stop()

    assert [("reconciler/releases", "main", "open")] == [(r["head"], r["base"], r["state"]) for r in requests]
    assert "Release demo/production → FineTuneJob/tuned" == requests[0]["title"]
    assert "Reconciler-Evidence: Eval/right" in requests[0]["body"]
    assert second == alias(server)["model"] != model(origin)
    assert [] == daemon.named("release.moved")
    assert TOKEN not in daemon.log.read_text()


@pytest.mark.parametrize(
    "url, api, expected",
    [
        ("https://github.com/a/b.git", None, ("https://api.github.com", "a", "b")),
        ("git@github.com:a/b.git", None, ("https://api.github.com", "a", "b")),
        ("https://ghe.example/a/b", None, ("https://ghe.example/api/v3", "a", "b")),
        ("https://git.example/a/b", "https://git.example/api/v1/", ("https://git.example/api/v1", "a", "b")),
    ],
)
def test_the_api_is_where_the_repository_is(
    url: str, api: str | None, expected: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_GITHUB", TOKEN)

    found = PullRequests.of(Remote(url, "DEMO_GITHUB"), api, TOKEN)

    assert expected == (found.api, found.owner, found.name)


def test_a_token_that_may_not_gets_a_sentence_without_it(
    hub: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_GITHUB", "guess")
    requests = PullRequests.of(Remote("https://h/a/b", "DEMO_GITHUB"), hub[0], "guess")

    with pytest.raises(GitFailed, match="the token in DEMO_GITHUB may not open pull requests in a/b") as told:
        requests.ensure("head", "main", "title", "body")

    assert "guess" not in str(told.value)
