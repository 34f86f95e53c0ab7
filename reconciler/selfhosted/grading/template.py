"""
`{{ item.label }}` and `{{ sample.output_tools[0].function.name }}`: the whole template language.

A template only looks things up: no filters, loops or calls. It is filled in one pass, so braces
that arrive inside a value (a model's answer may contain any text) are never looked up again. A name
that leads nowhere is an error, not an empty string: a grader that silently compared nothing would pass.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

ROOTS = ("item", "sample")

_HOLE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_STEP = re.compile(
    r"""\.\s*(?P<name>[^\s.\[\]{}"']+)|\[\s*(?P<index>-?\d{1,9})\s*\]|\[\s*(?P<quote>["'])(?P<key>.*?)(?P=quote)\s*\]"""
)
_ROOT = re.compile(r"\s*(item|sample)(?![^\s.\[])\s*")


class UnknownVariable(Exception):
    """A template names something that the item and the sample do not have."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{{{{ {path} }}}}: {why}")
        self.path = path


class Variable(NamedTuple):
    """A parsed path: where it starts, and the keys and indexes to follow from there."""

    path: str
    root: str
    steps: tuple[str | int, ...]


def variables(template: str) -> list[Variable]:
    """Every variable of a template, in order. Pure. Raises UnknownVariable for what is not a path."""
    return [_parse(hole.group(1).strip()) for hole in _HOLE.finditer(template)]


def render(template: str, item: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    """The template with every variable replaced; strings as they are, anything else as JSON. Pure."""

    def fill(hole: re.Match[str]) -> str:
        value = look_up(_parse(hole.group(1).strip()), item, sample)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return _HOLE.sub(fill, template)


def look_up(variable: Variable, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Any:
    """What a variable stands for. Pure. Raises UnknownVariable when a step leads nowhere."""
    value: Any = item if variable.root == "item" else sample
    walked = variable.root
    for step in variable.steps:
        value = _follow(value, step, walked, variable.path)
        walked += f"[{step}]" if isinstance(step, int) else f".{step}"
    return value


def render_messages(
    messages: Sequence[Mapping[str, Any]], item: Mapping[str, Any], sample: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """
    Eval or grader input messages, filled in and spelled as chat-completion messages. Pure.

    Content may be a string, one part or a list of parts; a message of text alone comes out as a string.
    """
    return [
        {"role": message["role"], "content": _content(message["content"], item, sample)}
        for message in messages
    ]


def sample_of(text: str, tool_calls: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """The `sample` namespace for one answer; `output_json` is there only when the text parses. Pure."""
    sample: dict[str, Any] = {"output_text": text, "output_tools": list(tool_calls or ())}
    sample["choices"] = [
        {
            "index": 0,
            "finish_reason": "tool_calls" if tool_calls else "stop",
            "message": {"role": "assistant", "content": text, "tool_calls": list(tool_calls or ())},
        }
    ]
    with contextlib.suppress(ValueError, RecursionError):
        sample["output_json"] = json.loads(text, parse_constant=_refuse_constant)
    return sample


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse(path: str) -> Variable:
    start = _ROOT.match(path)
    if start is None:
        raise UnknownVariable(path, "a variable starts with item. or sample.")
    position, steps = start.end(), list[str | int]()
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            raise UnknownVariable(path, "write a dotted path with [0] for list indexes")
        if step["index"] is not None:
            steps.append(int(step["index"]))
        else:
            steps.append(step["name"] if step["name"] is not None else step["key"])
        position = step.end()
    return Variable(path, start.group(1), tuple(steps))


def _follow(value: Any, step: str | int, walked: str, path: str) -> Any:
    if isinstance(value, Mapping):
        if str(step) in value:
            return value[str(step)]
        names = ", ".join(sorted(map(str, value))[:10]) or "nothing"
        raise UnknownVariable(path, f"{walked} has no {step} (it has {names})")
    if isinstance(value, list | tuple):
        if isinstance(step, str) and step.isdecimal():
            step = int(step)
        if isinstance(step, int) and -len(value) <= step < len(value):
            return value[step]
        raise UnknownVariable(path, f"{walked} is a list of {len(value)} and has no {step}")
    raise UnknownVariable(path, f"{walked} is {_kind(value)} and has no {step}")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return {str: "a string", bool: "a boolean", int: "a number", float: "a number"}.get(
        type(value), "a value"
    )


def _content(content: Any, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Any:
    parts = content if isinstance(content, list | tuple) else [content]
    filled = [_part(part, item, sample) for part in parts]
    if all(part["type"] == "text" for part in filled):
        return "\n".join(part["text"] for part in filled)
    return filled


def _part(part: Any, item: Mapping[str, Any], sample: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": render(part, item, sample)}
    match part["type"]:
        case "input_image":
            image = {"url": render(part["image_url"], item, sample), "detail": part.get("detail", "auto")}
            return {"type": "image_url", "image_url": image}
        case "input_audio":
            audio = part["input_audio"]
            filled = {"data": render(audio["data"], item, sample), "format": audio["format"]}
            return {"type": "input_audio", "input_audio": filled}
        case _:
            return {"type": "text", "text": render(part["text"], item, sample)}
