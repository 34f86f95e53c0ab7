"""
What is asked of the engine and what it answers. Plain values: no torch, no transport.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ask:
    """One generation: OpenAI chat messages in, one assistant message out."""

    model: str  # absolute path of a model folder
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    seed: int | None = None  # None draws another one each time
    max_tokens: int | None = None  # None: what fits into the context
    stop: Sequence[str] = ()
    logprobs: int | None = None  # alternatives per token; 0 gives the chosen token's alone; None gives none
    response_format: Mapping[str, Any] | None = None
    must_call: Sequence[str] = ()  # the answer is a call of one of these tools, and nothing else
    presence_penalty: float = 0.0  # off the logits of tokens that were said
    frequency_penalty: float = 0.0  # the same, once for each time
    logit_bias: Mapping[str, float] = field(default_factory=dict)  # onto the logits, by token id


@dataclass(frozen=True)
class Answer:
    """What one `Ask` produced; token counts include the end token."""

    text: str
    finish_reason: str  # stop | length | tool_calls
    tool_calls: list[dict[str, Any]] | None
    prompt_tokens: int
    completion_tokens: int
    logprobs: list[dict[str, Any]] | None  # as in OpenAI's `choices[].logprobs.content`
    latency_ms: float | None = None  # of this answer alone, where it was not made in a batch


Text = str | list[int]  # what is embedded: a text, or the tokens of one


@dataclass(frozen=True)
class Embedding:
    """A text as a vector of unit length, and how many tokens it had."""

    vector: list[float]
    tokens: int


class EngineError(Exception):
    """
    Why an ask has no answer; the engine itself goes on.

    Codes: `model_not_found`, `model_unloadable`, `context_length_exceeded`, `invalid_request` (the ask is
    wrong), `engine_failed` (this generation broke), `engine_unavailable` (the process could not be started
    or died twice).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EngineError) and (self.code, self.message) == (other.code, other.message)

    def __hash__(self) -> int:
        return hash((self.code, self.message))
