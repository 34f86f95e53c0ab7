"""
One row of a run and what became of it: the sample, the grades, and the output item that clients read.

An item passes when every criterion passes; when its sampling or any of its grading went wrong
it is an error, and never a pass. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from reconciler.selfhosted import grading
from reconciler.selfhosted.engine.values import Answer
from reconciler.selfhosted.evaluation.evalrows import Row
from reconciler.selfhosted.grading import template
from reconciler.selfhosted.serving.sampling import Sampling

Fault = Mapping[str, str]  # {code, message}


class Unanswerable(Exception):
    """This row cannot be turned into messages."""


class Usage(NamedTuple):
    """What asking one model cost."""

    invocations: int
    prompt_tokens: int
    completion_tokens: int

    def plus(self, other: "Usage") -> "Usage":
        return Usage(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Outcome:
    """A row after sampling: what graders see as `sample`, or why there is nothing to see."""

    row: Row
    namespace: Mapping[str, Any]
    messages: Sequence[Mapping[str, Any]] = ()
    answer: Answer | None = None
    fault: Fault | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class Tally:
    """What a chunk adds to its run."""

    passed: int = 0
    failed: int = 0
    errored: int = 0
    criteria: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)  # id: passed, failed, errored
    usage: Mapping[str, Usage] = field(default_factory=dict)  # by model name


def messages_of(input_messages: Mapping[str, Any], item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages to send for this item. Raises Unanswerable with what is missing."""
    try:
        if input_messages["type"] == "template":
            return grading.render_messages(input_messages["template"], item, {})
        path = input_messages["item_reference"]
        found = template.look_up(template.variables(f"{{{{ {path} }}}}")[0], item, {})
    except grading.UnknownVariable as unknown:
        raise Unanswerable(str(unknown)) from unknown
    if not isinstance(found, list) or not found or not all(map(_is_message, found)):
        raise Unanswerable(f"{path} is not a list of messages, each with a role and a content")
    return found


def _is_message(message: Any) -> bool:
    """A logged turn may be any role's, and be a call without content."""
    return (
        isinstance(message, dict)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str | list | dict | None)
    )


def namespace_of(answer: Answer, model: str) -> dict[str, Any]:
    """What graders see as `sample`."""
    seen = grading.sample_of(answer.text, answer.tool_calls)
    seen["choices"][0]["finish_reason"] = answer.finish_reason
    return {**seen, "model": model}


def given(row: Row) -> Outcome:
    """A row whose output was made elsewhere."""
    namespace = dict(row.sample or {})
    text = namespace.get("output_text")
    if isinstance(text, str):
        namespace = grading.sample_of(text) | namespace
    return Outcome(row, namespace)


def result_of(criterion: Mapping[str, Any], grade: grading.Grade) -> dict[str, Any]:
    """A grade as clients read it: `error` when it could not grade, `reason` when the sample is at fault."""
    result = {
        "name": criterion["id"],
        "type": f"{criterion['type'].replace('_', '-')}-grader",
        "score": grade.score,
        "passed": grade.passed and grade.error is None,
        "sample": grade.sample,
    }
    if grade.error is None:
        return result
    # a model that was to write JSON and did not has failed the item; the grader has not
    blame = "reason" if grade.metadata["errors"]["sample_parse_error"] else "error"
    return {**result, blame: grade.error}


def status_of(outcome: Outcome, results: Sequence[Mapping[str, Any]]) -> str:
    """`pass`, `fail` or `error`."""
    if outcome.fault is not None or any("error" in result for result in results):
        return "error"
    return "pass" if all(result["passed"] for result in results) else "fail"


def usage_of(answers: Sequence[Answer]) -> Usage:
    """What these answers cost together."""
    return Usage(
        len(answers),
        sum(answer.prompt_tokens for answer in answers),
        sum(answer.completion_tokens for answer in answers),
    )


def wire_sample(outcome: Outcome, model: str, sampling: Sampling) -> dict[str, Any]:
    """The sample of an output item."""
    answer = outcome.answer
    prompt, completion = (answer.prompt_tokens, answer.completion_tokens) if answer else (0, 0)
    return {
        "input": [_wire_message(message) for message in outcome.messages],
        "output": _output(outcome),
        "finish_reason": answer.finish_reason if answer else ("error" if outcome.fault else "stop"),
        "model": model,
        "usage": {
            "total_tokens": prompt + completion,
            "completion_tokens": completion,
            "prompt_tokens": prompt,
            "cached_tokens": 0,
        },
        "error": outcome.fault,
        "temperature": sampling.temperature,
        "max_completion_tokens": sampling.max_completion_tokens,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }


def _output(outcome: Outcome) -> list[dict[str, Any]]:
    if outcome.answer is not None:
        calls = outcome.answer.tool_calls
        return [_wire_message({"role": "assistant", "content": outcome.answer.text, "tool_calls": calls})]
    text = outcome.namespace.get("output_text")
    return [_wire_message({"role": "assistant", "content": text})] if isinstance(text, str) else []


def _wire_message(message: Mapping[str, Any]) -> dict[str, Any]:
    unused = {"tool_call_id": None, "tool_calls": None, "function_call": None}
    return {"role": message["role"], "content": message.get("content")} | {
        key: message.get(key, default) for key, default in unused.items()
    }


def tally(
    statuses: Sequence[str], results: Sequence[Sequence[Mapping[str, Any]]], usage: Mapping[str, Usage]
) -> Tally:
    """What these items add to their run."""
    criteria: dict[str, list[int]] = {}
    for result in (result for of_item in results for result in of_item):
        counts = criteria.setdefault(result["name"], [0, 0, 0])
        counts[2 if "error" in result else 0 if result["passed"] else 1] += 1
    return Tally(
        passed=statuses.count("pass"),
        failed=statuses.count("fail"),
        errored=statuses.count("error"),
        criteria={name: (passed, failed, errored) for name, (passed, failed, errored) in criteria.items()},
        usage=usage,
    )
