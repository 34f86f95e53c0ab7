"""Every way a row can be wrong has its sentence, and no sentence quotes the row."""

import json
from pathlib import Path
from typing import Any

import pytest

from reconciler import rows

SECRET = "the customer's own words"
USER = {"role": "user", "content": SECRET}
ANSWER = {"role": "assistant", "content": SECRET}
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
ROLES = "system, developer, user, assistant, tool, function"
SILENT = "messages[0] has neither content nor tool_calls; an assistant message says or calls something"
MAY = "role, content, refusal, name, weight, tool_calls, function_call"
URL = "must be an http(s) URL or a base64 data URI of a JPEG, PNG or WEBP image"


def picture(url: Any, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def shown(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}, ANSWER]}


def pair(**other: Any) -> dict[str, Any]:
    pairs = {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}
    return {**pairs, **other}


def said(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


CHAT: list[tuple[Any, str]] = [
    ([USER], "the row is not an object but a list"),
    (7, "the row is not an object but a number"),
    ({}, "the row has no messages"),
    (said(), "messages must be a list of at least one message"),
    ({"messages": USER}, "messages must be a list of at least one message"),
    (said(USER), "messages has no assistant message; there is nothing to learn from it"),
    (said(ANSWER, SECRET), "messages[1] must be an object, not text"),
    (said(ANSWER, {"content": SECRET}), f"messages[1] has no role; write one of {ROLES}"),
    (said(ANSWER, {"role": "asistant"}), f"messages[1].role is not one of {ROLES}; did you mean assistant"),
    (said(ANSWER, {"role": 7}), f"messages[1].role is not one of {ROLES}"),
    (said(ANSWER, {"role": ["user"]}), f"messages[1].role is not one of {ROLES}"),
    (said({"role": "assistant"}), SILENT),
    (said({"role": "assistant", "content": None}), SILENT),
    (said(ANSWER, {"role": "user"}), "messages[1] has no content"),
    (said(ANSWER, {"role": "user", "content": None}),
     "messages[1].content must be text or a list of parts, not null"),
    (said(ANSWER, {"role": "user", "content": []}), "messages[1].content is an empty list"),
    (said(ANSWER, {"role": "user", "content": [{"type": "audio"}]}),
     "messages[1].content[0].type must be text"),
    (said({**ANSWER, "weight": 2}), "messages[0].weight must be 0 or 1"),
    (said({**ANSWER, "weight": True}), "messages[0].weight must be 0 or 1"),
    (said({**ANSWER, "weight": SECRET}), "messages[0].weight must be 0 or 1"),
    (said({**USER, "weight": 1}, ANSWER), "messages[0].weight is for assistant messages only"),
    (said({**ANSWER, "wieght": 1}), "messages[0] has the unknown key wieght; did you mean weight"),
    (said({**ANSWER, SECRET: 1}), f"messages[0] has an unknown key; it may hold {MAY}"),
    (said(ANSWER, {"role": "tool", "content": "x"}), "messages[1] has no tool_call_id"),
    (said(ANSWER, {"role": "function", "content": "x"}), "messages[1] has no name"),
    (said({"role": "assistant", "tool_calls": []}),
     "messages[0].tool_calls must be a list of at least one call; leave it out if there is none"),
    (said({"role": "assistant", "tool_calls": [{**CALL, "type": "x"}]}),
     "messages[0].tool_calls[0].type must be function"),
    (said({"role": "assistant", "tool_calls": [{"id": "1", "type": "function"}]}),
     "messages[0].tool_calls[0] has no function"),
    (said({"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "find", "arguments": {}}}]}),
     "messages[0].tool_calls[0].function.arguments must be text that holds JSON"),
    (said(ANSWER, tools=[{"type": "function"}]), "tools[0].function must be an object with a name"),
    (said(ANSWER, tools=[{"function": {"name": "find"}}]), "tools[0].type must be function"),
    (said(ANSWER, tools={}), "tools must be a list, not an object"),
    (said(ANSWER, functions=[]), "functions must be a list of 1 to 128"),
    (said(ANSWER, parallel_tool_calls="yes"), "parallel_tool_calls must be true or false"),
    (said(ANSWER, mesages=[]), "the row has the unknown key mesages; did you mean messages"),
    (shown(picture("https://example.com/a.png")), "this row looks like vision data; set format: vision"),
    (pair(), "this row looks like preference data; set format: preference"),
    ({"item": {"a": 1}}, "this row looks like items data; set format: items"),
    (said(USER, reference=SECRET), "this row looks like reinforcement data; set format: reinforcement"),
    ({"prompt": SECRET, "completion": SECRET}, "this row has prompt and completion, as for models long gone; "
     "write messages instead"),
]  # fmt: skip
VISION: list[tuple[Any, str]] = [
    (shown(*[picture("https://example.com/a.png")] * 11), "messages holds 11 images, at most 10 are allowed"),
    (shown(picture("file:///etc/passwd")), f"messages[0].content[0].image_url.url {URL}"),
    (shown(picture("data:image/gif;base64,AA")), f"messages[0].content[0].image_url.url {URL}"),
    (shown(picture(7)), f"messages[0].content[0].image_url.url {URL}"),
    (shown(picture("https://a.example", detail="all")),
     "messages[0].content[0].image_url.detail must be low, high or auto"),
    (shown({"type": "image_url"}), "messages[0].content[0] has no image_url"),
    (shown({"type": "image_url", "image_url": "https://a.example"}),
     "messages[0].content[0].image_url must be an object with url, not text"),
    (shown({"type": "video"}), "messages[0].content[0].type must be text or image_url"),
    (said({"role": "assistant", "content": [picture("https://a.example")]}),
     "messages[0].content[0] is an image; images are for user messages only"),
    (shown(picture("data:image/png;base64," + "A" * 14_000_000)),
     "messages[0].content[0].image_url.url holds more than 10 MB"),
    (said(USER), "messages has no assistant message; there is nothing to learn from it"),
]  # fmt: skip
PREFERENCE: list[tuple[Any, str]] = [
    (said(USER, ANSWER), "this row looks like chat data; set format: chat"),
    (pair(preferred_output=[]), "preferred_output must be a list of exactly one assistant message"),
    (pair(non_preferred_output=[ANSWER, ANSWER]),
     "non_preferred_output must be a list of exactly one assistant message"),
    (pair(preferred_output=[USER]), "preferred_output[0].role is not one of assistant"),
    (pair(input={}), "input has no messages"),
    (pair(input=[USER]), "input must be an object, not a list"),
    (pair(input={"messages": [USER], "tool": []}), "input has the unknown key tool; did you mean tools"),
    (pair(input={"messages": [{"role": "assistant"}]}), f"input.{SILENT}"),
    (pair(preferred_completion=[ANSWER]), "the row has no non_preferred_completion"),
    ({"preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}, "the row has no input"),
    (pair(input={"messages": [{"role": "user", "content": [picture("https://a.example")]}]}),
     "input.messages[0].content[0] is an image; images need format: vision"),
]  # fmt: skip
REINFORCEMENT: list[tuple[Any, str]] = [
    (said(USER, ANSWER), "this row looks like chat data; set format: chat"),
    (said(USER, ANSWER, answer=SECRET), "the last message must be from the user; "
     "the model's answer is what gets graded"),
    (said({"role": "system", "content": SECRET}, USER),
     "messages[0].role is not one of developer, user, assistant, tool"),
    ({"answer": SECRET}, "the row has no messages"),
    (said(), "messages must be a list of at least one message"),
    (pair(), "this row looks like preference data; set format: preference"),
]  # fmt: skip
ITEMS: list[tuple[Any, str]] = [
    ({"text": SECRET}, 'the row has no item; write {"item": {...}}'),
    ({"item": SECRET}, "item must be an object, not text"),
    ({"item": {}, "sample": SECRET}, "sample must be an object, not text"),
    ({"item": {}, "samples": {}}, "the row has the unknown key samples; did you mean sample"),
    (said(USER, ANSWER), "this row looks like chat data; set format: chat"),
]
TEXT: list[tuple[bytes, str]] = [
    (b"", "the line is blank; remove it (byte 0)"),
    (b"  \r", "the line is blank; remove it (byte 0)"),
    (b"{", "not valid JSON: expecting property name enclosed in double quotes (byte 1)"),
    (b'{"messages" 1}', "not valid JSON: expecting ':' delimiter (byte 12)"),
    ('{"messages": "é" 1}'.encode(), "not valid JSON: expecting ',' delimiter (byte 18)"),
    (b'{"messages": []} []', "not valid JSON: extra data (byte 17)"),
    (b'{"messages": NaN}', "not valid JSON: NaN and Infinity are no numbers there (byte 0)"),
    (b'{"messages": "caf\xe9"}', "not valid UTF-8; save the file as UTF-8 (byte 17)"),
    (b'{"messages": "\\ud800"}', "not valid JSON: a \\u escape is half a character (byte 0)"),
    (b"\xef\xbb\xbf{}", "the row starts with a byte order mark; save the file without it (byte 0)"),
    (b"[" * 100_000, "nested too deeply to be read (byte 0)"),
    (b'{"messages": 1e999}', "a number is out of range; write it as text (byte 0)"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sentences(line: bytes, fmt: str, **options: Any) -> list[str]:
    path = Path("rows.jsonl")
    path.write_bytes(line + b"\n")
    return [str(problem) for problem in rows.scan(path, fmt, min_rows=1, **options).problems]


@pytest.mark.parametrize(
    ("fmt", "row", "what"),
    [
        *(("chat", row, what) for row, what in CHAT),
        *(("vision", row, what) for row, what in VISION),
        *(("preference", row, what) for row, what in PREFERENCE),
        *(("reinforcement", row, what) for row, what in REINFORCEMENT),
        *(("items", row, what) for row, what in ITEMS),
    ],
)
def test_a_bad_row_has_a_sentence_that_does_not_quote_it(fmt: str, row: Any, what: str) -> None:
    found = sentences(json.dumps(row).encode(), fmt)

    assert f"rows.jsonl:1: {what} (byte 0)" in found
    assert SECRET not in "".join(found)


@pytest.mark.parametrize("fmt", rows.FORMATS)
@pytest.mark.parametrize(("line", "what"), TEXT)
def test_a_line_that_is_no_json_has_the_byte(fmt: str, line: bytes, what: str) -> None:
    assert [f"rows.jsonl:1: {what}"] == sentences(line, fmt)


def test_a_row_can_have_several_problems() -> None:
    row = said({"role": "assistant", "weight": 3}, {"role": "usr"})

    assert 3 == len(sentences(json.dumps(row).encode(), "chat"))


SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "label": {"type": "string", "enum": ["refund", "delivery"]},
        "count": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object", "properties": {"deep": {"type": "number"}}, "required": ["deep"]},
    },
    "required": ["text", "label"],
    "additionalProperties": False,
}
GOOD_ITEM = {"text": SECRET, "label": "refund", "count": 3.0, "tags": ["a"], "more": {"deep": 1, "other": 2}}


@pytest.mark.parametrize("said_more", [{}, {"minProperties": 1}], ids=["as a type", "through jsonschema"])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, None),
        ({"text": 7}, "item.text must be of type string"),
        ({"label": SECRET}, "item.label is not one of the item schema's 2 allowed values"),
        ({"count": 1.5}, "item.count must be of type integer"),
        ({"count": True}, "item.count must be of type integer"),
        ({"tags": ["a", 7]}, "item.tags[1] must be of type string"),
        ({"more": {}}, "item.more has no deep"),
        ({"more": None}, "item.more must be of type object"),
        ({SECRET: 1}, "item has a key that the item schema does not allow"),
    ],
)
def test_an_item_must_match_the_schema_of_its_eval(
    change: dict[str, Any], what: str | None, said_more: dict[str, Any]
) -> None:
    row = {"item": {**GOOD_ITEM, **change}}

    found = sentences(json.dumps(row).encode(), "items", item_schema={**SCHEMA, **said_more})

    assert ([f"rows.jsonl:1: {what} (byte 0)"] if what else []) == found


@pytest.mark.parametrize(
    ("part", "value", "what"),
    [
        ({"type": "string", "minLength": 5}, "abc", "item.a breaks the item schema's minLength: 5"),
        (
            {"type": "string", "pattern": "^[0-9]+$"},
            "abc",
            "item.a breaks the item schema's pattern: ^[0-9]+$",
        ),
        ({"anyOf": [{"type": "string"}]}, 7, "item.a breaks the item schema's anyOf"),
        (
            {"$ref": "https://example.com/schema"},
            7,
            "the item schema has a $ref that leads nowhere; use #/$defs",
        ),
        ({"type": ["string", "null"]}, 7, "item.a must be of type string or null"),
    ],
)
def test_what_a_type_cannot_say_is_checked_too(part: dict[str, Any], value: Any, what: str) -> None:
    schema = {"type": "object", "properties": {"a": part}}

    found = sentences(json.dumps({"item": {"a": value}}).encode(), "items", item_schema=schema)

    assert [f"rows.jsonl:1: {what} (byte 0)"] == found


def test_a_schema_may_refer_to_its_own_parts() -> None:
    schema = {
        "$defs": {"n": {"type": "integer"}},
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/n"}},
    }

    assert [] == sentences(b'{"item": {"a": 1}}', "items", item_schema=schema)
    expected = ["rows.jsonl:1: item.a must be of type integer (byte 0)"]
    assert expected == sentences(b'{"item": {"a": "x"}}', "items", item_schema=schema)


def test_a_schema_that_is_none_is_told_apart_from_bad_items() -> None:
    with pytest.raises(ValueError, match=r"not a JSON Schema: properties.a.type: "):
        sentences(b"{}", "items", item_schema={"properties": {"a": {"type": "text"}}})
