"""
What a grader says about one item: a score, whether that passes, and what went wrong, in the contract's words.

A grader that could not do its work scores 0, never passes, and raises one of the contract's error flags;
it never raises out of `grade`. Errors of one item therefore stay with that item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Flag = Literal[
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "other_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
]
FLAGS: tuple[Flag, ...] = Flag.__args__  # type: ignore[attr-defined]

# Flags that carry a text of their own on the wire.
DETAILS: dict[Flag, str] = {
    "python_grader_server_error": "python_grader_server_error_type",
    "python_grader_runtime_error": "python_grader_runtime_error_details",
    "model_grader_server_error": "model_grader_server_error_details",
}


@dataclass(frozen=True)
class JudgeAnswer:
    """What a judge model said; `usage` as in a chat completion; `refusal` when it declined."""

    text: str
    usage: Mapping[str, Any] | None = None
    refusal: str | None = None


class JudgeFailed(Exception):
    """The judge model could not be asked; the message says why."""


class Judge(Protocol):
    """Asks the models that grade. Raises JudgeFailed."""

    async def ask(
        self,
        model: str,
        messages: list[dict[str, Any]],
        response_format: dict[str, Any] | None,
        sampling: dict[str, Any],
    ) -> JudgeAnswer: ...


class Embedder(Protocol):
    """Turns texts into vectors of unit length. Raises JudgeFailed."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]: ...


@dataclass(frozen=True)
class Problem:
    """One thing that went wrong, and the flag that says so on the wire."""

    flag: Flag
    text: str


class CannotGrade(Exception):
    """Raised inside a grader: it has no score, and this is why."""

    def __init__(self, flag: Flag, text: str) -> None:
        super().__init__(text)
        self.problem = Problem(flag, text)


@dataclass(frozen=True)
class Scored:
    """A grader's own result, before it is judged against its threshold."""

    score: float
    problems: tuple[Problem, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)  # of a multi grader's members
    usage: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # judge model -> tokens
    sample: Mapping[str, Any] | None = None  # what the judge answered, parsed


@dataclass(frozen=True)
class Grade:
    """`error` is None or one sentence; `metadata` is the contract's object of a grader run (2.10)."""

    score: float
    passed: bool
    error: str | None
    metadata: dict[str, Any]
    sub_rewards: Mapping[str, float] = field(default_factory=dict)
    usage: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sample: Mapping[str, Any] | None = None


def grade_of(grader: Mapping[str, Any], scored: Scored, seconds: float) -> Grade:
    """A grader's result judged against its threshold and put in the contract's words. Pure."""
    model = grader.get("model")
    metadata = {
        "name": grader.get("name"),
        "type": grader.get("type"),
        "errors": errors(scored.problems),
        "execution_time": seconds,
        "scores": dict(scored.scores),
        "token_usage": scored.usage.get(model) if isinstance(model, str) else None,
        "sampled_model_name": model,
    }
    return Grade(
        score=scored.score,
        passed=not scored.problems and scored.score >= threshold(grader),
        error="; ".join(problem.text for problem in scored.problems) or None,
        metadata=metadata,
        sub_rewards=scored.scores,
        usage=scored.usage,
        sample=scored.sample,
    )


def errors(problems: tuple[Problem, ...]) -> dict[str, Any]:
    """The contract's `errors` object: every flag, and the texts that some of them carry. Pure."""
    raised = {problem.flag for problem in problems}
    found: dict[str, Any] = {}
    for flag in FLAGS:
        found[flag] = flag in raised
        if flag in DETAILS:
            found[DETAILS[flag]] = next((p.text for p in problems if p.flag == flag), None)
    return found


def threshold(grader: Mapping[str, Any]) -> float:
    """The least score that passes: `pass_threshold`, else 1 for checks and labels, else mid-range. Pure."""
    if grader.get("pass_threshold") is not None:
        return float(grader["pass_threshold"])
    if grader["type"] in ("string_check", "label_model"):
        return 1.0
    low, high = grader.get("range") or (0.0, 1.0)
    return (float(low) + float(high)) / 2
