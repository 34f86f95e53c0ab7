"""
What is wrong with a row that did not pass the fast test, in sentences. Nothing, perhaps.

A sentence names places (`messages[2].role`), keys that look like field names, and what is allowed
there; never a value of the row, which may be anybody's.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from reconciler.rowmessages import (
    REINFORCEMENT_ROLES,
    Json,
    Sentences,
    a,
    as_list,
    function_flaws,
    images,
    key_flaws,
    messages_flaws,
    tools_flaws,
)
from reconciler.rowtypes import MAX_FUNCTIONS, MAX_IMAGES

FORMATS = ("chat", "vision", "preference", "reinforcement", "items")

_ROW_KEYS = ("messages", "tools", "parallel_tool_calls", "functions")
_INPUT_KEYS = ("messages", "tools", "parallel_tool_calls")
_OUTPUTS = ("preferred_output", "non_preferred_output")
_COMPLETIONS = ("preferred_completion", "non_preferred_completion")


class Flaw(NamedTuple):
    """What is wrong with a row, and how many bytes into it."""

    what: str
    offset: int = 0


def explain(line: bytes, fmt: str, item_flaws: Callable[[Json], Sentences] | None = None) -> Iterator[Flaw]:
    """Everything wrong with a row of format `fmt`; `item_flaws` judges an eval item. Pure."""
    if not line.strip():
        yield Flaw("the line is blank; remove it")
        return
    try:
        line.decode("utf-8")
        row = msgspec.json.decode(line)
    except UnicodeDecodeError as bad:
        yield Flaw("not valid UTF-8; save the file as UTF-8", bad.start)
    except msgspec.ValidationError:
        yield Flaw("a number is out of range; write it as text")
    except msgspec.DecodeError:
        yield _syntax_flaw(line)
    except RecursionError:
        yield Flaw("nested too deeply to be read")
    else:
        for what in _row_flaws(row, fmt, item_flaws):
            yield Flaw(what)


def _syntax_flaw(line: bytes) -> Flaw:
    """The place where a line stops being JSON; Python's own parser knows it to the letter."""
    if line.startswith(b"\xef\xbb\xbf"):
        return Flaw("the row starts with a byte order mark; save the file without it")
    text = line.decode()
    try:
        json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as bad:
        said = f"{bad.msg[0].lower()}{bad.msg[1:]}"
        return Flaw(f"not valid JSON: {said}", len(text[: bad.pos].encode()))
    except ValueError:
        return Flaw("not valid JSON: NaN and Infinity are no numbers there")
    return Flaw("not valid JSON: a \\u escape is half a character")


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _row_flaws(row: Json, fmt: str, item_flaws: Callable[[Json], Sentences] | None) -> Sentences:
    if not isinstance(row, dict):
        yield f"the row is not an object but {a(row)}"
    elif meant := _looks_like(row, fmt):
        yield meant
    elif fmt == "items":
        yield from _items_flaws(row, item_flaws)
    else:
        yield from _CHECKS[fmt](row)


def _looks_like(row: dict[str, Json], fmt: str) -> str | None:
    """The sentence for a row that is fine in another format."""
    other = None
    if not row.keys().isdisjoint((*_OUTPUTS, *_COMPLETIONS)):
        other = "preference"
    elif "messages" not in row and "prompt" in row and "completion" in row:
        return "this row has prompt and completion, as for models long gone; write messages instead"
    elif "messages" not in row:
        other = "items" if isinstance(row.get("item"), dict) else None
    else:
        roles = [m.get("role") for m in as_list(row["messages"]) if isinstance(m, dict)]
        extra = not row.keys() <= {*_ROW_KEYS}
        if roles and roles[-1] == "user" and "assistant" not in roles and extra:
            other = "reinforcement"
        elif fmt == "reinforcement" and (extra or not roles or roles[-1] != "assistant"):
            other = None
        else:
            other = "vision" if images(row["messages"]) else "chat"
    if other is None or other == fmt or (fmt, other) == ("vision", "chat"):
        return None
    return f"this row looks like {other} data; set format: {other}"


def _chat_flaws(row: dict[str, Json], max_images: int = 0) -> Sentences:
    yield from key_flaws("the row", row, _ROW_KEYS, ("messages",))
    yield from tools_flaws(row, "")
    if "functions" in row:
        functions = as_list(row["functions"])
        if not 1 <= len(functions) <= MAX_FUNCTIONS:
            yield f"functions must be a list of 1 to {MAX_FUNCTIONS}"
        for i, each in enumerate(functions):
            yield from function_flaws(each, f"functions[{i}]")
    if "messages" not in row:
        return
    yield from messages_flaws(row["messages"], "messages", max_images=max_images)
    messages = as_list(row["messages"])
    roles = [m.get("role") for m in messages if isinstance(m, dict)]
    if messages and "assistant" not in roles:
        yield "messages has no assistant message; there is nothing to learn from it"
    if max_images and (found := images(messages)) > max_images:
        yield f"messages holds {found} images, at most {max_images} are allowed"


def _vision_flaws(row: dict[str, Json]) -> Sentences:
    yield from _chat_flaws(row, MAX_IMAGES)


def _preference_flaws(row: dict[str, Json]) -> Sentences:
    names = _COMPLETIONS if not row.keys().isdisjoint(_COMPLETIONS) else _OUTPUTS
    yield from key_flaws("the row", row, ("input", *names), ("input", *names))
    given = row.get("input", {})
    if isinstance(given, dict):
        if "input" in row:
            yield from key_flaws("input", given, _INPUT_KEYS, ("messages",))
            yield from tools_flaws(given, "input.")
        if "messages" in given:
            yield from messages_flaws(given["messages"], "input.messages")
    else:
        yield f"input must be an object, not {a(given)}"
    for name in names:
        if name in row:
            answers = row[name]
            if not isinstance(answers, list) or len(answers) != 1:
                yield f"{name} must be a list of exactly one assistant message"
            else:
                yield from messages_flaws(answers, name, ("assistant",))


def _reinforcement_flaws(row: dict[str, Json]) -> Sentences:
    yield from key_flaws("the row", row, tuple(row) or ("messages",), ("messages",))
    yield from tools_flaws(row, "")
    if "messages" not in row:
        return
    yield from messages_flaws(row["messages"], "messages", REINFORCEMENT_ROLES)
    last = (as_list(row["messages"]) or [None])[-1]
    if isinstance(last, dict) and last.get("role") != "user":
        yield "the last message must be from the user; the model's answer is what gets graded"


def _items_flaws(row: dict[str, Json], item_flaws: Callable[[Json], Sentences] | None) -> Sentences:
    if "item" not in row:
        yield 'the row has no item; write {"item": {...}}'
        return
    yield from key_flaws("the row", row, ("item", "sample"), ())
    for key in ("item", "sample"):
        if not isinstance(row.get(key, {}), dict):
            yield f"{key} must be an object, not {a(row[key])}"
    if item_flaws is not None and isinstance(row["item"], dict):
        yield from item_flaws(row["item"])


_CHECKS: Mapping[str, Callable[[dict[str, Json]], Sentences]] = {
    "chat": _chat_flaws,
    "vision": _vision_flaws,
    "preference": _preference_flaws,
    "reinforcement": _reinforcement_flaws,
}
