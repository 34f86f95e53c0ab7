"""
What a chat completion may ask for, checked. Pure.

A parameter that we do not know passes, as it does at OpenAI; one that we know and cannot honour is
refused, because an answer that silently ignored it would be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.selfhosted import wire
from reconciler.selfhosted.engine.values import Ask
from reconciler.selfhosted.serving import tools
from reconciler.selfhosted.serving.sampling import (
    Problem,
    Sampling,
    Served,
    ask_of,
    read_sampling,
    seed_of_item,
)
from reconciler.selfhosted.wire import WireError

ROLES = ("developer", "system", "user", "assistant", "tool", "function")
MAX_CHOICES = 128
MAX_STOPS = 4
MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True)
class Chat:
    """A checked request for a chat completion."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    sampling: Sampling
    choices: int = 1
    stop: tuple[str, ...] = ()
    must_call: tuple[str, ...] = ()  # tools, one of which must be called
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[str, float] = field(default_factory=dict)
    logprobs: int | None = None  # alternatives per token; None: none are wanted
    stream: bool = False
    include_usage: bool = False
    store: bool = False

    def asks(self, model: Served) -> list[Ask]:
        """One ask per choice; with a seed each choice has its own, and the first has the seed itself."""
        one = replace(
            ask_of(model, self.messages, self.sampling),
            stop=self.stop,
            logprobs=self.logprobs,
            must_call=self.must_call,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias,
        )
        seed = self.sampling.seed
        if seed is None:
            return [one] * self.choices
        return [
            replace(one, seed=seed if choice == 0 else seed_of_item(seed, choice))
            for choice in range(self.choices)
        ]


def read(body: Mapping[str, Any]) -> Chat:
    """The request, or a 400 that names the first parameter that is wrong and every problem found."""
    problems = _message_problems(body.get("messages"))
    model = body.get("model")
    if not isinstance(model, str) or not model:
        problems.insert(0, Problem("model", "is required and must be the name of a model"))
    sampling, wrong = read_sampling(body, where="")
    problems += wrong + _unsupported(body)
    choices = _whole(body, "n", 1, MAX_CHOICES, 1, problems)
    top = _whole(body, "top_logprobs", 0, MAX_TOP_LOGPROBS, 0, problems)
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        problems.append(Problem("top_logprobs", "needs logprobs to be true"))
    stop = body.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(_is_text(each) for each in stops):
        problems.append(Problem("stop", f"must be a string, or a list of at most {MAX_STOPS} strings"))
    options = body.get("stream_options")
    if options is not None and (not isinstance(options, Mapping) or not body.get("stream")):
        problems.append(Problem("stream_options", "must be an object, and needs stream to be true"))
    problems += _store_problems(body)
    choice = tools.chosen(body.get("tool_choice"), sampling.tools, problems)
    presence = _penalty(body, "presence_penalty", problems)
    frequency = _penalty(body, "frequency_penalty", problems)
    bias = _bias(body.get("logit_bias"), problems)
    if problems:
        raise wire.bad("; ".join(map(str, problems)), problems[0].param, "invalid_value")
    return Chat(
        model=str(model),
        messages=body["messages"],
        sampling=replace(sampling, seed=body.get("seed"), tools=choice.tools),
        choices=choices,
        stop=tuple(stops),
        must_call=choice.must_call,
        presence_penalty=presence,
        frequency_penalty=frequency,
        logit_bias=bias,
        logprobs=top if body.get("logprobs") else None,
        stream=bool(body.get("stream")),
        include_usage=bool((options or {}).get("include_usage")),
        store=bool(body.get("store")),
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _whole(
    body: Mapping[str, Any], name: str, low: int, high: int, default: int, problems: list[Problem]
) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        problems.append(Problem(name, f"must be an integer from {low} to {high}, got {value!r}"))
        return default
    return value


def _penalty(body: Mapping[str, Any], name: str, problems: list[Problem]) -> float:
    value = body.get(name)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not -2 <= value <= 2:
        problems.append(Problem(name, f"must be a number from -2 to 2, got {value!r}"))
        return 0.0
    return float(value)


def _bias(given: Any, problems: list[Problem]) -> Mapping[str, float]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(map(_is_bias, given, given.values())):
        problems.append(Problem("logit_bias", "must map token ids to numbers from -100 to 100"))
        return {}
    return {token: float(value) for token, value in given.items()}


def _is_bias(token: Any, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(token, str) and token.isascii() and token.isdigit() and number and -100 <= value <= 100


def _message_problems(messages: Any) -> list[Problem]:
    if not isinstance(messages, list) or not messages:
        return [Problem("messages", "is required and must be a list with at least one message")]
    return [
        problem
        for position, message in enumerate(messages)
        if (problem := _message_problem(message, f"messages[{position}]"))
    ]


def _message_problem(message: Any, where: str) -> Problem | None:
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        return Problem(where, f"must be a message with a role of {', '.join(ROLES)}")
    content = message.get("content")
    calls = message.get("tool_calls")
    if content is None:
        spoken = message["role"] == "assistant" and (calls or message.get("function_call"))
        return None if spoken else Problem(f"{where}.content", "is required")
    if isinstance(content, str):
        return None
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        return Problem(f"{where}.content", "must be a string or a list of content parts")
    for position, part in enumerate(content):
        if part.get("type") == "image_url" and message["role"] == "user":
            if not _is_picture(part.get("image_url")):
                sentence = "needs an image_url with a url, or with the file_id of a picture"
                return Problem(f"{where}.content[{position}]", sentence)
            continue
        if not isinstance(part.get("text", part.get("refusal")), str):
            kind = part.get("type")
            return Problem(
                f"{where}.content[{position}]", f"must be text; this server reads no part of type {kind!r}"
            )
    return None


def _is_picture(image: Any) -> bool:
    if not isinstance(image, Mapping):
        return False
    return [_is_text(image.get("url")), _is_text(image.get("file_id"))].count(True) == 1


def _store_problems(body: Mapping[str, Any]) -> list[Problem]:
    if not isinstance(body.get("store"), bool | None):
        return [Problem("store", "must be true or false")]
    try:
        metadata = wire.checked_metadata(body.get("metadata"))
    except WireError as wrong:
        return [Problem(wrong.param or "metadata", wrong.message)]
    if metadata and not body.get("store"):
        return [Problem("metadata", "is only allowed when store is true")]
    return []


def _unsupported(body: Mapping[str, Any]) -> list[Problem]:
    problems = [
        Problem(name, "is not supported by this server; leave it out")
        for name in ("audio", "functions")
        if body.get(name)
    ]
    if body.get("modalities") not in (None, ["text"]):
        problems.append(Problem("modalities", "must be ['text']; this server speaks text only"))
    return problems
