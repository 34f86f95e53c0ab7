"""Evals and their runs through the official SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_base import EQUAL, SCHEMA, FakeEngine, Server, completions, echo, make_eval, run_of, words
from openai import BadRequestError, NotFoundError

from reconciler.selfhosted.engine import Ask, EngineError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", FakeEngine()).running() as running:
        yield running


def test_an_eval_is_answered_as_openai_answers_it(server: Server) -> None:
    made = make_eval(server)

    found = server.client.evals.retrieve(made.id).to_dict()

    criterion = found["testing_criteria"][0]  # type: ignore[index]
    assert criterion.pop("id").startswith("same word-")
    assert criterion == EQUAL
    config: Any = found["data_source_config"]
    assert ["schema", "type"] == sorted(config)
    assert SCHEMA == config["schema"]["properties"]["item"]
    assert ["item", "sample"] == config["schema"]["required"]
    assert ("words", {}) == (found["name"], found["metadata"])


def test_everything_wrong_with_an_eval_is_said_at_once(server: Server) -> None:
    with pytest.raises(BadRequestError) as refused:
        server.client.evals.create(
            name=7,  # type: ignore[arg-type]
            data_source_config={"type": "custom", "item_schema": {"type": "nonsense"}},
            testing_criteria=[
                {"type": "string_check", "name": "a", "input": "x", "reference": "y", "operation": "near"},  # type: ignore[list-item]
                {
                    "type": "text_similarity",
                    "name": "b",
                    "input": "x",
                    "reference": "y",
                    "evaluation_metric": "bleu",
                },  # type: ignore[list-item]
            ],
        )

    message = str(refused.value.body["message"])  # type: ignore[index]
    for part in (
        "name:",
        "item_schema",
        "testing_criteria[0]",
        "operation",
        "testing_criteria[1]",
        "pass_threshold",
    ):
        assert part in message
    assert "name" == refused.value.param


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/s"},
        {"$ref": "#/$defs/nowhere"},
        {"properties": {"a": {"pattern": "("}}},
        {"type": "nonsense"},
    ],
)
def test_a_schema_that_points_elsewhere_or_is_none_is_refused(server: Server, schema: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="item_schema"):
        make_eval(server, schema=schema)


def test_a_schema_that_leads_to_itself_says_nothing(server: Server) -> None:
    run = server.ended(run_of(server, make_eval(server, schema={"$ref": "#"}).id, words(1)))

    assert ("completed", 1) == (run.status, run.result_counts.passed)


@pytest.mark.parametrize(
    ("pattern", "text", "reason"),
    [
        ("(a+)+$", "a" * 60 + "!", "breaks the rule 'pattern'"),
        (r"^(a|a)*\1$", "a" * 60 + "!", "'pattern'"),
        (r"^(?=(a+)+$)(\w+\s?)*$", "a" * 60 + "!", "'pattern'"),
        (r"^(a+)+\1$", "a" * 500_000 + "!", "takes the rule 'pattern' of the item schema too long to match"),
    ],
)
def test_a_pattern_that_would_be_matched_for_ever_is_given_up(
    server: Server, pattern: str, text: str, reason: str
) -> None:
    schema = {"type": "object", "properties": {"word": {"type": "string", "pattern": pattern}}}
    made = make_eval(server, schema=schema)

    run = server.ended(run_of(server, made.id, [{"item": {"word": text, "expected": "x"}}]))

    assert ("failed", "invalid_data_source") == (run.status, run.error.code)
    assert "row 0: item.word" in run.error.message
    assert reason in run.error.message


def test_evals_are_listed_renamed_and_deleted(server: Server) -> None:
    first, second, third = (make_eval(server) for _ in range(3))

    server.client.evals.update(first.id, name="renamed", metadata={"k": "v"})
    server.client.evals.delete(second.id)

    assert [first.id, third.id] == [each.id for each in server.client.evals.list(limit=1)]
    assert [third.id, first.id] == [each.id for each in server.client.evals.list(order="desc")]
    renamed = server.client.evals.retrieve(first.id)
    assert ("renamed", {"k": "v"}) == (renamed.name, renamed.metadata)
    with pytest.raises(NotFoundError):
        server.client.evals.retrieve(second.id)


def test_a_run_measures_a_model_and_its_items_can_be_paged(server: Server) -> None:
    run = run_of(server, make_eval(server).id, words(150, right=lambda index: index % 3 != 0))
    queued = run.to_dict()

    run = server.ended(run)

    assert ("queued", None, None) == tuple(
        queued[key] for key in ("status", "per_model_usage", "per_testing_criteria_results")
    )
    assert {"total": 150, "passed": 100, "failed": 50, "errored": 0} == run.result_counts.to_dict()
    assert ("completed", "tiny", None) == (run.status, run.model, run.error)
    usage = run.per_model_usage[0]
    assert ("tiny", 150, 150, 150, 300) == (
        usage.model_name,
        usage.invocation_count,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
    )
    criterion = run.per_testing_criteria_results[0]
    assert (100, 50) == (criterion.passed, criterion.failed)
    items = server.items(run, limit=40)
    assert list(range(150)) == [item.datasource_item_id for item in items]
    assert 50 == len(server.items(run, status="fail", limit=7))
    one = server.client.evals.runs.output_items.retrieve(items[1].id, eval_id=run.eval_id, run_id=run.id)
    assert items[1].to_dict() == one.to_dict()
    assert ("eval.run.output_item", "pass", "w1", 1.0, True) == (
        one.object,
        one.status,
        one.sample.output[0].content,
        one.results[0].score,
        one.results[0].passed,
    )
    assert (1.0, 1.0, 42, 2048, "stop") == (
        one.sample.temperature,
        one.sample.top_p,
        one.sample.seed,
        one.sample.max_completion_tokens,
        one.sample.finish_reason,
    )


def test_the_rows_that_came_with_a_run_are_shown_with_it(server: Server) -> None:
    rows = words(3)

    run = server.ended(run_of(server, make_eval(server).id, rows))

    assert rows == run.to_dict()["data_source"]["source"]["content"]  # type: ignore[index]
    listed = server.client.evals.runs.list(run.eval_id, status="completed").data
    assert [run.to_dict()] == [each.to_dict() for each in listed]


def test_rows_may_come_from_a_file_and_outputs_from_elsewhere(server: Server) -> None:
    rows = [
        {"item": {"word": "a", "expected": "a"}, "sample": {"output_text": "a"}},
        {"item": {"word": "b", "expected": "b"}, "sample": {"output_text": "c"}},
    ]
    content = "".join(json.dumps(row) + "\n\n" for row in rows).encode()
    file = server.client.files.create(file=("rows.jsonl", content), purpose="evals")

    run = server.client.evals.runs.create(
        make_eval(server).id,
        data_source={"type": "jsonl", "source": {"type": "file_id", "id": file.id}},
        name="given",
        metadata={"k": "v"},
    )
    run = server.ended(run)

    assert (1, 1, 0) == (run.result_counts.passed, run.result_counts.failed, run.result_counts.errored)
    assert ("given", {"k": "v"}, []) == (run.name, run.metadata, run.per_model_usage)
    assert ["pass", "fail"] == [item.status for item in server.items(run)]
    assert [] == server.engine.batches


def test_messages_may_come_from_the_item_itself(server: Server) -> None:
    rows = [{"item": {"input": [{"role": "developer", "content": "be"}, {"role": "user", "content": "b"}]}}]
    criterion = {**EQUAL, "reference": "b"}
    made = make_eval(server, criterion, schema={"type": "object"})

    run = run_of(
        server,
        made.id,
        rows,
        input_messages={"type": "item_reference", "item_reference": "item.input"},
        sampling_params={"temperature": 0, "seed": 7, "max_completions_tokens": 5},
    )
    run = server.ended(run)

    assert 1 == run.result_counts.passed
    ask = server.engine.batches[0][0]
    assert (0, 5, ["system", "user"]) == (ask.temperature, ask.max_tokens, [m["role"] for m in ask.messages])


def test_rows_that_do_not_match_the_schema_fail_the_run_by_name(server: Server) -> None:
    rows = [*words(2), {"item": {"word": 3, "expected": "x"}}, {"item": {"word": "y"}}, {"nothing": 1}]

    run = server.ended(run_of(server, make_eval(server).id, rows))

    assert "failed" == run.status
    assert "invalid_data_source" == run.error.code
    for part in (
        "3 of 5 rows",
        "row 2: item.word must be of type string",
        "row 3: item lacks expected",
        "line 5",
    ):
        assert part in run.error.message
    assert [] == server.engine.batches


def test_a_run_names_models_files_and_evals_that_exist(server: Server) -> None:
    made = make_eval(server)

    with pytest.raises(NotFoundError, match="unheard-of"):
        run_of(server, made.id, words(1), model="unheard-of")
    with pytest.raises(NotFoundError, match="file-none"):
        run_of(server, made.id, words(1), source={"type": "file_id", "id": "file-none"})
    with pytest.raises(NotFoundError, match="eval_none"):
        run_of(server, "eval_none", words(1))
    with pytest.raises(BadRequestError, match=r"temperature.*input_messages"):
        run_of(
            server, made.id, words(1), sampling_params={"temperature": 3}, input_messages={"type": "guess"}
        )

    assert [] == list(server.client.evals.runs.list(made.id))


def test_an_alias_is_resolved_when_the_run_is_created(server: Server) -> None:
    server.client.post("/reconciler/aliases", body={"name": "prod", "model": "tiny"}, cast_to=object)

    run = server.ended(run_of(server, make_eval(server).id, words(1), model="prod"))

    assert ("tiny", "prod") == (run.model, run.to_dict()["data_source"]["model"])  # type: ignore[index]
    assert "tiny" == server.items(run)[0].sample.model


def test_an_item_that_could_not_be_sampled_is_an_error_and_never_a_pass(server: Server) -> None:
    def says(ask: Ask) -> str | EngineError:
        return EngineError("engine_failed", "no luck") if echo(ask) == "w1" else echo(ask)

    server.engine.says = says
    always = {**EQUAL, "name": "always", "input": "x", "reference": "x"}

    run = server.ended(run_of(server, make_eval(server, always).id, words(3)))

    assert (2, 0, 1) == (run.result_counts.passed, run.result_counts.failed, run.result_counts.errored)
    errored = server.items(run)[1]
    assert ("error", [], "engine_failed") == (errored.status, errored.results, errored.sample.error.code)


def test_an_unanswerable_row_is_an_error_of_its_own(server: Server) -> None:
    template = [{"role": "user", "content": "{{item.nothing}}"}]

    run = run_of(
        server,
        make_eval(server).id,
        words(2),
        input_messages={"type": "template", "template": template},
    )
    run = server.ended(run)

    assert ("completed", 2) == (run.status, run.result_counts.errored)
    assert "nothing" in server.items(run)[0].sample.error.message


def test_a_grader_that_could_not_grade_makes_an_error(server: Server) -> None:
    broken = {**EQUAL, "name": "broken", "input": "{{item.optional}}"}

    run = server.ended(run_of(server, make_eval(server, EQUAL, broken).id, words(2)))

    assert (0, 0, 2) == (run.result_counts.passed, run.result_counts.failed, run.result_counts.errored)
    assert [(2, 0), (0, 0)] == [(each.passed, each.failed) for each in run.per_testing_criteria_results]


def test_a_sample_that_is_no_json_fails_and_is_no_error(server: Server) -> None:
    wants_json = {**EQUAL, "input": "{{sample.output_json.word}}"}

    run = server.ended(run_of(server, make_eval(server, wants_json).id, words(2)))

    assert (0, 2, 0) == (run.result_counts.passed, run.result_counts.failed, run.result_counts.errored)


def test_a_model_that_cannot_be_served_fails_the_run_with_the_reason(server: Server) -> None:
    server.engine.unloadable = EngineError("model_unloadable", "the weights are torn")

    run = server.ended(run_of(server, make_eval(server).id, words(2)))

    assert ("failed", "model_unloadable", "the weights are torn") == (
        run.status,
        run.error.code,
        run.error.message,
    )


def test_judges_grade_in_one_batch_per_chunk_and_their_tokens_are_counted(server: Server) -> None:
    def says(ask: Ask) -> str:
        if ask.response_format is None:
            return echo(ask)
        return json.dumps({"steps": [], "label": "good" if "w1" in echo(ask) else "bad"})

    server.engine.says = says
    judge = {
        "type": "label_model",
        "name": "judge",
        "model": "tiny",
        "input": [{"role": "user", "content": "Is {{sample.output_text}} good?"}],
        "labels": ["good", "bad"],
        "passing_labels": ["good"],
    }

    run = server.ended(run_of(server, make_eval(server, judge).id, words(70, right=lambda _: False)))

    assert (11, 59, 0) == (run.result_counts.passed, run.result_counts.failed, run.result_counts.errored)
    assert [6, 6, 64, 64] == sorted(len(batch) for batch in server.engine.batches)
    assert 140 == run.per_model_usage[0].invocation_count
    asked = [ask for batch in server.engine.batches for ask in batch if ask.response_format]
    assert {(0, 42)} == {(ask.temperature, ask.seed) for ask in asked}


@pytest.mark.parametrize("path", ["", "/cancel"])
def test_both_ways_to_cancel_stop_a_run_within_a_chunk(server: Server, path: str) -> None:
    server.engine.sticks_at = 2
    run = run_of(server, make_eval(server).id, words(200))
    assert server.engine.stuck.wait(10)

    cancelled: Any = server.client.post(f"/evals/{run.eval_id}/runs/{run.id}{path}", cast_to=dict[str, Any])

    assert "canceled" == cancelled["status"]
    again = server.client.evals.runs.retrieve(run.id, eval_id=run.eval_id)
    assert "canceled" == again.status
    kept = server.items(run)
    assert len(kept) == again.result_counts.passed
    assert len(kept) in (0, 64)
    assert 2 == len(server.engine.batches)


def test_a_finished_run_cannot_be_cancelled_and_can_be_deleted(server: Server) -> None:
    run = server.ended(run_of(server, make_eval(server).id, words(1)))

    with pytest.raises(BadRequestError, match="completed already"):
        server.client.evals.runs.cancel(run.id, eval_id=run.eval_id)
    deleted = server.client.evals.runs.delete(run.id, eval_id=run.eval_id)

    assert {"object": "eval.run.deleted", "deleted": True, "run_id": run.id} == deleted.to_dict()
    with pytest.raises(NotFoundError):
        server.client.evals.runs.output_items.list(run.id, eval_id=run.eval_id)


def test_a_lost_reply_does_not_make_a_second_run(server: Server) -> None:
    made = make_eval(server)
    source = completions(words(1))

    first, second = (
        server.client.evals.runs.create(
            made.id,
            data_source=source,  # type: ignore[arg-type]
            extra_headers={"Idempotency-Key": "once"},
        )
        for _ in range(2)
    )

    assert first.id == second.id
    assert [first.id] == [run.id for run in server.client.evals.runs.list(made.id)]
    assert 1 == server.ended(first).result_counts.passed


def test_a_run_that_breaks_in_a_way_nobody_foresaw_ends_and_its_rows_stay_out_of_the_log(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    def says(ask: Ask) -> str:
        raise ZeroDivisionError(echo(ask))

    server.engine.says = says

    run = server.ended(run_of(server, make_eval(server).id, [{"item": {"word": "canary", "expected": ""}}]))

    assert ("failed", "server_error") == (run.status, run.error.code)
    logged = capsys.readouterr().out
    assert "ZeroDivisionError" in logged
    assert "canary" not in logged


def test_a_logged_conversation_with_calls_is_asked_as_it_was(server: Server) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "b"},
    ]
    made = make_eval(server, {**EQUAL, "reference": "b"}, schema={"type": "object"})
    source = {"type": "item_reference", "item_reference": "item.turns"}

    run = server.ended(run_of(server, made.id, [{"item": {"turns": turns}}], input_messages=source))

    assert 1 == run.result_counts.passed
    assert [call] == server.items(run)[0].to_dict()["sample"]["input"][1]["tool_calls"]


@pytest.mark.parametrize(
    "message", [{"role": "user"}, {"role": "user", "content": {"type": "input_text"}}, 7]
)
def test_a_template_message_without_text_is_refused(server: Server, message: Any) -> None:
    with pytest.raises(BadRequestError, match=r"template\[0\]"):
        run_of(
            server,
            make_eval(server).id,
            words(1),
            input_messages={"type": "template", "template": [message]},
        )
