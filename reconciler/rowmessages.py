"""
What is wrong with the messages and tools of a row, in sentences.

A sentence names places (`messages[2].role`), keys that look like field names, and what is allowed
there; never a value of the row, which may be anybody's.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from reconciler.loader import did_you_mean
from reconciler.rowtypes import IMAGE_URL, MAX_URL

Json = Any
Sentences = Iterator[str]

_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")


class Role(NamedTuple):
    """What a message of one role may and must hold."""

    may: tuple[str, ...]
    must: tuple[str, ...]


_ROLES = {
    "system": Role(("role", "content", "name"), ("content",)),
    "developer": Role(("role", "content", "name"), ("content",)),
    "user": Role(("role", "content", "name"), ("content",)),
    "assistant": Role(("role", "content", "refusal", "name", "weight", "tool_calls", "function_call"), ()),
    "tool": Role(("role", "content", "tool_call_id", "name"), ("content", "tool_call_id")),
    "function": Role(("role", "content", "name"), ("content", "name")),
}
REINFORCEMENT_ROLES = ("developer", "user", "assistant", "tool")


def messages_flaws(
    messages: Json, at: str, roles: tuple[str, ...] = tuple(_ROLES), max_images: int = 0
) -> Sentences:
    if not isinstance(messages, list) or not messages:
        yield f"{at} must be a list of at least one message"
        return
    for i, message in enumerate(messages):
        place = f"{at}[{i}]"
        if not isinstance(message, dict):
            yield f"{place} must be an object, not {a(message)}"
        elif "role" not in message:
            yield f"{place} has no role; write one of {', '.join(roles)}"
        elif message["role"] not in roles:
            yield f"{place}.role is not one of {', '.join(roles)}{_meant(message['role'], roles)}"
        else:
            yield from _message_flaws(message, place, max_images)


def _message_flaws(message: dict[str, Json], at: str, max_images: int) -> Sentences:
    role = message["role"]
    if role != "assistant" and "weight" in message:
        yield f"{at}.weight is for assistant messages only"
        message = {key: value for key, value in message.items() if key != "weight"}
    yield from key_flaws(at, message, *_ROLES[role])
    for key in ("name", "tool_call_id"):
        if not isinstance(message.get(key, ""), str):
            yield f"{at}.{key} must be text"
    content = message.get("content", "")
    if content is not None or role not in ("assistant", "function"):
        yield from _content_flaws(content, f"{at}.content", role, max_images)
    if role == "assistant":
        yield from _assistant_flaws(message, at)


def _assistant_flaws(message: dict[str, Json], at: str) -> Sentences:
    if all(message.get(key) is None for key in ("content", "refusal", "tool_calls", "function_call")):
        yield f"{at} has neither content nor tool_calls; an assistant message says or calls something"
    weight = message.get("weight", 1)
    if isinstance(weight, bool) or weight not in (0, 1):
        yield f"{at}.weight must be 0 or 1"
    if not isinstance(message.get("refusal"), str | None):
        yield f"{at}.refusal must be text"
    if message.get("function_call") is not None:
        yield from _call_flaws(message["function_call"], f"{at}.function_call")
    if "tool_calls" in message:
        calls = message["tool_calls"]
        if not isinstance(calls, list) or not calls:
            yield f"{at}.tool_calls must be a list of at least one call; leave it out if there is none"
            return
        for i, call in enumerate(calls):
            yield from _tool_call_flaws(call, f"{at}.tool_calls[{i}]")


def _tool_call_flaws(call: Json, at: str) -> Sentences:
    if not isinstance(call, dict):
        yield f"{at} must be an object, not {a(call)}"
        return
    keys = ("id", "type", "function")
    yield from key_flaws(at, call, keys, keys)
    if not isinstance(call.get("id", ""), str):
        yield f"{at}.id must be text"
    if call.get("type", "function") != "function":
        yield f"{at}.type must be function"
    if "function" in call:
        yield from _call_flaws(call["function"], f"{at}.function")


def _call_flaws(call: Json, at: str) -> Sentences:
    if not isinstance(call, dict):
        yield f"{at} must be an object, not {a(call)}"
        return
    yield from key_flaws(at, call, ("name", "arguments"), ("name", "arguments"))
    if not isinstance(call.get("name", ""), str):
        yield f"{at}.name must be text"
    if not isinstance(call.get("arguments", ""), str):
        yield f"{at}.arguments must be text that holds JSON"


def _content_flaws(content: Json, at: str, role: str, max_images: int) -> Sentences:
    if isinstance(content, str):
        return
    if not isinstance(content, list) or role == "function":
        yield f"{at} must be text{'' if role == 'function' else ' or a list of parts'}, not {a(content)}"
        return
    if not content:
        yield f"{at} is an empty list"
    for i, part in enumerate(content):
        place = f"{at}[{i}]"
        if not isinstance(part, dict):
            yield f"{place} must be an object, not {a(part)}"
        elif part.get("type") == "text":
            yield from key_flaws(place, part, ("type", "text"), ("text",))
            if not isinstance(part.get("text", ""), str):
                yield f"{place}.text must be text"
        elif part.get("type") == "image_url":
            if role != "user":
                yield f"{place} is an image; images are for user messages only"
            elif not max_images:
                yield f"{place} is an image; images need format: vision"
            else:
                yield from _image_flaws(part, place)
        else:
            yield f"{place}.type must be text{' or image_url' if max_images else ''}"


def _image_flaws(part: dict[str, Json], at: str) -> Sentences:
    yield from key_flaws(at, part, ("type", "image_url"), ("image_url",))
    image = part.get("image_url", {})
    if not isinstance(image, dict):
        yield f"{at}.image_url must be an object with url, not {a(image)}"
        return
    if "image_url" in part:
        yield from key_flaws(f"{at}.image_url", image, ("url", "detail"), ("url",))
    url = image.get("url", "https://")
    if not isinstance(url, str) or not re.match(IMAGE_URL, url):
        yield f"{at}.image_url.url must be an http(s) URL or a base64 data URI of a JPEG, PNG or WEBP image"
    elif len(url) > MAX_URL:
        yield f"{at}.image_url.url holds more than 10 MB"
    if image.get("detail", "auto") not in ("low", "high", "auto"):
        yield f"{at}.image_url.detail must be low, high or auto"


def tools_flaws(row: dict[str, Json], at: str) -> Sentences:
    if not isinstance(row.get("parallel_tool_calls", True), bool):
        yield f"{at}parallel_tool_calls must be true or false"
    tools = row.get("tools", [])
    if not isinstance(tools, list):
        yield f"{at}tools must be a list, not {a(tools)}"
        return
    for i, tool in enumerate(tools):
        place = f"{at}tools[{i}]"
        if not isinstance(tool, dict):
            yield f"{place} must be an object, not {a(tool)}"
        elif tool.get("type") != "function":
            yield f"{place}.type must be function"
        else:
            yield from function_flaws(tool.get("function"), f"{place}.function")


def function_flaws(function: Json, at: str) -> Sentences:
    if not isinstance(function, dict):
        yield f"{at} must be an object with a name"
        return
    if not isinstance(function.get("name"), str):
        yield f"{at}.name must be text"
    if not isinstance(function.get("description", ""), str):
        yield f"{at}.description must be text"
    if not isinstance(function.get("parameters", {}), dict):
        yield f"{at}.parameters must be an object"


def key_flaws(at: str, value: dict[str, Json], may: tuple[str, ...], must: tuple[str, ...]) -> Sentences:
    for key in value:
        if key not in may:
            shown = f"the unknown key {key}" if _FIELD_NAME.fullmatch(key) else "an unknown key"
            yield f"{at} has {shown}{_meant(key, may) or '; it may hold ' + ', '.join(may)}"
    for key in must:
        if key not in value:
            yield f"{at} has no {key}"


def _meant(word: Json, options: tuple[str, ...]) -> str:
    meant = did_you_mean(word, options) if isinstance(word, str) else None
    return f"; did you mean {meant}" if meant else ""


def images(messages: Json) -> int:
    return sum(
        isinstance(part, dict) and part.get("type") == "image_url"
        for message in as_list(messages)
        if isinstance(message, dict) and message.get("role") == "user"
        for part in as_list(message.get("content"))
    )


def as_list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def a(value: Json) -> str:
    """What JSON calls the type of `value`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", list: "a list", dict: "an object"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "a number")
