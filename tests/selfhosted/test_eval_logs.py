"""Evals of what the platform has logged: stored completions and responses, through the official SDK."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_base import FakeEngine, Server, echo
from openai import BadRequestError

from reconciler.selfhosted.engine import Ask

SHORT = {
    "type": "string_check",
    "name": "right",
    "input": "{{sample.output_text}}",
    "reference": "{{item.input[0].content}}",
    "operation": "eq",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", FakeEngine()).running() as running:
        yield running


def make_eval(server: Server, kind: str = "logs", **config: Any) -> Any:
    data_source: Any = {"type": kind, **config}
    criteria: Any = [SHORT]
    return server.client.evals.create(data_source_config=data_source, testing_criteria=criteria)


def measure(server: Server, eval_id: str, kind: str, source: dict[str, Any], **more: Any) -> Any:
    data_source: Any = {"type": kind, "source": source, **more}
    return server.ended(server.client.evals.runs.create(eval_id, data_source=data_source))


def complete(server: Server, text: str, tag: str = "a") -> str:
    made = server.client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": text}], store=True, metadata={"tag": tag}
    )
    return made.id


def respond(server: Server, text: str, **more: Any) -> str:
    return server.client.responses.create(model="tiny", input=text, **more).id


def inputs(server: Server, run: Any) -> list[str]:
    return [item.datasource_item["input"][-1]["content"] for item in server.items(run)]  # type: ignore[index]


def test_logged_outputs_are_graded_as_they_were(server: Server) -> None:
    complete(server, "one")
    server.engine.says = lambda ask: "wrong"
    complete(server, "two")
    parent = make_eval(server)

    run = measure(server, parent.id, "completions", {"type": "stored_completions"})

    assert "schema" in parent.data_source_config.to_dict()
    assert ("completed", 1, 1) == (run.status, run.result_counts.passed, run.result_counts.failed)
    assert ["one", "two"] == inputs(server, run)
    assert ["one", "wrong"] == [item.sample.output[0].content for item in server.items(run)]
    assert not server.engine.batches


def test_filters_choose_what_is_measured(server: Server) -> None:
    for text in ("one", "two", "three"):
        complete(server, text, tag=text)
    ids = [each.id for each in server.client.chat.completions.list()]
    server.client.chat.completions.update(ids[2], metadata={"tag": "two"})
    parent = make_eval(server)
    source = {"type": "stored_completions"}

    def chosen(**filters: Any) -> list[str]:
        return inputs(server, measure(server, parent.id, "completions", {**source, **filters}))

    assert ["two", "three"] == chosen(metadata={"tag": "two"})
    assert ["one", "two"] == chosen(limit=2)
    assert ["one", "two", "three"] == chosen(model="tiny", created_after=1)
    assert [] == chosen(created_before=1)
    assert [] == chosen(model="another")
    narrowed = make_eval(server, "stored_completions", metadata={"tag": "one"})
    assert ["one"] == inputs(server, measure(server, narrowed.id, "completions", source))


def test_logged_inputs_are_asked_again_of_another_model(server: Server) -> None:
    server.engine.says = lambda ask: "wrong"
    complete(server, "one")
    server.engine.says = echo

    source = {"type": "stored_completions"}
    run = measure(server, make_eval(server).id, "completions", source, model="tiny")

    assert (1, "tiny") == (run.result_counts.passed, run.model)
    assert [[("one")]] == [[echo(ask) for ask in batch] for batch in server.engine.batches]


def test_a_run_measures_what_was_there_when_it_was_created(server: Server) -> None:
    id = complete(server, "one")
    parent = make_eval(server)
    asked: Any = {"type": "completions", "source": {"type": "stored_completions"}}

    run = server.client.evals.runs.create(parent.id, data_source=asked)
    server.client.chat.completions.delete(id)

    assert 1 == server.ended(run).result_counts.passed


def test_responses_are_measured_by_their_own_filters(server: Server) -> None:
    tool: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
    respond(server, "one", instructions="be brief", temperature=0.5, user="ann")
    respond(server, "two", instructions="be kind", reasoning={"effort": "low"}, user="ben")
    respond(server, "three", tools=[tool], tool_choice="none")
    parent = make_eval(server)

    def chosen(**filters: Any) -> list[str]:
        run = measure(server, parent.id, "responses", {"type": "responses", **filters})
        return inputs(server, run)

    assert ["one", "two", "three"] == chosen()
    assert ["one"] == chosen(instructions_search="brief")
    assert ["two"] == chosen(reasoning_effort="low")
    assert ["one"] == chosen(temperature=0.5)
    assert ["one", "two"] == chosen(users=["ann", "ben"])
    assert ["three"] == chosen(tools=["look"])


def test_the_words_of_the_responses_api_reach_the_engine(server: Server) -> None:
    respond(server, "one", instructions="be brief")
    format = {"type": "json_schema", "name": "s", "schema": {"type": "object"}}
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
    params = {"text": {"format": format}, "tools": [tool], "max_completion_tokens": 5}
    server.engine.says = lambda ask: "{}"

    source = {"type": "responses"}
    measure(server, make_eval(server).id, "responses", source, model="tiny", sampling_params=params)

    ask: Ask = server.engine.batches[0][0]
    assert [("system", "be brief"), ("user", "one")] == [(m["role"], m["content"]) for m in ask.messages]
    assert ask.response_format is not None and ask.tools is not None
    assert ("s", 5) == (ask.response_format["json_schema"]["name"], ask.max_tokens)
    assert "f" == ask.tools[0]["function"]["name"]


@pytest.mark.parametrize(
    ("kind", "source", "more", "param"),
    [
        ("completions", {"type": "responses"}, {}, "data_source.source.type"),
        ("responses", {"type": "stored_completions"}, {}, "data_source.source.type"),
        ("jsonl", {"type": "stored_completions"}, {}, "data_source.source.type"),
        ("completions", {"type": "stored_completions", "limit": "3"}, {}, "data_source.source.limit"),
        ("responses", {"type": "responses", "tools": "f"}, {}, "data_source.source.tools"),
        ("completions", {"type": "stored_completions"}, {"model": 5}, "data_source.model"),
        (
            "responses",
            {"type": "responses"},
            {"sampling_params": {"tools": [{"type": "x"}]}},
            "tools[0].type",
        ),
    ],
)
def test_a_source_that_makes_no_sense_is_refused(
    server: Server, kind: str, source: Any, more: Any, param: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        measure(server, make_eval(server).id, kind, source, **more)

    assert param == refused.value.param


def test_rows_may_come_with_the_run_in_either_api(server: Server) -> None:
    content: Any = [{"item": {"input": [{"role": "user", "content": "one"}]}}]
    asked = {"input_messages": {"type": "item_reference", "item_reference": "item.input"}, "model": "tiny"}

    source = {"type": "file_content", "content": content}
    run = measure(server, make_eval(server).id, "responses", source, **asked)

    assert 1 == run.result_counts.passed
    assert content == run.data_source.to_dict()["source"]["content"]
