"""Stored chat completions, through the official SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_base import FakeEngine, Server
from openai import AsyncOpenAI, BadRequestError, NotFoundError, UnprocessableEntityError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", FakeEngine()).running() as running:
        yield running


def ask(server: Server, text: str = "one two", **more: Any) -> Any:
    return server.client.chat.completions.create(
        **{"model": "tiny", "messages": [{"role": "user", "content": text}], "store": True, **more}
    )


def test_a_completion_is_kept_when_asked_and_only_then(server: Server) -> None:
    asked = {"seed": 7, "temperature": 0.5, "user": "me", "metadata": {"tag": "a"}}

    made = ask(server, **asked)
    ask(server, store=False)

    [kept] = server.client.chat.completions.list()
    assert kept.id == made.id
    assert {"tag": "a"} == made.metadata
    got = server.client.chat.completions.retrieve(made.id).to_dict()
    assert kept.to_dict() == got
    assert made.to_dict() == {key: got[key] for key in made.to_dict()}
    expected = {"seed": 7, "temperature": 0.5, "top_p": 1.0, "input_user": "me", "tools": None}
    assert expected == {key: got[key] for key in expected}
    assert str(got["request_id"]).startswith("req_")


def test_a_stream_is_kept_too(server: Server) -> None:
    chunks = list(ask(server, stream=True, metadata={"tag": "s"}))

    [kept] = server.client.chat.completions.list()
    assert (chunks[0].id, "one two", {"tag": "s"}) == (
        kept.id,
        kept.choices[0].message.content,
        kept.metadata,
    )


def test_lists_filter_by_model_and_metadata_and_go_both_ways(server: Server) -> None:
    ids = [ask(server, metadata={"n": str(n), "even": str(n % 2 == 0)}).id for n in range(5)]
    completions = server.client.chat.completions

    assert ids == [each.id for each in completions.list(limit=2)]
    assert ids[::-1] == [each.id for each in completions.list(limit=2, order="desc")]
    assert ids[::2] == [each.id for each in completions.list(metadata={"even": "True"})]
    assert [ids[3]] == [each.id for each in completions.list(metadata={"even": "False", "n": "3"})]
    assert ids == [each.id for each in completions.list(model="tiny")]
    assert [] == list(completions.list(model="another"))


def test_messages_are_those_that_were_sent(server: Server) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    sent = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "5"},
    ]
    made = ask(server, messages=sent)

    messages = list(server.client.chat.completions.messages.list(made.id, limit=3))
    backwards = list(server.client.chat.completions.messages.list(made.id, order="desc"))

    assert [message["role"] for message in sent] == [message.role for message in messages]
    assert [f"{made.id}-{n}" for n in range(4)] == [message.id for message in messages]
    assert messages[::-1] == backwards
    assert ["be brief", None, None, "5"] == [message.content for message in messages]
    assert parts == messages[1].to_dict()["content_parts"]
    assert [call] == messages[2].to_dict()["tool_calls"]
    assert "c1" == messages[3].to_dict()["tool_call_id"]


def test_metadata_can_be_replaced_and_nothing_else(server: Server) -> None:
    made = ask(server, metadata={"tag": "old"})
    completions = server.client.chat.completions

    changed = completions.update(made.id, metadata={"tag": "new"})

    assert {"tag": "new"} == changed.metadata == completions.retrieve(made.id).metadata
    assert [] == list(completions.list(metadata={"tag": "old"}))
    assert [made.id] == [each.id for each in completions.list(metadata={"tag": "new"})]
    with pytest.raises(BadRequestError, match="metadata"):
        completions.update(made.id, metadata=None)


def test_a_deleted_completion_is_gone(server: Server) -> None:
    made = ask(server)
    completions = server.client.chat.completions

    gone = completions.delete(made.id)

    assert (made.id, True, "chat.completion.deleted") == (gone.id, gone.deleted, gone.object)
    for call in (completions.retrieve, completions.delete, completions.messages.list):
        with pytest.raises(NotFoundError, match=made.id):
            call(made.id)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"store": False, "metadata": {"a": "b"}}, "only allowed when store"),
        ({"metadata": {"a": 1}}, "is not text"),
        ({"metadata": {str(n): "" for n in range(17)}}, "17 pairs"),
        ({"metadata": {"k" * 65: ""}}, "65 characters"),
        ({"metadata": {"k": "v" * 513}}, "513 characters"),
        ({"store": "yes"}, "store"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_the_model_is_asked(
    server: Server, wrong: Any, says: str
) -> None:
    with pytest.raises(BadRequestError, match=says):
        ask(server, **wrong)

    assert [] == list(server.client.chat.completions.list())


def test_a_key_asks_the_model_once(server: Server) -> None:
    asked: list[Any] = []
    server.engine.says = lambda ask: asked.append(ask) or "ok"
    key = {"Idempotency-Key": "k1"}

    first, second = ask(server, extra_headers=key), ask(server, extra_headers=key)

    assert first == second
    assert (1, 1) == (len(asked), len(list(server.client.chat.completions.list())))
    with pytest.raises(UnprocessableEntityError, match="another body"):
        ask(server, text="other", extra_headers=key)


def test_the_asynchronous_sdk_reads_the_same(server: Server) -> None:
    made = ask(server)

    async def read() -> list[str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return [each.id async for each in client.chat.completions.list()]

    assert [made.id] == asyncio.run(read())
