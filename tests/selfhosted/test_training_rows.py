"""What a training file is refused for, and in which words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reconciler.selfhosted.training import rows, turns
from reconciler.selfhosted.training.failures import Failure

SECRET = "hunter2"
ASK = {"role": "user", "content": SECRET}
SAY = {"role": "assistant", "content": SECRET}
CALL = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"city": "Rome"}'}}
GOOD = {"messages": [ASK, SAY]}


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "rows.jsonl"
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(texts) + b"\n")
    return path


def refused(path: Path, param: rows.Param = "training_file") -> Failure:
    with pytest.raises(Failure) as caught:
        rows.check(path, param)
    return caught.value


def test_good_rows_of_every_shape_are_counted(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "find", "parameters": {}}}
    shapes: list[dict[str, Any]] = [
        GOOD,
        {
            "messages": [
                {"role": "system", "content": "x"},
                ASK,
                SAY | {"weight": 0},
                ASK,
                SAY | {"weight": 1},
            ]
        },
        {"messages": [{"role": "developer", "content": [{"type": "text", "text": "x"}]}, ASK, SAY]},
        {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}], "tools": [tool]},
        {
            "messages": [
                ASK,
                {"role": "assistant", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
                SAY,
            ],
            "tools": [tool],
            "parallel_tool_calls": False,
        },
        {
            "messages": [ASK, {"role": "assistant", "function_call": CALL["function"]}],
            "functions": [{"name": "find"}],
        },
        {"messages": [ASK, {"role": "assistant", "content": None, "refusal": "no"}]},
    ]
    path = write(tmp_path, *shapes, *[GOOD] * 3)

    assert 10 == rows.check(path, "training_file")
    assert [*shapes, *[GOOD] * 3] == [row for _, row in rows.read(path, "training_file")]


BAD: list[tuple[Any, str]] = [
    (b"{nonsense " + SECRET.encode(), "is not JSON"),
    (b'{"messages": "\xff"}', "is not UTF-8 at byte"),
    (b"[" * 100_000, "is nested too deeply"),
    ([], "is not a JSON object"),
    ({}, "has no messages"),
    ({"messages": []}, "its messages are not a list with at least one message"),
    ({"prompt": SECRET, "completion": SECRET}, "is a completion row"),
    ({"input": {}, "preferred_output": []}, "is a preference row, which needs the method dpo"),
    ({"item": {}}, "is an eval item"),
    ({"messages": [ASK, "x"]}, "message 2 is not a JSON object"),
    ({"messages": [{"content": SECRET}, SAY]}, "message 1 has no role"),
    ({"messages": [ASK | {"role": SECRET}, SAY]}, "message 1 has an unknown role"),
    ({"messages": [ASK | {"role": ["user"]}, SAY]}, "message 1 has an unknown role"),
    ({"messages": [ASK | {SECRET: 1}, SAY]}, "message 1 has an unknown key"),
    ({"messages": [ASK]}, "has no assistant message"),
    ({"messages": [ASK | {"weight": 1}, SAY]}, "message 1 has a weight, which only assistant"),
    ({"messages": [ASK, SAY | {"weight": 0.5}]}, "message 2 has a weight that is neither 0 nor 1"),
    ({"messages": [ASK, SAY | {"weight": True}]}, "message 2 has a weight that is neither 0 nor 1"),
    ({"messages": [{"role": "user"}, SAY]}, "message 1 has no content"),
    ({"messages": [ASK, {"role": "assistant", "content": None}]}, "message 2 has no content"),
    ({"messages": [ASK, SAY | {"content": 5}]}, "message 2 its content is neither text nor"),
    ({"messages": [ASK | {"content": [{"type": "image_url", "image_url": {}}]}, SAY]}, "part 1 is an image"),
    ({"messages": [ASK | {"content": [{"type": "text"}]}, SAY]}, "part 1 is not a text part"),
    ({"messages": [ASK | {"tool_calls": [CALL]}, SAY]}, "message 1 has tool calls"),
    ({"messages": [ASK, {"role": "assistant", "tool_calls": [{}]}]}, "its tool call 1 needs a function"),
    ({"messages": [ASK, {"role": "tool", "content": "x"}, SAY]}, "message 2 has no tool_call_id"),
    ({"messages": [ASK, SAY], "tools": [{}]}, "its tool 1 needs a function with a name"),
    ({"messages": [ASK, SAY], "tools": {}}, "its tools are not a list"),
]


@pytest.mark.parametrize(("bad", "words"), BAD, ids=[words[:40] for _, words in BAD])
def test_a_bad_row_is_named_and_never_quoted(tmp_path: Path, bad: Any, words: str) -> None:
    path = write(tmp_path, GOOD, bad, *[GOOD] * 9)

    failure = refused(path)

    assert ("invalid_training_file", "training_file") == (failure.code, failure.param)
    assert f"row 2 (byte {len(json.dumps(GOOD)) + 1}): " in failure.message
    assert words in failure.message
    assert SECRET not in failure.message


def test_many_bad_rows_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    failure = refused(write(tmp_path, *[{}] * 30))

    assert failure.message.startswith(
        "the training file has 30 invalid rows: row 1 (byte 0): has no messages; "
    )
    assert failure.message.endswith("; and 25 more rows")


def test_nine_rows_are_too_few_to_train_on_and_one_is_enough_to_validate(tmp_path: Path) -> None:
    path = write(tmp_path, *[GOOD] * 9)

    failure = refused(path)

    assert ("invalid_n_examples", "training_file") == (failure.code, failure.param)
    assert "the training file has 9 example(s), but must have at least 10" == failure.message
    assert 9 == rows.check(path, "validation_file")


def test_a_bad_validation_file_says_that_it_is_the_validation_file(tmp_path: Path) -> None:
    failure = refused(write(tmp_path, {}), "validation_file")

    assert ("invalid_validation_file", "validation_file") == (failure.code, failure.param)


def test_a_file_that_is_gone_is_a_failure_without_its_path(tmp_path: Path) -> None:
    failure = refused(tmp_path / "rows.jsonl")

    assert "the training file cannot be read: no such file or directory" == failure.message


def test_an_endless_line_is_refused_without_being_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(rows.LONGEST_ROW + 10)

    assert "row 1 (byte 0) is longer than 64 MiB" == refused(path).message


def test_templates_get_the_roles_texts_and_arguments_they_know() -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0},
        {"role": "function", "name": "find", "content": "sunny"},
        {"role": "assistant", "function_call": {"name": "find", "arguments": "not json"}},
        {"role": "assistant", "content": None, "refusal": "no"},
    ]

    assert [
        {"role": "system", "content": "ab"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [CALL | {"function": {"name": "find", "arguments": {"city": "Rome"}}}],
        },
        {"role": "tool", "name": "find", "content": "sunny"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "find", "arguments": "not json"}}],
        },
        {"role": "assistant", "content": "no"},
    ] == turns.for_template(messages)


def test_reading_rows_and_the_folder_needs_no_torch() -> None:
    script = (
        "import sys; from reconciler.selfhosted.training import __main__, auto, bases, folder, rows, turns;"
        "print(sorted({'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)))"
    )

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "[]\n" == ended.stdout
