"""
Asks as bodies for OpenAI-compatible servers, and what those answer as Answers. Pure.

Temperature and top_p are always sent, for a server's own defaults differ from OpenAI's. What an upstream
answers is not trusted to have any shape: whatever is no chat completion is a ValueError, and no more.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from reconciler.selfhosted.engine.values import Answer, Ask, Embedding

PARTS = {"input_text": "text", "output_text": "text"}
VERSION = b"1\0"  # of the cache's keys and values


def body_of(ask: Ask, model: str) -> dict[str, Any]:
    """The request that asks this of a model by the name that it has there."""
    optional: dict[str, Any] = {
        "tools": ask.tools,
        "seed": ask.seed,
        "max_completion_tokens": ask.max_tokens,
        "stop": list(ask.stop) or None,
        "response_format": ask.response_format,
        "logprobs": None if ask.logprobs is None else True,
        "top_logprobs": ask.logprobs or None,
        "tool_choice": _choice(ask.must_call),
        "presence_penalty": ask.presence_penalty or None,
        "frequency_penalty": ask.frequency_penalty or None,
        "logit_bias": ask.logit_bias or None,
    }
    return {
        "model": model,
        "messages": [chat_message(message) for message in ask.messages],
        "temperature": ask.temperature,
        "top_p": ask.top_p,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _choice(must_call: Sequence[str]) -> Any:
    if len(must_call) == 1:
        return {"type": "function", "function": {"name": must_call[0]}}
    return "required" if must_call else None


def chat_message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message as chat completions spell it: evals say `input_text` and `input_image`."""
    content = message.get("content")
    if isinstance(content, Mapping):
        content = [content]
    return {**message, "content": [_part(part) for part in content]} if isinstance(content, list) else message


def _part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in PARTS:
        return {"type": PARTS[kind], "text": part.get("text")}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    return part


def repeatable(ask: Ask) -> bool:
    """Whether the same request means the same answer: it is greedy, or has a seed."""
    return ask.seed is not None or ask.temperature == 0


def key_of(base_url: str, body: Mapping[str, Any]) -> bytes:
    """The digest of exactly this request to this place."""
    exact = msgspec.json.encode([base_url, body], order="sorted")
    return hashlib.sha256(VERSION + exact).digest()


def answer_of(raw: bytes) -> Answer:
    """A chat completion's first choice. Raises ValueError for anything else."""
    try:
        body = msgspec.json.decode(raw)
        choice = body["choices"][0]
        message = choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        usage = body.get("usage") or {}
        made = {
            "text": text,
            "finish_reason": choice.get("finish_reason") or "stop",
            "tool_calls": message.get("tool_calls") or None,
            "prompt_tokens": usage.get("prompt_tokens") or 0,
            "completion_tokens": usage.get("completion_tokens") or 0,
            "logprobs": (choice.get("logprobs") or {}).get("content"),
        }
        return msgspec.convert(made, Answer)
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as wrong:
        raise ValueError("no chat completion") from wrong


def embeddings_of(raw: bytes, count: int) -> list[Embedding]:
    """As many vectors, of unit length. Raises ValueError for anything else."""
    try:
        body = msgspec.json.decode(raw)
        data = sorted(body["data"], key=lambda each: each["index"])
        vectors = [msgspec.convert(each["embedding"], list[float]) for each in data]
        tokens = int((body.get("usage") or {}).get("prompt_tokens") or 0)
    except (KeyError, TypeError, AttributeError, RecursionError) as wrong:
        raise ValueError("no embeddings") from wrong
    if len(vectors) != count or not count:
        raise ValueError(f"{len(vectors)} embeddings for {count} texts")
    # Only the sum of the tokens is told: the first text carries it.
    return [Embedding(_unit(vector), tokens if at == 0 else 0) for at, vector in enumerate(vectors)]


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.hypot(*vector)
    return [value / length for value in vector] if length else list(vector)


class Told:
    """A streamed chat completion, put together as its chunks come."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._usage: Mapping[str, Any] = {}

    def hear(self, raw: bytes) -> str:
        """The text that a chunk adds. Raises ValueError for what is no chunk."""
        try:
            chunk = msgspec.json.decode(raw)
            if chunk.get("error"):
                raise ValueError("the stream broke off with an error")
            self._usage = chunk.get("usage") or self._usage
            for choice in chunk.get("choices") or ():
                self._finish = choice.get("finish_reason") or self._finish
                self._logprobs += (choice.get("logprobs") or {}).get("content") or ()
                delta = choice.get("delta") or {}
                for part in delta.get("tool_calls") or ():
                    self._call(part)
                text = str(delta.get("content") or delta.get("refusal") or "")
                self._text.append(text)
                return text
            return ""
        except (KeyError, TypeError, AttributeError, RecursionError) as wrong:
            raise ValueError("no chunk of a chat completion") from wrong

    def _call(self, part: Mapping[str, Any]) -> None:
        new = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        call = self._calls.setdefault(int(part.get("index") or 0), new)
        call["id"] = part.get("id") or call["id"]
        said = part.get("function") or {}
        call["function"]["name"] += said.get("name") or ""
        call["function"]["arguments"] += said.get("arguments") or ""

    def answer(self) -> Answer:
        """The whole answer. Raises ValueError when the stream ended before its end."""
        if self._finish is None:
            raise ValueError("the stream ended before the answer did")
        return Answer(
            text="".join(self._text),
            finish_reason=self._finish,
            tool_calls=[self._calls[at] for at in sorted(self._calls)] or None,
            prompt_tokens=int(self._usage.get("prompt_tokens") or 0),
            completion_tokens=int(self._usage.get("completion_tokens") or 0),
            logprobs=self._logprobs or None,
        )
