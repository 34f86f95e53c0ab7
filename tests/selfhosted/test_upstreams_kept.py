"""What outlives an upstream's answer: its pace, the cache, and a server that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from eval_base import ENDED, EQUAL, SCHEMA, completions, words
from server_base import Server, until
from upstream_stub import Reply, Stub, question, refused, said

from reconciler.selfhosted.engine import Answer
from reconciler.selfhosted.upstream.upstreamcache import LIFE, Cache
from reconciler.selfhosted.upstream.upstreampace import START, Pace

KEY = "sk-canary-77aa"


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub().running() as running:
        yield running


@pytest.fixture
def process(new_server: Any, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server process that has an upstream; not started yet."""
    server: Server = new_server()
    entry = {"pattern": "far-*", "base_url": stub.url, "api_key_env": "FAR_KEY"}
    (server.data / "upstreams.json").write_text(json.dumps([entry]))
    monkeypatch.setenv("FAR_KEY", KEY)
    return server


def start(server: Server) -> Server:
    return server.start("--upstreams", str(server.data / "upstreams.json"))


def begin(server: Server, count: int) -> Any:
    source: Any = completions(words(count), model="far-model")
    config: Any = {"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True}
    criteria: Any = [EQUAL]
    client = server.client()
    made = client.evals.create(name="words", data_source_config=config, testing_criteria=criteria)
    return client.evals.runs.create(made.id, data_source=source)


def ended(server: Server, run: Any) -> Any:
    def look() -> Any:
        found = server.client().evals.runs.retrieve(run.id, eval_id=run.eval_id)
        return found if found.status in ENDED else None

    return until(look)


def cached(data: Path) -> int:
    with sqlite3.connect(f"file:{data / 'upstreams.db'}?mode=ro", uri=True) as database:
        return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])


def test_a_run_whose_server_is_killed_asks_nothing_again_that_was_answered(
    process: Server, stub: Stub
) -> None:
    answered: set[str] = set()

    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        if len(answered) == 100:
            return await stub.stuck(request, body)
        answered.add(question(body))
        return said(question(body))

    stub.says = says
    run = begin(start(process), 300)
    until(lambda: stub.in_flight and cached(process.data) == 100)
    process.kill()
    in_flight = len(stub.bodies) - 100

    asked_before, stub.bodies, answered_before = len(stub.bodies), [], set(answered)
    stub.says = lambda request, body: _echo(body)
    run = ended(start(process), run)

    assert ("completed", 300) == (run.status, run.result_counts.passed)
    assert 0 < in_flight == asked_before - 100
    assert 200 == len(stub.bodies)
    assert set() == answered_before & {question(body) for body in stub.bodies}


async def _echo(body: dict[str, Any]) -> Reply:
    return said(question(body))


def test_a_refused_key_is_in_no_log_no_error_and_no_file(process: Server, stub: Stub) -> None:
    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        shown = request.headers["authorization"]
        return refused(401 if question(body) == "w1" else 400, f"Incorrect API key provided: {shown}")

    stub.says = says
    run = ended(start(process), begin(process, 2))

    assert (2, f"Bearer {KEY}") == (run.result_counts.errored, stub.headers[0]["authorization"])
    files = [file for file in process.data.rglob("*") if file.is_file()]
    assert [] == [file for file in files if KEY.encode() in file.read_bytes()]


def test_a_server_does_not_start_without_the_key_that_its_upstreams_need(
    process: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAR_KEY")
    arguments = ["--data", str(process.data), "--upstreams", str(process.data / "upstreams.json")]

    ended = subprocess.run([*process.command(), *arguments], capture_output=True, text=True, timeout=60)

    assert 1 == ended.returncode
    assert "the environment variable FAR_KEY is not set; set it, or leave api_key_env out" in ended.stderr


# The pace


async def _rounds(pace: Pace, *troubles: bool) -> list[int]:
    """How many were sent in each round of answers, or of refusals, while a thousand wait."""
    waiting = [asyncio.create_task(pace.enter()) for _ in range(1000)]
    sizes = []
    for trouble in troubles:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        entered = [each for each in waiting if each.done()]
        sizes.append(len(entered))
        waiting = [each for each in waiting if not each.done()]
        for each in entered:
            pace.leave_in_trouble(each.result()) if trouble else pace.leave_well()
    return sizes


def test_the_room_grows_fivefold_until_the_first_trouble_halves_it_and_then_by_about_one() -> None:
    sizes = asyncio.run(_rounds(Pace(128), False, False, False, True, False, False, False, True, False))

    assert [START, 100, 128, 128, 64, 64, 65, 66, 33] == sizes


async def _silent_rounds(pace: Pace, took: float | None) -> list[int]:
    """
    How many have been sent after each turn of the loop, when nobody answers and a thousand wait.

    A connection that took so many seconds is made after the first.
    """
    waiting = [asyncio.create_task(pace.enter()) for _ in range(1000)]
    sizes = []
    for turn in range(4):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sizes.append(sum(each.done() for each in waiting))
        if turn == 0 and took is not None:
            pace.connected(took)
    for each in waiting:
        each.cancel()
    return sizes


def test_silence_after_the_first_connection_makes_room_as_an_answer_would() -> None:
    async def sent() -> list[list[int]]:
        heard = Pace(128, quiet=0)
        await heard.enter()
        heard.leave_well()
        silent, unconnected = Pace(128, quiet=0), Pace(128, quiet=0)
        return [
            await _silent_rounds(silent, 0),
            await _silent_rounds(heard, 0),
            await _silent_rounds(unconnected, None),
        ]

    silent, heard, unconnected = asyncio.run(sent())

    assert (START, 128) == (silent[0], silent[-1])
    assert [START] * 4 == heard == unconnected


def test_no_silence_counts_that_is_shorter_than_connecting_took() -> None:
    assert [START] * 4 == asyncio.run(_silent_rounds(Pace(128, quiet=0), 60))


def test_room_that_nobody_needed_does_not_grow() -> None:
    async def room() -> int:
        pace = Pace(64)
        for _ in range(100):
            await pace.enter()
            pace.leave_well()
        return pace.room

    assert START == asyncio.run(room())


def test_nothing_is_sent_before_the_pause_is_over_and_whoever_gave_up_takes_no_turn() -> None:
    async def waited() -> tuple[float, int]:
        pace, loop = Pace(1), asyncio.get_running_loop()
        began = loop.time()
        pace.leave_in_trouble(await pace.enter(), 0.05)
        gone, next_ = asyncio.create_task(pace.enter()), asyncio.create_task(pace.enter())
        await asyncio.sleep(0)
        gone.cancel()
        await next_
        took = loop.time() - began
        pace.leave_well()
        return took, await asyncio.wait_for(pace.enter(), 10)

    took, troubles = asyncio.run(waited())

    assert took >= 0.05
    assert 1 == troubles


# The cache


def answer(text: str) -> Answer:
    return Answer(text, "stop", None, 1, 1, None, 2.5)


def test_the_cache_gives_what_it_was_given_after_a_restart_until_it_is_a_month_old(tmp_path: Path) -> None:
    async def told() -> list[dict[bytes, Answer]]:
        first = Cache(tmp_path / "c.db", 1 << 20, lambda: 1000.0)
        await asyncio.gather(*(first.put(bytes([n]), answer(f"a{n}")) for n in range(5)))
        await first.close()
        found = []
        for at in (1000.0 + LIFE - 1, 1000.0 + LIFE + 1):
            again = Cache(tmp_path / "c.db", 1 << 20, lambda at=at: at)  # type: ignore[misc]
            found.append(await again.get([b"\x03", b"\x09"]))
            await again.close()
        return found

    assert [{b"\x03": answer("a3")}, {}] == asyncio.run(told())


def test_the_cache_forgets_the_oldest_when_it_is_full(tmp_path: Path) -> None:
    async def told() -> dict[bytes, Answer]:
        cache = Cache(tmp_path / "c.db", 100_000)
        keys = [n.to_bytes(2, "big") for n in range(1000)]
        for key in keys:
            await cache.put(key, answer("x" * 1000))
        found = await cache.get(keys)
        await cache.close()
        return found

    kept = asyncio.run(told())

    assert 60 < len(kept) < 100
    assert max(kept) == (999).to_bytes(2, "big")
    assert min(kept) == (1000 - len(kept)).to_bytes(2, "big")
    assert os.path.getsize(tmp_path / "c.db") < 300_000


def test_a_cache_that_cannot_be_read_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "c.db").write_bytes(b"no database at all" * 1000)

    async def told() -> dict[bytes, Answer]:
        cache = Cache(tmp_path / "c.db", 1 << 20)
        assert {} == await cache.get([b"k"])
        await cache.put(b"k", answer("a"))
        found = await cache.get([b"k"])
        await cache.close()
        return found

    assert {b"k": answer("a")} == asyncio.run(told())
