"""
OpenAI's chat messages as chat templates expect them.

Templates of open models know the roles system, user, assistant and tool, text as one string, and tool
arguments as an object; OpenAI's rows also say developer and function, split text into parts, and carry
arguments as a string of JSON. Whoever renders a conversation, to train on it or to answer it, renders it
through here, or the model meets in production what it never saw in training. Free of torch. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_ROLES = {"developer": "system", "function": "tool"}


def for_template(messages: Sequence[Mapping[str, Any]], picture: str = "") -> list[dict[str, Any]]:
    """
    The messages with the roles, texts and tool calls that templates know; `weight` is gone.

    `picture` is what stands in the text for each picture.
    """
    return [_message(message, picture) for message in messages]


def tools_for_template(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The tools of a row or request, the deprecated `functions` included; None when it has none."""
    tools = [dict(tool) for tool in row.get("tools") or ()]
    tools += [{"type": "function", "function": dict(function)} for function in row.get("functions") or ()]
    return tools or None


def _message(message: Mapping[str, Any], picture: str) -> dict[str, Any]:
    role = message["role"]
    content = _text(message.get("content"), picture)
    turn: dict[str, Any] = {
        "role": _ROLES.get(role, role),
        "content": content or _text(message.get("refusal")),
    }
    calls = list(message.get("tool_calls") or ())
    if message.get("function_call"):
        calls.append({"type": "function", "function": message["function_call"]})
    if calls:
        turn["tool_calls"] = [_call(call) for call in calls]
    for key in ("name", "tool_call_id"):
        if message.get(key) is not None:
            turn[key] = message[key]
    return turn


def _text(content: Any, picture: str = "") -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(
        picture if part.get("type") == "image_url" else part.get("text") or part.get("refusal") or ""
        for part in content
    )


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    named = {"name": function["name"], "arguments": _arguments(function.get("arguments", ""))}
    kept = {key: call[key] for key in ("id", "type") if key in call}
    return {**kept, "function": named}


def _arguments(arguments: Any) -> Any:
    """The object that the text says; the text itself when it says none, as some models have called."""
    if not isinstance(arguments, str):
        return arguments
    try:
        said = json.loads(arguments)
    except ValueError:
        return arguments
    return said if isinstance(said, dict) else arguments
