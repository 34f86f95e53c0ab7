"""
Chat messages to prompt tokens, and generated text back to an assistant message.

The tokenizer's own chat template decides the format. Tool calls are read in the form that Hermes, Qwen and
the packaged base model write: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.selfhosted.engine.values import Ask, EngineError
from reconciler.selfhosted.training import pictures, turns
from reconciler.selfhosted.training.eyes import Eyes

OPENS, CLOSES = "<tool_call>", "</tool_call>"


def tokens(tokenizer: Any, ask: Ask, picture: str = "") -> list[int]:
    """
    The prompt of `ask` under the tokenizer's chat template; `invalid_request` when that refuses it.

    `picture` is the text that stands for a picture where the model sees, "" where it reads text only.
    """
    try:
        for message in ask.messages:
            _only_readable(message, sees=bool(picture))
        messages = turns.for_template(ask.messages, picture)  # as they were in training
        text = tokenizer.apply_chat_template(
            messages, tools=list(ask.tools) if ask.tools else None, add_generation_prompt=True, tokenize=False
        )
    except EngineError:
        raise
    # a template is a stranger's program over a stranger's messages
    except Exception as error:
        raise EngineError(
            "invalid_request", f"the model's chat template refused the messages: {error}"
        ) from error
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if not ids:
        raise EngineError(
            "invalid_request", "the prompt is empty under the model's chat template; send a message"
        )
    return ids


def shown(eyes: Eyes | None, ask: Ask, prompt: Sequence[int]) -> Any:
    """The pictures of `ask` as the model takes them, None without any; `invalid_request` for a bad one."""
    urls = list(pictures.urls(ask.messages)) if eyes else []
    if eyes is None or prompt.count(eyes.token) != len(urls) * eyes.count:
        if eyes:
            raise EngineError("invalid_request", "the text of the messages spells the mark of a picture")
        return None
    if len(urls) > pictures.MOST:
        raise EngineError(
            "invalid_request", f"the messages show {len(urls)} pictures; {pictures.MOST} are the most"
        )
    seen = []
    for number, url in enumerate(urls, start=1):
        try:
            seen.append(pictures.read(url))
        except pictures.BadPicture as bad:
            raise EngineError("invalid_request", f"picture {number} {bad}") from None
    return eyes.pixels(seen) if seen else None


def _only_readable(message: Mapping[str, Any], *, sees: bool) -> None:
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if sees and part.get("type") == "image_url":
            continue
        if not isinstance(part.get("text", part.get("refusal")), str):
            kind = part.get("type")
            reads = "text and pictures" if sees else "text only"
            raise EngineError("invalid_request", f"this model reads {reads}, not a part of type {kind}")


class Said(NamedTuple):
    text: str
    tool_calls: list[dict[str, Any]] | None


def said(text: str, prompt: Sequence[int]) -> Said:
    """
    `text` split into content and the tool calls that follow it. Pure.

    What is not a well-formed call stays content. Call ids depend on prompt and text only, so they repeat
    with them.
    """
    calls: list[dict[str, Any]] = []
    first = at = text.find(OPENS)
    while at >= 0:
        call = _parsed(text[at + len(OPENS) :])
        if call is None:
            return Said(text, None)
        seed = f"{list(prompt)}\n{text}\n{len(calls)}".encode()
        calls.append(
            {"id": f"call_{hashlib.sha256(seed).hexdigest()[:24]}", "type": "function", "function": call}
        )
        at = text.find(OPENS, at + len(OPENS))
    return Said(text[:first].rstrip(), calls) if calls else Said(text, None)


def _parsed(text: str) -> dict[str, str] | None:
    try:
        call, end = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return None
    rest = text.lstrip()[end:].lstrip()
    if (
        not isinstance(call, dict)
        or not isinstance(call.get("name"), str)
        or (rest and not rest.startswith(CLOSES))
    ):
        return None
    arguments = call.get("arguments", {})
    return {
        "name": call["name"],
        "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False),
    }
