"""Batches through the official SDK: what becomes of their requests, whatever becomes of the server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_base import FakeEngine, Server
from openai import AsyncOpenAI, BadRequestError, ConflictError, NotFoundError, OpenAI
from server_base import until

from reconciler.selfhosted.engine import Ask, EngineError

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
ENDED = ("completed", "failed", "expired", "cancelled")


class Clock:
    """A time that only moves when it is told to; about now, for the sweep compares it with files."""

    time = time.time()

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path, clock: Clock) -> Iterator[Server]:
    with Server(tmp_path / "data", FakeEngine(), now=clock).running() as running:
        yield running


def chat(id: str, text: str | None = None, **more: Any) -> dict[str, Any]:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text or id}], **more}
    return {"custom_id": id, "method": "POST", "url": CHAT, "body": body}


def begin(client: OpenAI, rows: list[Any], endpoint: Any = CHAT, **more: Any) -> Any:
    lines = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    file = client.files.create(file=("rows.jsonl", lines.encode()), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def ended(client: OpenAI, batch: Any) -> Any:
    def end() -> Any:
        found = client.batches.retrieve(batch.id)
        return found if found.status in ENDED else None

    return until(end)


def lines(client: OpenAI, file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    found = [json.loads(line) for line in client.files.content(file).text.splitlines()]
    return {line["custom_id"]: line for line in found}


def test_every_request_is_answered_in_a_file(server: Server, clock: Clock) -> None:
    client = server.client
    rows = [chat(f"r{n}", f"word{n} more") for n in range(100)]

    batch = begin(client, rows, metadata={"a": "b"})
    done = ended(client, batch)

    assert ("validating", CHAT, {"a": "b"}, int(clock.time) + 86400) == (
        batch.status,
        batch.endpoint,
        batch.metadata,
        batch.expires_at,
    )
    assert ("completed", "tiny", None, None) == (done.status, done.model, done.errors, done.error_file_id)
    assert (100, 100, 0) == (
        done.request_counts.total,
        done.request_counts.completed,
        done.request_counts.failed,
    )
    assert (200, 200, 400) == (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens)
    assert done.in_progress_at and done.finalizing_at and done.completed_at
    output = lines(client, done.output_file_id)
    assert {row["custom_id"] for row in rows} == set(output)
    answer = output["r7"]["response"]
    assert (200, "word7 more") == (answer["status_code"], answer["body"]["choices"][0]["message"]["content"])
    assert answer["request_id"].startswith("req_") and output["r7"]["id"].startswith("batch_req_")
    kept = client.files.retrieve(done.output_file_id)
    assert ("batch_output", f"{batch.id}_output.jsonl") == (kept.purpose, kept.filename)
    assert int(clock.time) + 30 * 86400 == kept.expires_at
    assert not (server.here.data / "batches" / batch.id).exists()


def test_a_request_that_is_refused_goes_to_the_file_of_errors(server: Server) -> None:
    client = server.client
    server.engine.says = lambda ask: (
        EngineError("context_length_exceeded", "too long") if ask.messages[-1]["content"] == "b" else "ok"
    )

    done = ended(client, begin(client, [chat("a"), chat("b"), chat("c", temperature=9)]))

    assert ("completed", 1, 2) == (done.status, done.request_counts.completed, done.request_counts.failed)
    errors = lines(client, done.error_file_id)
    assert {"b", "c"} == set(errors)
    assert "too long" == errors["b"]["response"]["body"]["error"]["message"]
    assert (400, "temperature") == (
        errors["c"]["response"]["status_code"],
        errors["c"]["response"]["body"]["error"]["param"],
    )
    assert {"a"} == set(lines(client, done.output_file_id))


@pytest.mark.parametrize(
    ("url", "body", "tokens"),
    [
        (RESPONSES, {"model": "tiny", "input": "one two"}, 4),
        (EMBEDDINGS, {"model": "tiny", "input": "ab"}, 2),
    ],
)
def test_other_endpoints_are_answered_too(server: Server, url: str, body: Any, tokens: int) -> None:
    row = {"custom_id": "a", "method": "POST", "url": url, "body": body}

    done = ended(server.client, begin(server.client, [row], endpoint=url))

    answer = lines(server.client, done.output_file_id)["a"]["response"]["body"]
    assert {RESPONSES: "response", EMBEDDINGS: "list"}[url] == answer["object"]
    assert tokens == done.usage.total_tokens


@pytest.mark.parametrize(
    ("rows", "codes"),
    [
        ([], {"empty_file"}),
        (["{", chat("a")], {"invalid_json_line"}),
        ([chat("a"), chat("a")], {"duplicate_custom_id"}),
        ([chat("a"), chat("b") | {"url": RESPONSES}], {"invalid_url"}),
        (
            [chat("a") | {"method": "GET"}, chat("b") | {"custom_id": 1}],
            {"invalid_method", "missing_required_parameter"},
        ),
        ([chat("a"), chat("b", model="other")], {"mismatched_model"}),
        ([chat("a", model="nobody")], {"model_not_found"}),
        ([chat("a", stream=True)], {"invalid_request"}),
        ([chat("a") | {"body": 1}], {"missing_required_parameter"}),
    ],
)
def test_a_file_that_is_no_batch_fails_with_every_reason(
    server: Server, rows: list[Any], codes: set[str]
) -> None:
    done = ended(server.client, begin(server.client, [*rows, ""]))

    assert ("failed", codes) == (done.status, {error.code for error in done.errors.data})
    assert done.failed_at and done.output_file_id is None
    assert not server.engine.batches


def test_what_can_be_known_at_once_is_refused_at_once(server: Server) -> None:
    client = server.client
    other = client.files.create(file=("a.jsonl", b"{}"), purpose="evals").id

    for wrong, says in (
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-x"}, "does not exist"),
        ({"input_file_id": other}, "purpose 'evals'"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, "seconds"),
        ({"metadata": {"a": 1}}, "not text"),
    ):
        asked: Any = {"input_file_id": other, "endpoint": CHAT, "completion_window": "24h", **wrong}
        with pytest.raises(BadRequestError, match=says):
            client.batches.create(**asked)
    assert [] == list(client.batches.list())


def test_an_alias_means_what_it_meant_when_the_batch_began(server: Server) -> None:
    client = server.client
    client.post("/reconciler/aliases", body={"name": "live", "model": "tiny"}, cast_to=object)

    done = ended(client, begin(client, [chat("a", model="live")]))

    assert "tiny" == done.model == lines(client, done.output_file_id)["a"]["response"]["body"]["model"]


def test_a_cancelled_batch_keeps_what_is_done(server: Server) -> None:
    client = server.client

    def says(ask: Ask) -> str:
        server.engine.sticks_at = 0 if ask.messages[-1]["content"] == "stuck" else None
        return "ok"

    server.engine.says = says
    batch = begin(client, [chat("a"), chat("b"), chat("stuck")])
    until(server.engine.stuck.is_set)
    with pytest.raises(ConflictError, match=batch.id):
        client.files.delete(batch.input_file_id)

    cancelling = client.batches.cancel(batch.id)
    done = ended(client, batch)

    assert "cancelling" == cancelling.status and cancelling.cancelling_at
    assert ("cancelled", 3, 2) == (done.status, done.request_counts.total, done.request_counts.completed)
    assert {"a", "b"} == set(lines(client, done.output_file_id))
    assert server.engine.was_left.wait(5)
    with pytest.raises(BadRequestError, match="cancelled already"):
        client.batches.cancel(batch.id)


def test_after_a_day_what_is_not_done_has_expired(server: Server, clock: Clock) -> None:
    client = server.client

    def says(ask: Ask) -> str:
        server.engine.sticks_at = 0 if ask.messages[-1]["content"] == "stuck" else None
        return "ok"

    server.engine.says = says
    batch = begin(
        client, [chat("a"), chat("stuck")], output_expires_after={"anchor": "created_at", "seconds": 3600}
    )
    until(server.engine.stuck.is_set)
    clock.time += 86400

    done = ended(client, batch)

    assert ("expired", 1, 1) == (done.status, done.request_counts.completed, done.request_counts.failed)
    assert {"a"} == set(lines(client, done.output_file_id))
    error = lines(client, done.error_file_id)["stuck"]
    assert ("batch_expired", None) == (error["error"]["code"], error["response"])
    assert int(clock.time) + 3600 == client.files.retrieve(done.output_file_id).expires_at


def test_a_batch_goes_on_after_a_kill_and_repeats_nothing_that_is_done(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = [chat(f"r{n}", store=True) for n in range(20)]
    rows.insert(10, chat("stuck"))

    first, client = start(data, "sticks")
    batch = begin(client, rows)
    assert first.stdout is not None
    assert b"blocked\n" == first.stdout.readline()
    output = data / "batches" / batch.id / "output.jsonl"
    until(lambda: output.exists() and 20 == len(output.read_text().splitlines()))
    first.kill()
    first.wait()
    with output.open("a") as torn:
        torn.write('{"id": "batch_req_torn", "custom_id": "stu')
    second, client = start(data, "answers")
    done = ended(client, batch)
    answers = lines(client, done.output_file_id)
    stored = list(client.chat.completions.list(limit=100))
    second.kill()
    second.wait()

    assert ("completed", 21) == (done.status, done.request_counts.completed)
    assert {row["custom_id"] for row in rows} == set(answers)
    answered = (data / "answered").read_text().split()
    assert sorted(row["custom_id"] for row in rows) == sorted(answered)
    assert 20 == len(stored)


def start(data: Path, how: str) -> tuple[subprocess.Popen[bytes], OpenAI]:
    program = Path(__file__).parent / "batch_server.py"
    process = subprocess.Popen([sys.executable, str(program), str(data), how], stdout=subprocess.PIPE)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    return process, OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)


def test_batches_are_listed_newest_first(server: Server) -> None:
    client = server.client
    ids = [begin(client, [chat("a")]).id for _ in range(3)]

    assert ids[::-1] == [batch.id for batch in client.batches.list(limit=2)]
    with pytest.raises(NotFoundError, match="batch_x"):
        client.batches.retrieve("batch_x")


def test_the_asynchronous_sdk_reads_the_same(server: Server) -> None:
    batch = begin(server.client, [chat("a")])

    async def read() -> list[str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return [each.id async for each in client.batches.list()]

    assert [batch.id] == asyncio.run(read())
