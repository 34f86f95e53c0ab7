"""
The rows of a training file: are they what the job's method can learn from?

`check` reads the whole file once, in flat memory, and refuses it with OpenAI's error codes; a problem
names the row, its byte offset and the message, and never quotes what stands there. `read` then gives the
rows of a file that passed. What a good row is, is a function of its own: for chats here, for the other
methods in `formats`. Free of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from reconciler.selfhosted.training.failures import Failure

Param = Literal["training_file", "validation_file"]

FEWEST_ROWS = 10
LONGEST_ROW = 64 * 2**20  # bytes; nobody writes such a row on purpose
_SHOWN = 5

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_KEYS = frozenset({"role", "content", "name", "weight", "tool_calls", "tool_call_id", "function_call"})
_KEYS |= {"refusal", "audio", "annotations"}  # as a rule null or empty: pasted from a response
_OTHER_FORMATS = {
    "input": "a preference row, which needs the method dpo",
    "preferred_output": "a preference row, which needs the method dpo",
    "prompt": "a completion row; write it as chat messages",
    "item": "an eval item, not a training example",
}


class Line(NamedTuple):
    number: int  # of the row, from 1
    offset: int  # bytes before it
    text: bytes


class Problem(Exception):
    """What is wrong with one row, without saying what stands in it."""


def check(path: Path, param: Param, check_row: Callable[[Any], None] | None = None) -> int:
    """
    How many rows the file has, chats unless `check_row` is given.

    Failure `invalid_training_file` and its like, naming the first bad rows.
    """
    code = f"invalid_{param}"
    count = bad = 0
    problems: list[str] = []
    for line in lines(path, param):
        count += 1
        try:
            (check_row or check_chat)(_decode(line.text))
        except Problem as problem:
            bad += 1
            if len(problems) < _SHOWN:
                problems.append(f"row {line.number} (byte {line.offset}): {problem}")
    if bad:
        more = f"; and {bad - len(problems)} more rows" if bad > len(problems) else ""
        raise Failure(code, f"the {_noun(param)} has {bad} invalid rows: {'; '.join(problems)}{more}", param)
    fewest = FEWEST_ROWS if param == "training_file" else 1
    if count < fewest:
        message = f"the {_noun(param)} has {count} example(s), but must have at least {fewest}"
        raise Failure("invalid_n_examples", message, param)
    return count


def read(path: Path, param: Param) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and the content of every row of a file that passed `check`."""
    for line in lines(path, param):
        yield line.number, msgspec.json.decode(line.text)


def _noun(param: Param) -> str:
    return param.replace("_", " ")


def lines(path: Path, param: Param) -> Iterator[Line]:
    """Every line that is not empty. Failure when the file cannot be read, or a row is too long to be meant."""
    try:
        file = path.open("rb")
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise Failure(f"invalid_{param}", f"the {_noun(param)} cannot be read: {reason}", param) from None
    with file:
        number = offset = 0
        while text := file.readline(LONGEST_ROW + 1):
            number += 1
            if len(text) > LONGEST_ROW:
                limit = f"is longer than {LONGEST_ROW >> 20} MiB"
                raise Failure(f"invalid_{param}", f"row {number} (byte {offset}) {limit}", param)
            if text.strip():
                yield Line(number, offset, text)
            offset += len(text)


def _decode(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except UnicodeDecodeError as error:
        raise Problem(f"is not UTF-8 at byte {error.start} of the row") from None
    except msgspec.DecodeError as error:
        raise Problem(f"is not JSON: {str(error).lower()}") from None
    except RecursionError:
        raise Problem("is nested too deeply") from None


def check_chat(row: Any, *, sees: bool = False) -> None:
    """A chat with an assistant who says something to learn, with pictures if the base `sees`. Raises Problem."""
    if not isinstance(row, dict):
        raise Problem("is not a JSON object")
    if "messages" not in row:
        known = next((name for key, name in _OTHER_FORMATS.items() if key in row), None)
        raise Problem(f"is {known}" if known else "has no messages")
    check_messages(row["messages"], sees=sees)
    if not any(message["role"] == "assistant" for message in row["messages"]):
        raise Problem("has no assistant message to learn from")
    check_tools(row)


def check_messages(messages: Any, *, sees: bool = False) -> None:
    """One message or more, each well made. Raises Problem."""
    if not isinstance(messages, list) or not messages:
        raise Problem("its messages are not a list with at least one message")
    for number, message in enumerate(messages, start=1):
        try:
            _check_message(message, sees)
        except Problem as problem:
            raise Problem(f"message {number} {problem}") from None


def _check_message(message: Any, sees: bool) -> None:
    if not isinstance(message, dict):
        raise Problem("is not a JSON object")
    role = message.get("role")
    if role is None:
        raise Problem("has no role")
    if role not in _ROLES:
        raise Problem(f"has an unknown role; the roles are {', '.join(_ROLES)}")
    if not message.keys() <= _KEYS:
        raise Problem(f"has an unknown key; the keys are {', '.join(sorted(_KEYS))}")
    if "weight" in message:
        if role != "assistant":
            raise Problem("has a weight, which only assistant messages have")
        if isinstance(message["weight"], bool) or message["weight"] not in (0, 1):
            raise Problem("has a weight that is neither 0 nor 1")
    _check_calls(message, role)
    _check_content(message, role, sees)


def _check_calls(message: Mapping[str, Any], role: str) -> None:
    calls, call = message.get("tool_calls"), message.get("function_call")
    if role != "assistant" and (calls or call):
        raise Problem("has tool calls, which only assistant messages have")
    if calls is not None and not isinstance(calls, list):
        raise Problem("its tool_calls are not a list")
    for number, each in enumerate(calls or (), start=1):
        if not isinstance(each, dict) or not _is_call(each.get("function")):
            raise Problem(
                f"its tool call {number} needs a function with a name and with arguments as a string"
            )
    if call is not None and not _is_call(call):
        raise Problem("its function_call needs a name and arguments as a string")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise Problem("has no tool_call_id")


def _is_call(function: Any) -> bool:
    return (
        isinstance(function, dict)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments"), str)
    )


def _check_content(message: Mapping[str, Any], role: str, sees: bool) -> None:
    content = message.get("content")
    if content is None:
        spoke = message.get("tool_calls") or message.get("function_call") or message.get("refusal")
        if role == "assistant" and spoke:
            return
        raise Problem("has no content")
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise Problem("its content is neither text nor a list of parts")
    for number, part in enumerate(content, start=1):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image_url":
            if not sees:
                raise Problem(f"its part {number} is an image, and the model reads text only")
            if role != "user":
                raise Problem(f"its part {number} is an image, which only messages of the user show")
            continue
        if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
            raise Problem(f"its part {number} is not a text part")


def check_tools(row: Mapping[str, Any]) -> None:
    """The tools of a row or of its input. Raises Problem."""
    tools, functions = row.get("tools"), row.get("functions")
    if not isinstance(tools, list | None) or not isinstance(functions, list | None):
        raise Problem("its tools are not a list")
    declared = [tool.get("function") if isinstance(tool, dict) else None for tool in tools or ()]
    for number, function in enumerate([*declared, *(functions or ())], start=1):
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Problem(f"its tool {number} needs a function with a name")
