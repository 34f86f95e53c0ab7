"""
Graders that ask a model: a score within a range, or one of some labels.

The judge is asked for structured output and its answer is parsed as strict JSON. What it says is
never trusted further than that: a score is clipped to the range, a label must be one of those declared.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from .grades import CannotGrade, Judge, JudgeAnswer, JudgeFailed, Problem, Scored
from .template import render_messages

_STEPS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"description": {"type": "string"}, "conclusion": {"type": "string"}},
        "required": ["description", "conclusion"],
        "additionalProperties": False,
    },
}
_SAMPLING = ("seed", "top_p", "temperature", "reasoning_effort")
_TOKENS = ("max_completion_tokens", "max_completions_tokens")  # the schema's spelling, and the wire's


async def score_model(
    grader: Mapping[str, Any], item: Mapping[str, Any], sample: Mapping[str, Any], judge: Judge
) -> Scored:
    """The judge's `result`, clipped to the grader's range; 0 and a parse error when it is not a number."""
    low, high = (float(bound) for bound in grader.get("range") or (0.0, 1.0))
    number = {"type": "number", "description": f"the score, from {low:g} to {high:g}"}
    answer = await _ask(grader, item, sample, judge, _schema("score", {"steps": _STEPS, "result": number}))
    said = _parsed(answer)
    result = said.get("result")
    if isinstance(result, bool) or not isinstance(result, int | float) or not _finite(result):
        return _unusable(grader, answer, "a result that is not a number")
    return Scored(min(high, max(low, float(result))), usage=_usage(grader, answer), sample=said)


async def label_model(
    grader: Mapping[str, Any], item: Mapping[str, Any], sample: Mapping[str, Any], judge: Judge
) -> Scored:
    """1 when the judge's label is a passing one, 0 when it is another, a parse error when it is none."""
    label = {"type": "string", "enum": list(grader["labels"])}
    answer = await _ask(grader, item, sample, judge, _schema("label", {"steps": _STEPS, "label": label}))
    said = _parsed(answer)
    if said.get("label") not in grader["labels"]:
        return _unusable(grader, answer, "a label that is not declared")
    score = 1.0 if said["label"] in grader["passing_labels"] else 0.0
    return Scored(score, usage=_usage(grader, answer), sample=said)


def sampling_of(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """A grader's `sampling_params` in chat-completion words, absent where not set. Pure."""
    given = {key: value for key, value in (params or {}).items() if value is not None}
    sampling = {key: given[key] for key in _SAMPLING if key in given}
    for key in _TOKENS:
        if key in given:
            sampling["max_completion_tokens"] = given[key]
    return sampling


async def _ask(
    grader: Mapping[str, Any],
    item: Mapping[str, Any],
    sample: Mapping[str, Any],
    judge: Judge,
    response_format: dict[str, Any],
) -> JudgeAnswer:
    messages = render_messages(grader["input"], item, sample)
    sampling = sampling_of(grader.get("sampling_params"))
    try:
        answer = await judge.ask(grader["model"], messages, response_format, sampling)
    except JudgeFailed as failed:
        raise CannotGrade("model_grader_server_error", str(failed)) from failed
    if answer.refusal is not None:
        raise CannotGrade("model_grader_refusal_error", f"{grader['model']} refused to grade")
    return answer


def _schema(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


def _parsed(answer: JudgeAnswer) -> dict[str, Any]:
    """The judge's answer as an object; empty, and so lacking every key, when it is not one."""
    try:
        said = json.loads(answer.text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _unusable(grader: Mapping[str, Any], answer: JudgeAnswer, what: str) -> Scored:
    """0, with the tokens that were spent on it."""
    problem = Problem(
        "model_grader_parse_error", f"{grader['model']} gave no answer to the schema, or {what}"
    )
    return Scored(0.0, (problem,), usage=_usage(grader, answer))


def _finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond 1e308
        return False


def _usage(grader: Mapping[str, Any], answer: JudgeAnswer) -> dict[str, Mapping[str, Any]]:
    return {str(grader["model"]): answer.usage} if answer.usage is not None else {}
