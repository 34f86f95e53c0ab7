"""A daemon over a branch of a real repository: every revision whole, and the last good one when something breaks."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_base import Origin, git, running
from faulty_server import FaultyServer
from git_host import hosting

TRAIN = "train.yaml"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    with FaultyServer(tmp_path_factory.mktemp("platform")).running() as running_:
        yield running_


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


@pytest.fixture
def url(server: FaultyServer, request: pytest.FixtureRequest) -> str:
    return server.url


def follow(origin: Origin, home: Path, *more: str) -> list[str | Path]:
    return ["--git", origin.url, "--path", "manifests", "--home", home, "--interval", "0.2", *more]


def test_every_commit_is_reconciled_from_a_folder_of_its_own(
    origin: Origin, url: str, tmp_path: Path
) -> None:
    first, home = origin.write(url), tmp_path / "home"
    with running(tmp_path / "log", *follow(origin, home)) as daemon:
        daemon.settles()
        assert first in (home / "releases" / "demo" / "production.yaml").read_text()
        before = len(daemon.events)
        second = origin.edit(TRAIN, "n_epochs: 2", "n_epochs: 3")
        assert second == daemon.until("revision.found", after=before)["commit"]
        daemon.until("pass.done", lambda each: each["settled"] and each["made"], after=before)
        assert (home / "current" / TRAIN).read_text().count("n_epochs: 3")
        assert (home / "revisions" / second / "manifests" / "train.jsonl").stat().st_nlink >= 1
        assert 0 == daemon.stop()

    assert second in (home / "releases" / "demo" / "production.yaml").read_text()
    assert not (home / "revisions" / second / "manifests" / ".reconciler").is_file()
    assert "daemon.stopped" == daemon.events[-1]["event"]


def test_a_broken_commit_leaves_the_last_good_one_in_force_even_after_a_restart(
    origin: Origin, url: str, tmp_path: Path
) -> None:
    origin.write(url)
    home, log = tmp_path / "home", tmp_path / "log"
    with running(log, *follow(origin, home)) as daemon:
        daemon.settles()
        origin.edit(TRAIN, "n_epochs: 2", "n_epoch: 3")
        [told] = daemon.until("manifests.refused")["problems"]
        assert told.endswith(
            "train.yaml:17: method.supervised.hyperparameters.n_epoch: is no field here; did you mean n_epochs?"
        )
        daemon.stop()
    with running(log, *follow(origin, home)) as daemon:
        before = len(daemon.events)
        daemon.until("manifests.refused", after=before)
        assert {} == daemon.settles(after=before)["blocked"]
        origin.edit(TRAIN, "n_epoch: 3", "n_epochs: 4")
        daemon.until("pass.done", lambda each: each["settled"] and each["made"], after=before)


def test_a_branch_that_was_forced_is_followed(origin: Origin, url: str, tmp_path: Path) -> None:
    origin.write(url)
    with running(tmp_path / "log", *follow(origin, tmp_path / "home")) as daemon:
        daemon.settles()
        before = len(daemon.events)
        git(origin.clone, "commit", "--quiet", "--amend", "-m", "another story")
        forced = origin.push("on top of it")
        assert forced == daemon.until("revision.found", after=before)["commit"]


@pytest.mark.parametrize(
    "broken, says",
    [
        ("branch", "has no branch main; name another one, or push it again"),
        ("repository", "there is no repository at"),
    ],
)
def test_what_is_wrong_with_the_remote_is_told_once_and_the_last_revision_stands(
    origin: Origin, url: str, tmp_path: Path, broken: str, says: str
) -> None:
    first = origin.write(url)
    away = tmp_path / "away.git"
    with running(tmp_path / "log", *follow(origin, tmp_path / "home")) as daemon:
        daemon.settles()
        if broken == "branch":
            git(origin.bare, "branch", "-M", "main", "elsewhere")
        else:
            origin.bare.rename(away)
        failed = daemon.until("source.failed")
        before = len(daemon.events)
        daemon.until("pass.done", after=before)
        daemon.until("pass.done", after=len(daemon.events))
        if broken == "branch":
            git(origin.bare, "branch", "-M", "elsewhere", "main")
        else:
            away.rename(origin.bare)
        daemon.until("source.recovered")

    assert says in failed["error"]
    assert first == failed["stands"]
    assert 1 == len(daemon.named("source.failed"))


def test_without_the_remote_a_restart_goes_on_from_the_last_good_revision(
    origin: Origin, url: str, tmp_path: Path
) -> None:
    origin.write(url)
    home, log = tmp_path / "home", tmp_path / "log"
    with running(log, *follow(origin, home)) as daemon:
        daemon.settles()
        daemon.stop()
    shutil.rmtree(origin.bare)

    with running(log, *follow(origin, home)) as daemon:
        assert daemon.settles(after=len(daemon.events))


def test_a_wrong_path_gets_a_sentence(origin: Origin, url: str, tmp_path: Path) -> None:
    origin.write(url)
    with running(
        tmp_path / "log", "--git", origin.url, "--path", "manifest", "--home", tmp_path / "home"
    ) as daemon:
        error = daemon.until("source.failed")["error"]

    assert "has no folder manifest at" in error
    assert error.endswith("name the right one with --path")


def signed(origin: Origin, key: Path, *more: str) -> str:
    options = ["-c", "gpg.format=ssh", "-c", f"user.signingkey={key}"]
    git(origin.clone, *options, "commit", "--quiet", "--allow-empty", "-S", "-m", "signed", *more)
    git(origin.clone, "push", "--quiet", "--force", "origin", "HEAD:main")
    return origin.tip


def test_only_commits_of_known_signers_are_taken(origin: Origin, url: str, tmp_path: Path) -> None:
    keys = [tmp_path / "ada", tmp_path / "mallory"]
    for key in keys:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (tmp_path / "signers").write_text(f"ada@example.org {keys[0].with_suffix('.pub').read_text()}")
    origin.write(url)
    good = signed(origin, keys[0])
    more = ("--verify-commits", str(tmp_path / "signers"))
    with running(tmp_path / "log", *follow(origin, tmp_path / "home", *more)) as daemon:
        daemon.settles()
        unsigned = origin.edit(TRAIN, "n_epochs: 2", "n_epochs: 5")
        refused = daemon.until("source.failed")
        assert (good, f"commit {unsigned[:12]}") == (refused["stands"], refused["error"][:19])
        assert "carries no signature of anybody in" in refused["error"]
        strange = signed(origin, keys[1])
        daemon.until("source.failed", lambda each: strange[:12] in each["error"])
        assert [good] == [each["commit"] for each in daemon.named("revision.found")]
        taken = signed(origin, keys[0])
        daemon.until("revision.found", lambda each: each["commit"] == taken)


def test_a_token_reaches_git_and_nothing_else(origin: Origin, url: str, tmp_path: Path) -> None:
    origin.write(url)
    secret = "s3cret-canary-token"
    with running(
        tmp_path / "log", "--git", "http://127.0.0.1:9/x.git", "--home", tmp_path / "home",
        "--git-token-env", "DEMO_TOKEN", "--interval", "0.1", env={"DEMO_TOKEN": secret},
    ) as daemon:  # fmt: skip
        assert "127.0.0.1:9/x.git cannot be reached" in daemon.until("source.failed")["error"]
        daemon.stop()

    assert secret not in daemon.log.read_text()
    hits = [
        path
        for path in (tmp_path / "home").rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]
    assert [] == hits


@pytest.mark.parametrize(
    "arguments, says",
    [
        (
            ["--git", "https://ada:pass@example.org/x.git"],
            "the address of example.org holds a password; put it into an",
        ),
        (
            ["--git", "file:///x", "--git-token-env", "NOT_SET"],
            "NOT_SET is not set; it has to hold the token for",
        ),
        (["--git", "file:///x", "--git-token-env", "A B"], "'A B' is no name of an environment variable"),
        (["--home", "x"], "--home goes with --git"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(tmp_path: Path, arguments: list[str], says: str) -> None:
    with running(tmp_path / "log", *arguments, "--interval", "1") as daemon:
        code = daemon.process.wait(60)

    assert 1 == code
    assert says in daemon.log.read_text()
    assert "ada:pass" not in daemon.log.read_text()


def test_a_remote_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from reconciler import git as program

    monkeypatch.setattr(program, "FAR", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        remote = program.Remote(f"http://127.0.0.1:{silent.getsockname()[1]}/x.git")

        with pytest.raises(program.GitFailed, match="did not answer within 0 s"):
            program.run("ls-remote", remote.url, remote=remote)


def test_a_revision_shares_what_it_has_in_common_with_the_one_before(origin: Origin, tmp_path: Path) -> None:
    from reconciler.daemon.checkout import Checkout, Place
    from reconciler.git import Remote

    origin.write("http://localhost")
    checkout = Checkout(Place(Remote(origin.url), "main", "manifests"), tmp_path / "home")
    first = checkout.fetch()
    before = checkout.check_out(first)
    origin.edit(TRAIN, "n_epochs: 2", "n_epochs: 3")
    second = checkout.fetch()

    after = checkout.check_out(second, like=first)

    assert (before / "train.jsonl").stat().st_ino == (after / "train.jsonl").stat().st_ino
    assert "n_epochs: 2" in (before / TRAIN).read_text()
    assert "n_epochs: 3" in (after / TRAIN).read_text()
    checkout.keep([second])
    assert [second] == [path.name for path in (tmp_path / "home" / "revisions").iterdir() if path.is_dir()]
    assert os.readlink(after / "releases").endswith("releases")


def test_a_host_that_wants_a_token_gets_it(origin: Origin, url: str, tmp_path: Path) -> None:
    first, secret = origin.write(url, "  publish: push\n"), "host-canary-token"
    git(origin.bare, "config", "http.receivepack", "true")
    with hosting(tmp_path, secret) as (host, users):
        follow_ = ["--git", f"{host}/origin.git", "--path", "manifests", "--git-token-env", "DEMO_TOKEN"]
        more = ["--home", str(tmp_path / "home"), "--interval", "0.3"]
        with running(tmp_path / "log", *follow_, *more, env={"DEMO_TOKEN": "guess"}) as daemon:
            refused = daemon.until("source.failed")["error"]
            daemon.stop()
        with running(tmp_path / "log", *follow_, *more, env={"DEMO_TOKEN": secret}) as daemon:
            assert first == daemon.until("revision.found")["commit"]
            commit = daemon.until("release.published")["commit"]
            daemon.stop()

    assert "does not let in the token in DEMO_TOKEN" in refused
    assert "guess" not in refused
    assert commit == origin.tip
    assert {"x-access-token"} == set(users)
    assert secret not in daemon.log.read_text()
