"""A daemon as a process: it ends within two seconds whatever it does, and no long work makes it deaf."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from core_base import write
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
