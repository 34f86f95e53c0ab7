"""Runs that are killed, resumed, repeated and large."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import eval_base
import pytest
from eval_base import FakeEngine, Server, make_eval, run_of, sometimes, words
from openai import OpenAI

ROWS = 300  # five chunks, the last one short
JUDGE = {
    "type": "score_model",
    "name": "judge",
    "model": "tiny",
    "input": [{"role": "user", "content": "Rate {{sample.output_text}}"}],
    "range": [0, 1],
    "pass_threshold": 0.5,
}


def finished(data: Path, engine: FakeEngine) -> Iterator[Any]:
    with Server(data, engine).running() as server:
        yield server.ended(run_of(server, make_eval(server).id, words(ROWS)))


@pytest.fixture
def uninterrupted(tmp_path: Path) -> Any:
    yield from finished(tmp_path / "uninterrupted", FakeEngine(sometimes))


class Killable:
    """A server in a process of its own, whose engine stops answering at its fourth batch."""

    def __init__(self, data: Path) -> None:
        data.mkdir()
        command = [sys.executable, eval_base.__file__, str(data), "4"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.client = OpenAI(base_url=f"http://127.0.0.1:{self._says()}/v1", api_key="none", max_retries=0)

    def _says(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip().isdigit() or line.strip() == "blocked":
                return line.strip()
        raise AssertionError("the server ended")

    def kill_when_blocked(self) -> None:
        assert self._says() == "blocked"
        self.process.kill()
        assert -signal.SIGKILL == self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.client.close()


def test_a_run_whose_server_was_killed_goes_on_and_ends_with_the_same_numbers(
    tmp_path: Path, uninterrupted: Any
) -> None:
    data = tmp_path / "data"
    killed = Killable(data)
    run = run_of(killed, make_eval(killed).id, words(ROWS))  # type: ignore[arg-type]
    killed.kill_when_blocked()
    before = [json.loads(line) for line in (data / "asked.jsonl").read_text().splitlines()]

    engine = FakeEngine(sometimes)
    with Server(data, engine).running() as server:
        run = server.ended(server.client.evals.runs.retrieve(run.id, eval_id=run.eval_id))
        items = server.items(run, limit=100)

    after = [[[eval_base.echo(ask), ask.seed] for ask in batch] for batch in engine.batches]
    again = [batch for batch in after if batch in before]
    assert 5 == len(before) + len(after) - len(again)
    assert before[0] not in after  # the first chunk was stored before the fourth was asked
    assert before[3] in after  # the batch that was in flight is made again, the same
    assert list(range(ROWS)) == [item.datasource_item_id for item in items]
    assert uninterrupted.result_counts == run.result_counts
    assert uninterrupted.per_model_usage == run.per_model_usage
    assert 0 < run.result_counts.passed < ROWS


def test_a_server_that_stops_lets_another_go_on_at_once(tmp_path: Path, uninterrupted: Any) -> None:
    data = tmp_path / "data"
    stuck = FakeEngine(sometimes)
    stuck.sticks_at = 2
    with Server(data, stuck).running() as server:
        run = run_of(server, make_eval(server).id, words(ROWS))
        assert stuck.stuck.wait(10)

    with Server(data, FakeEngine(sometimes)).running() as server:
        run = server.ended(server.client.evals.runs.retrieve(run.id, eval_id=run.eval_id))

    assert uninterrupted.result_counts == run.result_counts
    assert 1 == len(stuck.left)


def test_the_same_run_asks_the_same_batches_and_no_two_items_share_a_seed(tmp_path: Path) -> None:
    asked = []
    for attempt in ("first", "second"):
        engine = FakeEngine(sometimes)
        list(finished(tmp_path / attempt, engine))
        asked.append(engine.batches)

    first, second = asked
    assert [64, 64, 64, 64, 44] == [len(batch) for batch in first]
    assert [[(ask.messages, ask.seed) for ask in batch] for batch in first] == [
        [(ask.messages, ask.seed) for ask in batch] for batch in second
    ]
    assert ROWS == len({ask.seed for batch in first for ask in batch})


def test_a_judge_that_is_asked_again_after_a_restart_is_asked_in_the_same_batches(tmp_path: Path) -> None:
    def says(ask: Any) -> str:
        return json.dumps({"steps": [], "result": 1}) if ask.response_format else sometimes(ask)

    def judged(engine: FakeEngine) -> list[list[Any]]:
        return [
            [ask.messages for ask in batch]
            for batch in engine.batches
            if batch[0].response_format is not None
        ]

    whole, first, second = FakeEngine(says), FakeEngine(says), FakeEngine(says)
    with Server(tmp_path / "whole", whole).running() as server:
        server.ended(run_of(server, make_eval(server, JUDGE).id, words(ROWS)))
    first.sticks_at = 5
    with Server(tmp_path / "data", first).running() as server:
        run = run_of(server, make_eval(server, JUDGE).id, words(ROWS))
        assert first.stuck.wait(10)
    with Server(tmp_path / "data", second).running() as server:
        run = server.ended(server.client.evals.runs.retrieve(run.id, eval_id=run.eval_id))

    assert ROWS == run.result_counts.passed
    assert [batch for batch in judged(first) + judged(second) if batch not in judged(whole)] == []
    assert 5 == len(judged(whole))


def test_several_runs_are_worked_on_at_once_and_all_end(tmp_path: Path) -> None:
    with Server(tmp_path / "data", FakeEngine(sometimes)).running() as server:
        made = make_eval(server)
        runs = [run_of(server, made.id, words(100)) for _ in range(7)]

        ended = [server.ended(run) for run in runs]

    assert {"completed"} == {run.status for run in ended}
    assert 1 == len({run.result_counts.passed for run in ended})
