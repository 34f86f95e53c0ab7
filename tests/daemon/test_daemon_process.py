"""A daemon as a process: it ends within two seconds whatever it does, and no long work makes it deaf."""

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import Any

import faulty_server
import httpx
import pytest
from core_base import edit, write
from daemon_base import PROJECT, running, until
from faulty_server import Fault, FaultyServer, Request, loses_reply, unavailable

from reconciler.journal import Journal
from reconciler.project import DATA

ROWS = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "x"}]}\n'
JOB = """
---
apiVersion: reconciler/v1
kind: Dataset
metadata: {name: large}
spec: {file: large.jsonl, format: chat}
"""

HOLDING = Path(__file__).parent / "holding_trainer.py"


def tree_of(folder: Path, url: str) -> Path:
    tree = write(folder / "manifests")
    (tree / "project.yaml").write_text(PROJECT.format(url=url, more=""))
    return tree


def held(tree: Path) -> list[str]:
    """Who holds a claim."""
    from sqlalchemy import select

    from reconciler.journal import claims

    with Journal.at(tree / DATA / "journal.db").read() as db:
        return [row.holder for row in db.execute(select(claims)) if row.holder]


def events(tree: Path) -> list[dict[str, Any]]:
    return Journal.at(tree / DATA / "journal.db").events()


def jobs_of(server: FaultyServer) -> int:
    return len(httpx.get(f"{server.url}/fine_tuning/jobs").json()["data"])


class Gate:
    """A fault that keeps requests waiting until it is opened."""

    def __init__(self, *, effect: bool = False) -> None:
        self.waiting, self.open, self.effect = 0, False, effect

    async def __call__(self, request: Request) -> None:
        self.waiting += 1
        if self.effect:
            await request.effect()
        while not self.open:
            await asyncio.sleep(0.01)
        if not self.effect:
            await request.application(request.scope, request.receive, request.send)


def only_large(gate: Gate) -> Fault:
    """Keeps what is larger than a few hundred rows waiting."""

    async def fault(request: Request) -> None:
        size = int(dict(request.scope["headers"]).get(b"content-length", b"0"))
        if size > 1 << 20:
            await gate(request)
        else:
            await request.application(request.scope, request.receive, request.send)

    return fault


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_has_nothing_to_do_ends_at_once(tmp_path: Path, number: int) -> None:
    with FaultyServer(tmp_path / "platform").running() as server:
        tree = tree_of(tmp_path, server.url)
        with running(tmp_path / "log", tree, "--interval", "3600") as daemon:
            daemon.settles()
            assert 0 == daemon.stop(number)

    assert "daemon.stopped" == daemon.events[-1]["event"]


def test_a_call_in_flight_is_finished_and_its_claim_given_back(tmp_path: Path) -> None:
    gate = Gate()
    with FaultyServer(tmp_path / "platform").running() as server:
        tree = tree_of(tmp_path, server.url)
        server.faults = {"POST fine_tuning/jobs": [gate]}
        with running(tmp_path / "log", tree, "--interval", "3600") as daemon:
            until(lambda: gate.waiting == 1)
            daemon.process.send_signal(signal.SIGTERM)
            gate.open = True
            assert 0 == daemon.process.wait(30)

        assert [] == held(tree)
        assert ["made"] == [e["event"] for e in events(tree) if e["address"] == "FineTuneJob/tuned"]


def test_a_call_that_hangs_is_left_its_claim_is_given_back_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    gate = Gate(effect=True)
    log = tmp_path / "log"
    with FaultyServer(tmp_path / "platform").running() as server:
        tree = tree_of(tmp_path, server.url)
        server.faults = {"POST fine_tuning/jobs": [gate]}
        with running(log, tree, "--interval", "3600") as daemon:
            until(lambda: gate.waiting == 1)
            began = time.monotonic()
            daemon.process.send_signal(signal.SIGTERM)
            until(lambda: held(tree) == [])
            gave = time.monotonic() - began
            assert 0 == daemon.process.wait(30)
        with running(log, tree, "--interval", "3600") as daemon:
            daemon.until("pass.done", lambda each: bool(each["settled"]), after=len(daemon.events))
        gate.open = True
        jobs = jobs_of(server)

    assert 1 == jobs
    assert gave < 30  # two seconds, on a machine that does nothing else
    assert 1 == next(e["claims"] for e in daemon.events if e["event"] == "claims.released")


def test_a_large_upload_makes_no_edit_wait_and_is_broken_off_by_a_stop(tmp_path: Path) -> None:
    gate = Gate()
    with FaultyServer(tmp_path / "platform").running() as server:
        tree = tree_of(tmp_path, server.url)
        (tree / "large.yaml").write_text(JOB.removeprefix("\n---\n"))
        (tree / "large.jsonl").write_text((ROWS % ("y" * 60_000)) * 100)
        server.always = {"POST files": only_large(gate)}
        with running(tmp_path / "log", tree, "--interval", "3600") as daemon:
            until(lambda: gate.waiting == 1)
            daemon.until("pass.done", lambda each: each["made"] == 0 and not each["settled"])
            text = (tree / "train.yaml").read_text()
            (tree / "train.yaml").write_text(text.replace("n_epochs: 2", "n_epochs: 3"))
            until(lambda: server.asked["POST fine_tuning/jobs"] == 2)
            assert 1 == gate.waiting
            assert 0 == daemon.stop()
        gate.open = True

    assert [] == held(tree)
    assert "being uploaded" not in daemon.log.read_text()


def test_a_platform_that_comes_back_is_taken_up_again(tmp_path: Path) -> None:
    with FaultyServer(tmp_path / "platform").running() as server:
        tree = tree_of(tmp_path, server.url)
        server.always = {"GET files": unavailable, "GET models": unavailable}
        with running(tmp_path / "log", tree, "--interval", "1") as daemon:
            unseen = daemon.until("pass.done", lambda each: bool(each["unseen"]))["unseen"]
            server.always = {}
            daemon.settles()

    assert {"Dataset", "Model"} == set(unseen)


def test_a_lost_reply_is_found_by_the_daemon_itself(tmp_path: Path) -> None:
    with FaultyServer(tmp_path / "platform").running() as server:
        tree = tree_of(tmp_path, server.url)
        server.faults = {"POST fine_tuning/jobs": [loses_reply]}
        with running(tmp_path / "log", tree, "--interval", "3600") as daemon:
            daemon.settles()
            jobs = jobs_of(server)

    assert 1 == jobs


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No job trains before this file is there."""
    path = tmp_path / "go"
    monkeypatch.setattr(faulty_server, "TRAINER", (sys.executable, str(HOLDING), str(path)))
    return path


def test_while_something_works_nothing_else_is_asked(tmp_path: Path, go: Path) -> None:
    with FaultyServer(tmp_path / "platform").running() as server:
        tree = tree_of(tmp_path, server.url)
        with running(tmp_path / "log", tree, "--interval", "3600") as daemon:
            until(lambda: jobs_asked(server) >= 5, daemon.log.read_text)
            lists = [server.asked[f"GET {name}"] for name in ("files", "evals", "models", "fine_tuning/jobs")]
            before = jobs_asked(server)
            until(lambda: jobs_asked(server) >= before + 3, daemon.log.read_text)
            again = [server.asked[f"GET {name}"] for name in ("files", "evals", "models", "fine_tuning/jobs")]
            go.touch()
            daemon.settles()

    assert lists == again


@pytest.mark.parametrize(
    "policy, ends", [("cancel", ["cancelled", "succeeded"]), ("keep", ["succeeded"] * 2)]
)
def test_a_real_job_that_is_wanted_no_more_follows_its_policy(
    tmp_path: Path, go: Path, policy: str, ends: list[str]
) -> None:
    with FaultyServer(tmp_path / "platform").running() as server:
        tree = tree_of(tmp_path, server.url)
        (tree / "promote.yaml").unlink()
        with running(tmp_path / "log", tree, "--interval", "3600") as daemon:
            until(lambda: len(statuses(server)) == 1, daemon.log.read_text)
            edit(tree / "train.yaml", "  method:", f"  on_supersede: {policy}\n  seed: 7\n  method:")
            until(lambda: len(statuses(server)) == 2, daemon.log.read_text)
            if policy == "cancel":
                until(lambda: "cancelled" in statuses(server), daemon.log.read_text)
            go.touch()
            daemon.settles()
            until(lambda: statuses(server) == ends, daemon.log.read_text)


def jobs_asked(server: FaultyServer) -> int:
    return sum(n for what, n in server.asked.items() if what.startswith("GET fine_tuning/jobs/ftjob"))


def statuses(server: FaultyServer) -> list[str]:
    """Of every job, the oldest first."""
    return [str(job["status"]) for job in httpx.get(f"{server.url}/fine_tuning/jobs").json()["data"]][::-1]
