"""OpenAI's rows and messages as text and as chat templates expect them. Pure, and needs no template engine."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

ROLES = {"developer": "system", "function": "tool"}
HOLE = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)
STEP = re.compile(r"[^\s.\[\]\"']+")

Message = Mapping[str, Any]


class Refused(Exception):
    """A chat template does not take a row."""


def for_template(messages: Sequence[Message], picture: str = "") -> list[dict[str, Any]]:
    """The messages with the roles, texts and tool calls that open models' templates know."""
    return [_message(message, picture) for message in messages]


def tools_of(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The tools of a row, the deprecated `functions` included; None when it has none."""
    tools = [dict(tool) for tool in row.get("tools") or ()]
    tools += [{"type": "function", "function": dict(each)} for each in row.get("functions") or ()]
    return tools or None


def text_of(content: Any, picture: str = "") -> str:
    """The text of a message's content; `picture` stands where a picture is shown."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(
        picture if part.get("type") == "image_url" else part.get("text") or part.get("refusal") or ""
        for part in content
    )


def pictures_of(messages: Sequence[Message]) -> int:
    parts = (m["content"] for m in messages if isinstance(m.get("content"), list))
    return sum(part.get("type") == "image_url" for each in parts for part in each)


def filled(asked: Sequence[Message] | str | None, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    The messages that one row asks: `asked` with the row's item in its holes, the messages at a path such as
    `item.input`, or for None the row's own. What a model answered before is left empty.
    """
    if asked is None:
        return list(row.get("messages") or ())
    if isinstance(asked, str):
        said = _found(asked, row)
        return list(said) if isinstance(said, list) else []

    def fill(hole: re.Match[str]) -> str:
        value = _found(hole[1], row)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return [{**m, "content": HOLE.sub(fill, text_of(m["content"]))} for m in asked]


def answers_in(asked: Sequence[Message]) -> int:
    """How often messages quote what a model answered."""
    return sum(hole.startswith("sample") for m in asked for hole in HOLE.findall(text_of(m["content"])))


def _found(path: str, row: Mapping[str, Any]) -> Any:
    value: Any = row
    for step in STEP.findall(path):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, ValueError, TypeError):
            return ""
    return value


def _message(message: Message, picture: str) -> dict[str, Any]:
    content = text_of(message.get("content"), picture) or text_of(message.get("refusal"))
    turn: dict[str, Any] = {"role": ROLES.get(message["role"], message["role"]), "content": content}
    calls = list(message.get("tool_calls") or ())
    if message.get("function_call"):
        calls.append({"type": "function", "function": message["function_call"]})
    if calls:
        turn["tool_calls"] = [_call(call) for call in calls]
    return turn | {key: message[key] for key in ("name", "tool_call_id") if message.get(key) is not None}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    named = {"name": function["name"], "arguments": _arguments(function.get("arguments", ""))}
    return {**{key: call[key] for key in ("id", "type") if key in call}, "function": named}


def _arguments(arguments: Any) -> Any:
    """The object that the text says; the text itself when it says none."""
    if not isinstance(arguments, str):
        return arguments
    try:
        said = json.loads(arguments)
    except ValueError:
        return arguments
    return said if isinstance(said, dict) else arguments
