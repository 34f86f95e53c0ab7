"""Output items as platforms really send them."""

from typing import Any

from reconciler.report import wire
from reconciler.report.values import Grade

NAMES = {"exact-1234": "exact"}


def output_item(**changes: Any) -> dict[str, Any]:
    sample = {
        "output": [{"role": "assistant", "content": "seven", "tool_calls": None}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        "error": None,
    }
    item = {
        "datasource_item_id": 3, "datasource_item": {"q": "say 7"}, "status": "pass", "sample": sample,
        "results": [{"name": "exact-1234", "score": 1.0, "passed": True, "sample": None}],
        "reconciler": {"latency_ms": 12.5},
    }  # fmt: skip
    return item | changes


def test_an_output_item_is_told_by_its_graders_names() -> None:
    [item] = wire.items([output_item()], NAMES)

    assert ("3", "pass", "seven", (Grade("exact", True, 1.0),)) == (
        item.id,
        item.status,
        item.answer,
        item.grades,
    )
    assert (12.5, 5, 2) == (item.latency_ms, item.prompt_tokens, item.completion_tokens)


def test_an_item_that_could_not_be_sampled_is_an_error_whatever_its_status_says() -> None:
    sample = {"output": [], "error": {"code": "oom", "message": "out of memory"}}

    [item] = wire.items([output_item(sample=sample)], NAMES)

    assert ("error", "out of memory", "") == (item.status, item.error, item.answer)


def test_a_grader_that_failed_is_told_apart_from_an_answer_that_did() -> None:
    results = [{"name": "exact-1234", "score": 0.0, "passed": False, "error": "no judge"},
               {"name": "other", "score": 0.0, "passed": False, "reason": "no JSON"}]  # fmt: skip

    [item] = wire.items([output_item(results=results, status="error")], NAMES)

    assert (
        Grade("exact", False, 0.0, "no judge", True),
        Grade("other", False, 0.0, "no JSON"),
    ) == item.grades


def test_samples_of_one_item_are_told_apart() -> None:
    items = list(wire.items([output_item(), output_item()], NAMES))

    assert ["3", "3 (sample 2)"] == [item.id for item in items]


def test_tool_calls_are_part_of_the_answer() -> None:
    call = {"id": "1", "function": {"name": "refund", "arguments": "{}"}}

    assert '[{"id": "1", "function": {"name": "refund", "arguments": "{}"}}]' == wire.answer_of(
        {"output": [{"role": "assistant", "content": "", "tool_calls": [call]}]}
    )


def test_fields_that_a_platform_leaves_out_are_no_trouble() -> None:
    bare = {"datasource_item_id": 0, "status": "fail", "results": []}

    [item] = wire.items([wire.slim(bare)], NAMES)

    assert ("0", "fail", {}, "", (), None, 0) == (
        item.id, item.status, item.fields, item.answer, item.grades, item.latency_ms, item.completion_tokens
    )  # fmt: skip
