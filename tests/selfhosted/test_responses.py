"""Responses through the official SDK, over a fake engine."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_base import FakeEngine, Server
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from pydantic import BaseModel

from reconciler.selfhosted.engine import Answer, Ask, EngineError

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"at": "Bern"}'}}
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "of a place",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    "strict": True,
}


class Engine(FakeEngine):
    """Remembers what it was asked; calls a tool when there is one and nobody has called it yet."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Ask] = []

    async def stream(self, ask: Ask) -> AsyncIterator[str | Answer]:
        self.asked.append(ask)
        if ask.tools and ask.messages[-1]["role"] != "tool":
            yield "wait"
            yield Answer("wait", "tool_calls", [CALL], 5, 7, None)
            return
        async for piece in super().stream(ask):
            yield piece


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", Engine()).running() as running:
        yield running


def sent(server: Server) -> list[tuple[str, Any]]:
    return [(message["role"], message.get("content")) for message in server.engine.asked[-1].messages]


def test_a_string_is_answered_and_remembered(server: Server) -> None:
    responses = server.client.responses

    made = responses.create(
        model="tiny", input="one two", instructions="be brief", metadata={"a": "b"}, temperature=0.5
    )

    assert [("system", "be brief"), ("user", "one two")] == sent(server)
    assert ("one two", "completed", "tiny", {"a": "b"}) == (
        made.output_text,
        made.status,
        made.model,
        made.metadata,
    )
    assert made.usage is not None
    assert (2, 2, 4) == (made.usage.input_tokens, made.usage.output_tokens, made.usage.total_tokens)
    assert made == responses.retrieve(made.id)
    [item] = responses.input_items.list(made.id)
    assert "message" == item.type
    assert "one two" == item.to_dict()["content"][0]["text"]  # type: ignore[index]

    responses.delete(made.id)
    with pytest.raises(NotFoundError, match=made.id):
        responses.retrieve(made.id)


def test_a_conversation_goes_on_without_its_instructions(server: Server) -> None:
    responses = server.client.responses
    first = responses.create(model="tiny", input="one", instructions="be brief")
    second = responses.create(model="tiny", input="two", previous_response_id=first.id)
    responses.delete(first.id)

    third = responses.create(model="tiny", input="three", previous_response_id=second.id, store=False)

    said = [("user", "one"), ("assistant", "one"), ("user", "two"), ("assistant", "two"), ("user", "three")]
    assert said == sent(server)
    assert second.id == third.previous_response_id
    with pytest.raises(BadRequestError, match="not found"):
        responses.create(model="tiny", input="four", previous_response_id=third.id)


def test_a_function_is_called_and_its_output_read(server: Server) -> None:
    responses = server.client.responses
    asked = responses.create(model="tiny", input="weather?", tools=[WEATHER])
    [message, call] = asked.output

    answered = responses.create(
        model="tiny",
        previous_response_id=asked.id,
        input=[{"type": "function_call_output", "call_id": "call_1", "output": "rain"}],
        tools=[WEATHER],
    )

    assert "function_call" == call.type and "message" == message.type
    assert ("weather", '{"at": "Bern"}', "call_1") == (call.name, call.arguments, call.call_id)
    assert "rain" == answered.output_text
    messages = server.engine.asked[-1].messages
    assert [CALL] == messages[1]["tool_calls"]
    assert {"role": "tool", "tool_call_id": "call_1", "content": "rain"} == messages[2]
    [tool] = server.engine.asked[-1].tools
    assert {key: value for key, value in WEATHER.items() if key != "type"} == tool["function"]


def test_items_of_every_kind_become_messages(server: Server) -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    items: Any = [
        {"role": "developer", "content": "rules"},
        {"role": "user", "content": parts},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ok"}]},
        call,
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "5"}]},
    ]

    made = server.client.responses.create(model="tiny", input=items)

    text = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    expected = [("system", "rules"), ("user", text), ("assistant", "ok"), ("tool", "5")]
    assert expected == sent(server)
    assert "c" == server.engine.asked[-1].messages[2]["tool_calls"][0]["id"]
    kept = list(server.client.responses.input_items.list(made.id, limit=4, order="asc"))
    assert [item.get("type", "message") for item in items] == [item.type for item in kept]
    assert 6 == len({item.to_dict()["id"] for item in kept})


def test_a_stream_tells_of_every_item_in_order(server: Server) -> None:
    events: Any = list(server.client.responses.create(model="tiny", input="w", tools=[WEATHER], stream=True))

    begun = ["response.created", "response.in_progress"]
    message = ["response.output_item.added", "response.content_part.added", "response.output_text.delta"]
    message += ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    call = ["response.output_item.added", "response.function_call_arguments.delta"]
    call += ["response.function_call_arguments.done", "response.output_item.done"]
    assert [*begun, *message, *call, "response.completed"] == [event.type for event in events]
    assert list(range(len(events))) == [event.sequence_number for event in events]
    assert events[-1].response == server.client.responses.retrieve(events[0].response.id)


def test_the_sdks_stream_helper_rebuilds_the_response(server: Server) -> None:
    with server.client.responses.stream(model="tiny", input="one two three") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()

    assert ("one two three", "one two three") == (text, final.output_text)


class Colour(BaseModel):
    name: str


def test_structured_output_reaches_the_engine_and_is_parsed(server: Server) -> None:
    server.engine.says = lambda ask: json.dumps({"name": "red"})

    parsed = server.client.responses.parse(model="tiny", input="which?", text_format=Colour)

    assert Colour(name="red") == parsed.output_parsed
    format = server.engine.asked[-1].response_format
    assert "json_schema" == format["type"]
    assert ("Colour", True) == (format["json_schema"]["name"], format["json_schema"]["strict"])
    assert ["name"] == list(format["json_schema"]["schema"]["properties"])


def test_parameters_reach_the_engine(server: Server) -> None:
    server.client.responses.create(
        model="tiny",
        input="x",
        max_output_tokens=11,
        top_p=0.5,
        top_logprobs=2,
        tools=[WEATHER],
        tool_choice="none",
    )

    ask = server.engine.asked[-1]
    assert (11, 0.5, 2, None) == (ask.max_tokens, ask.top_p, ask.logprobs, ask.tools)


def test_an_answer_that_was_cut_off_is_incomplete(server: Server) -> None:
    async def cut(ask: Ask) -> AsyncIterator[str | Answer]:
        yield "one"
        yield Answer("one", "length", None, 1, 1, None)

    server.engine.stream = cut
    made = server.client.responses.create(model="tiny", input="x")
    events = list(server.client.responses.create(model="tiny", input="x", stream=True))

    assert made.incomplete_details is not None
    assert ("incomplete", "max_output_tokens") == (made.status, made.incomplete_details.reason)
    assert "response.incomplete" == events[-1].type


def test_an_error_is_a_status_before_the_first_word_and_an_event_after(server: Server) -> None:
    async def breaks(ask: Ask) -> AsyncIterator[str | Answer]:
        yield "one"
        raise EngineError("engine_failed", "out of memory")

    server.engine.says = lambda ask: EngineError("context_length_exceeded", "the prompt is too long")
    with pytest.raises(BadRequestError, match="too long") as refused:
        server.client.responses.create(model="tiny", input="x", stream=True)
    server.engine.stream = breaks
    events: Any = list(server.client.responses.create(model="tiny", input="x", stream=True))

    assert "input" == refused.value.param
    assert ("response.failed", "out of memory") == (events[-1].type, events[-1].response.error.message)
    with pytest.raises(NotFoundError):
        server.client.responses.retrieve(events[-1].response.id)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"input": None}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, None),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"background": True, "store": False}, "background"),
        ({"background": True, "stream": True}, "background"),
        ({"background": "yes"}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [WEATHER], "tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"truncation": "auto"}, "truncation"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"store": "yes"}, "store"),
        ({"instructions": 5}, "instructions"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    server: Server, wrong: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(BadRequestError) as refused:
        server.client.responses.create(**{"model": "tiny", "input": "x", **wrong})

    assert param in (None, refused.value.param)
    assert not server.engine.asked


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "weather"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]},
    ],
)
def test_a_call_can_be_forced(server: Server, choice: Any) -> None:
    server.client.responses.create(model="tiny", input="x", tools=[WEATHER], tool_choice=choice)

    assert ["weather"] == list(server.engine.asked[-1].must_call)


def answered(server: Server, id: str) -> Any:
    while (seen := server.client.responses.retrieve(id)).status == "in_progress":
        threading.Event().wait(0.005)
    return seen


def test_a_response_in_the_background_is_answered_later_and_gone_on_from(server: Server) -> None:
    key: Any = {"Idempotency-Key": "k9"}
    asked: Any = {"model": "tiny", "input": "one two", "background": True, "extra_headers": key}
    begun, again = (server.client.responses.create(**asked) for _ in range(2))

    done = answered(server, begun.id)
    server.client.responses.create(model="tiny", input="three", previous_response_id=begun.id)

    assert (begun.id, "in_progress", True, "") == (
        again.id,
        begun.status,
        begun.background,
        begun.output_text,
    )
    assert ("completed", "one two", True) == (done.status, done.output_text, done.background)
    assert [("user", "one two"), ("assistant", "one two"), ("user", "three")] == sent(server)
    assert 2 == len(server.engine.asked)


def test_a_response_in_the_background_that_cannot_be_answered_has_failed(server: Server) -> None:
    server.engine.says = lambda ask: EngineError("engine_failed", "out of luck")

    done = answered(server, server.client.responses.create(model="tiny", input="x", background=True).id)

    assert ("failed", "out of luck") == (done.status, done.error.message)


def test_a_response_in_the_background_stops_when_it_is_cancelled_or_deleted(server: Server) -> None:
    responses, server.engine.sticks_at = server.client.responses, 0

    for end in (responses.cancel, responses.delete):
        server.engine.was_left.clear()
        server.engine.stuck.clear()
        begun = responses.create(model="tiny", input="x", background=True)
        assert server.engine.stuck.wait(10)
        with pytest.raises(BadRequestError, match="is not answered yet"):
            responses.create(model="tiny", input="y", previous_response_id=begun.id)
        end(begun.id)
        assert server.engine.was_left.wait(10)

    [row] = server.store.read_now(lambda tx: tx.all("response"))
    assert ("cancelled", "cancelled") == (row.status, responses.cancel(row.id).status)


def test_only_a_response_in_the_background_can_be_cancelled(server: Server) -> None:
    done = server.client.responses.create(model="tiny", input="x")

    with pytest.raises(BadRequestError, match="created with background"):
        server.client.responses.cancel(done.id)


def test_a_server_that_starts_again_answers_what_it_had_not(tmp_path: Path) -> None:
    first, second = Engine(), Engine()
    first.sticks_at = 0
    with Server(tmp_path / "data", first).running() as server:
        begun = server.client.responses.create(model="tiny", input="one two", background=True)
        assert first.stuck.wait(10)

    with Server(tmp_path / "data", second).running() as server:
        done = answered(server, begun.id)

    assert ("completed", "one two") == (done.status, done.output_text)


def test_a_model_that_does_not_exist_is_a_404(server: Server) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        server.client.responses.create(model="nobody", input="x")


def test_a_key_asks_the_model_once(server: Server) -> None:
    key = {"Idempotency-Key": "k1"}

    made = [server.client.responses.create(model="tiny", input="x", extra_headers=key) for _ in range(2)]

    assert made[0] == made[1]
    assert 1 == len(server.engine.asked)


def test_the_asynchronous_sdk_streams_too(server: Server) -> None:
    async def ask() -> str:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            stream = await client.responses.create(model="tiny", input="one two", stream=True)
            events = [event async for event in stream]
        return "".join(event.delta for event in events if event.type == "response.output_text.delta")

    assert "one two" == asyncio.run(ask())
