"""A daemon that is killed or paused at any moment: nothing is paid twice, nothing is lost, the next one goes on."""

import functools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from core_base import FILES, write
from crowd import LIMIT, together
from memory_server import MemoryServer

from reconciler import creation, journal

TIMES = 50  # on each database
LEASE, WINDOW = 0.75, 6.0  # seconds, in place of the real ones: a pause of 1 s is what one of 20 s is to 15 s
PAUSE = LEASE * 20 / 15
MOMENTS = 90  # requests begun and answered until everything is done, or a few more
SOON = 0.03  # seconds after such a moment, at most: between two requests
PROJECT = """\
apiVersion: reconciler/v1
kind: Project
metadata: {{name: demo}}
spec:
  platform: shared
  platforms: {{shared: {{type: openai, base_url: "{url}"}}}}
{journal}"""


@pytest.fixture(params=["sqlite", "postgresql"])
def tree(
    request: pytest.FixtureRequest, tmp_path: Path, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Manifests whose journal is empty."""
    where = ""
    if request.param == "postgresql":
        monkeypatch.setenv("TEAM_JOURNAL", request.getfixturevalue("postgres"))
        where = "  journal: {url_env: TEAM_JOURNAL}\n"
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return write(tmp_path / "tree", {**FILES, "project.yaml": PROJECT.format(url=server.url, journal=where)})


@pytest.fixture(autouse=True)
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter leases, for us and for all that we fork."""
    monkeypatch.setattr(journal, "LEASE", LEASE)
    monkeypatch.setattr(creation, "LEASE", LEASE)
    monkeypatch.setattr(creation, "WINDOW", WINDOW)
    monkeypatch.setattr(creation, "doubt", functools.partial(creation.doubt, window=WINDOW))


def another_row(tree: Path, turn: int) -> None:
    row = {
        "messages": [{"role": "user", "content": f"again {turn}"}, {"role": "assistant", "content": "yes"}]
    }
    with (tree / "train.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def events(log: Path) -> Iterator[dict[str, object]]:
    for line in log.read_text().splitlines() if log.exists() else ():
        if line.startswith("{") and line.endswith("}"):
            yield json.loads(line)


def settled(log: Path) -> int:
    """How many passes found nothing left to do."""
    return sum(1 for each in events(log) if each["event"] == "pass.done" and each["settled"])


def until(true: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def strike(server: MemoryServer, chance: random.Random, blow: Callable[[], None]) -> None:
    """Strike at a random moment of a conversation; returns when it is done."""
    done, late = threading.Event(), chance.choice([0.0, chance.uniform(0.0, SOON)])
    moments = iter(range(chance.randrange(MOMENTS), -1, -1))

    def struck() -> None:
        blow()
        done.set()

    def at_request() -> None:
        if next(moments, -1) == 0:
            threading.Timer(late, struck).start() if late else struck()

    server.at_request = at_request
    assert done.wait(LIMIT)


def settles(log: Path, seen: int = 0) -> None:
    """Until a pass has found nothing left to do, after so many others that did."""
    until(lambda: settled(log) > seen, log)


def wakes(pid: int, first: Path, second: Path, alone: bool) -> None:
    """A paused daemon goes on after its lease; `alone`, once the other one has done everything."""
    time.sleep(PAUSE)
    if alone:
        settles(second)
    seen = settled(first)
    os.kill(pid, signal.SIGCONT)
    settles(first, seen)


@pytest.mark.parametrize("seed", [1])
def test_a_daemon_killed_at_any_moment_leaves_nothing_undone_and_nothing_done_twice(
    tree: Path, tmp_path: Path, server: MemoryServer, seed: int
) -> None:
    chance, journal_is_shared = random.Random(seed), "journal" in (tree / "project.yaml").read_text()
    run = ["run", str(tree), "--interval", "0.5"]
    how = [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP] * TIMES

    for turn in range(TIMES):
        another_row(tree, turn)
        said = tmp_path / "said" / str(turn)
        said.mkdir(parents=True)

        first, second = said / "first", said / "second"
        with together(said, first=run) as one:
            pid = one["first"].pid
            assert pid
            strike(server, chance, lambda pid=pid, how=how[turn]: os.kill(pid, how))  # type: ignore[misc]
            with together(said, second=run) as other:
                if how[turn] is signal.SIGSTOP:
                    wakes(pid, first, second, alone=journal_is_shared)
                settles(second)
                other["second"].terminate()
                other["second"].join(LIMIT)
                assert 0 == other["second"].exitcode, second.read_text()

        made = {what: server.count(what) for what in ("files", "fine_tuning/jobs", "evals", "runs")}
        expected = {"files": 2 + turn, "fine_tuning/jobs": 1 + turn, "evals": 1, "runs": 2 + turn}
        assert expected == made, (how[turn], first.read_text(), second.read_text())
        job = server.platform.objects["fine_tuning/jobs"][-1]
        [alias] = server.platform.objects["reconciler/aliases"]
        assert job["fine_tuned_model"] == alias["model"]
