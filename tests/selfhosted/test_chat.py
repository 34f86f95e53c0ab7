"""Chat completions through the official SDK, over a fake engine."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_base import FakeEngine, Server
from openai import APIError, BadRequestError, InternalServerError, NotFoundError

from reconciler.selfhosted.engine import Answer, Ask, EngineError

TOOLS: Any = [{"type": "function", "function": {"name": name}} for name in "fg"]


def named(name: str) -> Any:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, name: str) -> Any:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name)]}}


HELLO: Any = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", FakeEngine()).running() as running:
        yield running


def test_a_completion_has_openais_shape(server: Server) -> None:
    made = server.client.chat.completions.create(model="tiny", messages=HELLO, seed=1)

    body = made.to_dict()
    assert made.id.startswith("chatcmpl-")
    assert str(made.system_fingerprint).startswith("fp_")
    assert ("chat.completion", "tiny") == (body["object"], body["model"])
    choice = made.choices[0]
    assert ("one two three", "stop", 0, None) == (
        choice.message.content,
        choice.finish_reason,
        choice.index,
        choice.logprobs,
    )
    assert made.usage is not None
    assert (3, 3, 6) == (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens)


def test_every_parameter_reaches_the_engine(server: Server) -> None:
    asked: list[Ask] = []
    server.engine.says = lambda ask: asked.append(ask) or "ok"
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    schema: Any = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}

    server.client.chat.completions.create(
        model="tiny",
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        ],
        temperature=0.5,
        top_p=0.9,
        seed=7,
        max_completion_tokens=11,
        stop="x",
        logprobs=True,
        top_logprobs=2,
        tools=[tool],
        response_format=schema,
        user="whoever",
        extra_body={"something": "unknown"},
    )

    (ask,) = asked
    assert (0.5, 0.9, 7, 11, ("x",), 2) == (
        ask.temperature,
        ask.top_p,
        ask.seed,
        ask.max_tokens,
        tuple(ask.stop),
        ask.logprobs,
    )
    assert [tool] == ask.tools
    assert schema == ask.response_format
    assert ["system", "user"] == [message["role"] for message in ask.messages]


def test_choices_have_seeds_of_their_own_and_the_prompt_counts_once(server: Server) -> None:
    server.engine.says = lambda ask: str(ask.seed)

    made = server.client.chat.completions.create(model="tiny", messages=HELLO, n=3, seed=5, logprobs=True)
    again = server.client.chat.completions.create(model="tiny", messages=HELLO, n=3, seed=5)

    texts = [choice.message.content for choice in made.choices]
    assert ("5", 3) == (texts[0], len(set(texts)))
    assert texts == [choice.message.content for choice in again.choices]
    assert made.usage is not None
    assert (3, 3) == (made.usage.prompt_tokens, made.usage.completion_tokens)
    logprobs = made.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert ["5"] == [token.token for token in logprobs.content]


def test_a_stream_gives_the_same_text_in_pieces_and_its_usage_when_asked(server: Server) -> None:
    chunks = list(
        server.client.chat.completions.create(
            model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )

    said = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert ("assistant", "stop") == (said[0].delta.role, said[-1].finish_reason)
    assert "one two three" == "".join(choice.delta.content or "" for choice in said)
    assert 5 == len(said)
    assert [None] * 5 == [chunk.usage for chunk in chunks if chunk.choices]
    assert chunks[-1].usage is not None
    assert ([], 6) == (chunks[-1].choices, chunks[-1].usage.total_tokens)
    assert 1 == len({chunk.id for chunk in chunks})


def test_streamed_choices_are_told_apart(server: Server) -> None:
    texts: dict[int, str] = {}

    for chunk in server.client.chat.completions.create(model="tiny", messages=HELLO, stream=True, n=2):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")

    assert {0: "one two three", 1: "one two three"} == texts


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_arrive_whole(tmp_path: Path, stream: bool) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    class Calling(FakeEngine):
        def _answer(self, ask: Ask) -> Answer:
            return Answer("", "tool_calls", [call], 1, 2, None)

    with Server(tmp_path / "data", Calling()).running() as server:
        asked: Any = {"model": "tiny", "messages": HELLO, "stream": stream}
        made: Any = server.client.chat.completions.create(**asked)
        last = list(made)[-1].choices[0] if stream else made.choices[0]

    calls = last.delta.tool_calls if stream else last.message.tool_calls
    assert "tool_calls" == last.finish_reason
    assert [("call_1", "f", "{}")] == [(c.id, c.function.name, c.function.arguments) for c in calls]
    if not stream:
        assert last.message.content is None


@pytest.mark.parametrize(
    ("choice", "shown", "must_call"),
    [
        ("auto", ["f", "g"], []),
        ("none", [], []),
        ("required", ["f", "g"], ["f", "g"]),
        (named("g"), ["f", "g"], ["g"]),
        (allowed("auto", "g"), ["g"], []),
        (allowed("required", "g"), ["g"], ["g"]),
    ],
)
def test_a_choice_of_tools_decides_what_is_shown_and_what_must_be_called(
    server: Server, choice: Any, shown: list[str], must_call: list[str]
) -> None:
    asks: list[Ask] = []
    server.engine.says = lambda ask: (asks.append(ask), "x")[1]

    server.client.chat.completions.create(model="tiny", messages=HELLO, tools=TOOLS, tool_choice=choice)

    assert shown == [tool["function"]["name"] for tool in asks[0].tools or ()]
    assert must_call == list(asks[0].must_call)


def test_penalties_and_a_bias_reach_the_engine(server: Server) -> None:
    asks: list[Ask] = []
    server.engine.says = lambda ask: (asks.append(ask), "x")[1]
    wanted = {"presence_penalty": 0.5, "frequency_penalty": -1, "logit_bias": {"7": -100}}

    server.client.chat.completions.create(model="tiny", messages=HELLO, **wanted)  # type: ignore[call-overload]

    ask = asks[0]
    assert (0.5, -1, {"7": -100}) == (ask.presence_penalty, ask.frequency_penalty, ask.logit_bias)


def test_a_picture_is_shown_from_where_it_is_sent_or_from_the_file_that_holds_it(server: Server) -> None:
    asks: list[Ask] = []
    server.engine.says = lambda ask: (asks.append(ask), "x")[1]
    client, png = server.client, b"\x89PNG\r\n\x1a\n and more"
    file = client.files.create(file=("a.png", png), purpose="vision").id
    sent = {"url": "data:image/png;base64,AAAA", "detail": "low"}

    client.chat.completions.create(model="tiny", messages=seen(sent, {"file_id": file}))
    part = {"type": "input_image", "file_id": file, "detail": "low"}
    client.responses.create(model="tiny", input=[{"role": "user", "content": [part]}])  # type: ignore[list-item, misc]

    uri = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    assert [sent, {"url": uri}] == [part["image_url"] for part in asks[0].messages[0]["content"]]
    assert [{"url": uri, "detail": "low"}] == [part["image_url"] for part in asks[1].messages[0]["content"]]


def test_a_file_that_is_no_picture_is_not_shown(server: Server) -> None:
    files, wrong = server.client.files, []
    wrong.append(
        (files.create(file=("a.png", b"\x89PNG\r\n\x1a\n"), purpose="user_data").id, "purpose 'vision'")
    )
    wrong.append((files.create(file=("a.png", b"GIF89a"), purpose="vision").id, "is no JPEG, PNG or WEBP"))
    wrong.append(("file-none", "does not exist"))

    for id, sentence in wrong:
        with pytest.raises(BadRequestError, match=sentence):
            server.client.chat.completions.create(model="tiny", messages=seen({"file_id": id}))


def seen(*images: dict[str, str]) -> Any:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": image} for image in images]}]


def test_an_alias_speaks_with_the_voice_of_its_model(server: Server) -> None:
    server.client.post("/reconciler/aliases", body={"name": "prod/support", "model": "tiny"}, cast_to=object)

    made = server.client.chat.completions.create(model="prod/support", messages=HELLO)

    assert ("tiny", "one two three") == (made.model, made.choices[0].message.content)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0]",
        ),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"n": 0}, "n"),
        ({"seed": "x"}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "poem"}}, "response_format"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOLS[0]], "tool_choice": "some"}, "tool_choice"),
        ({"tools": [TOOLS[0]], "tool_choice": named("g")}, "tool_choice"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"presence_penalty": True}, "presence_penalty"),
        ({"logit_bias": {"7": 101}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"audio": {"voice": "a"}}, "audio"),
    ],
)
def test_a_wrong_parameter_is_named(server: Server, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        server.client.chat.completions.create(**{"model": "tiny", "messages": HELLO, **wrong})

    assert param == refused.value.param


def test_an_unknown_model_is_a_404_and_never_another_model(server: Server) -> None:
    with pytest.raises(NotFoundError) as refused:
        server.client.chat.completions.create(model="gpt-9", messages=HELLO)

    assert "model_not_found" == refused.value.code


@pytest.mark.parametrize("stream", [False, True])
def test_the_engines_refusal_is_a_status_while_nothing_was_said(server: Server, stream: bool) -> None:
    server.engine.says = lambda ask: EngineError("context_length_exceeded", "too long by 3 tokens")
    asked: Any = {"model": "tiny", "messages": HELLO, "stream": stream}

    with pytest.raises(BadRequestError, match="too long by 3 tokens"):
        server.client.chat.completions.create(**asked)

    server.engine.says = lambda ask: EngineError("engine_unavailable", "gone")
    with pytest.raises(InternalServerError):
        server.client.chat.completions.create(**asked)


def test_an_error_in_the_middle_of_a_stream_is_told_in_the_stream(tmp_path: Path) -> None:
    class Breaking(FakeEngine):
        async def stream(self, ask: Ask) -> Any:
            yield "one"
            raise EngineError("engine_failed", "out of luck")

    with Server(tmp_path / "data", Breaking()).running() as server:
        stream = server.client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        with pytest.raises(APIError, match="out of luck"):
            list(stream)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_stops_its_generation(server: Server, stream: bool) -> None:
    server.engine.sticks_at = 1
    body = json.dumps({"model": "tiny", "messages": HELLO, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(server.socket.getsockname())
    connection.sendall(head.encode() + body)
    assert server.engine.stuck.wait(10)

    connection.close()

    assert server.engine.was_left.wait(10)
    assert 1 == len(server.engine.left)
