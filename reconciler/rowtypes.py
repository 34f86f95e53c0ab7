"""
The shape of a good row, said in types that msgspec decodes at hundreds of megabytes a second.

A row that decodes here and passes the rest of its test is good. One that does not may still be good
(`1.0` where we say `1`): `rowcheck` has the last word, and the sentences.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

MAX_IMAGES = 10  # in one row
MAX_IMAGE_BYTES = 10_000_000
MAX_URL = MAX_IMAGE_BYTES * 4 // 3 + 30  # characters; as base64 behind its header
IMAGE_URL = r"^(https?://|data:image/(jpeg|png|webp);base64,)"
MAX_FUNCTIONS = 128


class Strict(Struct, forbid_unknown_fields=True):
    """Takes no key it does not know."""


class Text(Strict, tag_field="type", tag="text"):
    text: str


class ImageUrl(Strict):
    url: Annotated[str, Meta(pattern=IMAGE_URL, max_length=MAX_URL)]
    detail: Literal["low", "high", "auto"] | UnsetType = UNSET


class Image(Strict, tag_field="type", tag="image_url"):
    image_url: ImageUrl


Content = str | Annotated[list[Text], Meta(min_length=1)]


class Call(Strict):
    name: str
    arguments: str


class ToolCall(Strict):
    id: str
    type: Literal["function"]
    function: Call


class System(Strict, tag_field="role", tag="system"):
    content: Content
    name: str | UnsetType = UNSET


class Developer(Strict, tag_field="role", tag="developer"):
    content: Content
    name: str | UnsetType = UNSET


class User(Strict, tag_field="role", tag="user"):
    content: str | Annotated[list[Text | Image], Meta(min_length=1)]
    name: str | UnsetType = UNSET


class Assistant(Strict, tag_field="role", tag="assistant"):
    content: Content | None = None
    refusal: str | None = None
    name: str | UnsetType = UNSET
    weight: Literal[0, 1] | UnsetType = UNSET
    tool_calls: Annotated[list[ToolCall], Meta(min_length=1)] | UnsetType = UNSET
    function_call: Call | None = None


class Tool(Strict, tag_field="role", tag="tool"):
    content: Content
    tool_call_id: str
    name: str | UnsetType = UNSET


class Function(Strict, tag_field="role", tag="function"):
    content: str | None
    name: str


class FunctionSpec(Struct):
    name: str
    description: str | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET


class ToolSpec(Struct):
    type: Literal["function"]
    function: FunctionSpec


Tools = list[ToolSpec] | UnsetType
Messages = Annotated[list[System | Developer | User | Assistant | Tool | Function], Meta(min_length=1)]
One = Annotated[list[Assistant], Meta(min_length=1, max_length=1)]


class Chat(Strict):
    messages: Messages
    tools: Tools = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    functions: Annotated[list[FunctionSpec], Meta(min_length=1, max_length=MAX_FUNCTIONS)] | UnsetType = UNSET


class Input(Strict):
    messages: Messages
    tools: Tools = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET


class Preference(Strict):
    input: Input
    preferred_output: One
    non_preferred_output: One


class PreferenceBySpec(Strict):
    """The names in OpenAI's specification; its guides and everybody else use the others."""

    input: Input
    preferred_completion: One
    non_preferred_completion: One


class Reinforcement(Struct):
    """Whatever else the row holds is `item.<key>` to a grader."""

    messages: Annotated[list[Developer | User | Assistant | Tool], Meta(min_length=1)]
    tools: Tools = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET


class Items(Strict):
    item: dict[str, Any]
    sample: dict[str, Any] | UnsetType = UNSET


class Test(NamedTuple):
    """The fast test of a row: it decodes, and what it decodes to is good."""

    decode: Callable[[bytes], Any]
    is_good: Callable[[Any], bool]


def test_for(fmt: str) -> Test:
    """The fast test for rows of `fmt`."""
    row_type, is_good = _TESTS[fmt]
    if fmt == "reinforcement":  # its other keys may hold anything, and are read all the same
        return Test(lambda line: msgspec.convert(msgspec.json.decode(line), row_type), is_good)
    return Test(msgspec.json.Decoder(row_type).decode, is_good)


def test_for_items(item: Any) -> Test:
    """The fast test for rows whose item has the type `item`."""
    sample = ("sample", dict[str, Any] | UnsetType, UNSET)
    row_type = msgspec.defstruct("TypedItems", [("item", item), sample], bases=(Strict,))
    return Test(msgspec.json.Decoder(row_type).decode, _always)


def _always(row: Any) -> bool:
    return True


def _is_good_chat(row: Chat, max_images: int = 0) -> bool:
    answered = False
    for message in row.messages:
        kind = type(message)
        if kind is Assistant:
            if not _speaks(message):
                return False
            answered = True
        elif kind is User and type(message.content) is list:
            max_images -= sum(type(part) is Image for part in message.content)
    return answered and max_images >= 0


def _is_good_vision(row: Chat) -> bool:
    return _is_good_chat(row, MAX_IMAGES)


def _is_good_preference(row: Any) -> bool:
    if type(row) is Preference:
        outputs = (row.preferred_output[0], row.non_preferred_output[0])
    else:
        outputs = (row.preferred_completion[0], row.non_preferred_completion[0])
    return _is_good_prompt(row.input.messages) and all(map(_speaks, outputs))


def _is_good_reinforcement(row: Reinforcement) -> bool:
    return type(row.messages[-1]) is User and _is_good_prompt(row.messages)


def _is_good_prompt(messages: list[Any]) -> bool:
    return not any(
        (type(m) is Assistant and not _speaks(m))
        or (type(m) is User and type(m.content) is list and any(type(p) is Image for p in m.content))
        for m in messages
    )


def _speaks(message: Any) -> bool:
    return (
        message.content is not None
        or message.tool_calls is not UNSET
        or message.function_call is not None
        or message.refusal is not None
    )


_TESTS: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "chat": (Chat, _is_good_chat),
    "vision": (Chat, _is_good_vision),
    "preference": (Preference, _is_good_preference),
    "reinforcement": (Reinforcement, _is_good_reinforcement),
    "items": (Items, _always),
}
