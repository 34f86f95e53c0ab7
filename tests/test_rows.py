"""A dataset is judged and digested in one pass; what is wrong has a row, a byte and a sentence."""

import hashlib
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler import rows

Json = dict[str, Any]
Write = Callable[..., Path]

CALL: Json = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"order": 7}'}}
TOOL: Json = {
    "type": "function",
    "function": {"name": "find", "strict": True, "parameters": {"type": "object", "properties": {}}},
}
USER: Json = {"role": "user", "content": "where is it"}
ANSWER: Json = {"role": "assistant", "content": "on its way"}
PICTURE: Json = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
SEEN: Json = {"role": "user", "content": [{"type": "text", "text": "what is it"}, PICTURE]}
PREFERENCE: Json = {
    "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
    "preferred_output": [ANSWER],
    "non_preferred_output": [ANSWER],
}
BY_SPEC: Json = {
    "input": {"messages": [USER]},
    "preferred_completion": [ANSWER],
    "non_preferred_completion": [ANSWER],
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes rows, ten times each unless told otherwise, to `rows.jsonl` in the working folder."""
    monkeypatch.chdir(tmp_path)

    def to_file(*each: Any, times: int = 10) -> Path:
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in each]
        Path("rows.jsonl").write_bytes(b"".join(line + b"\n" for line in lines * times))
        return Path("rows.jsonl")

    return to_file


@pytest.mark.parametrize(
    ("fmt", "row"),
    [
        ("chat", {"messages": [ANSWER]}),
        ("chat", {"messages": [{"role": "system", "content": "hi"}, USER, {**ANSWER, "weight": 0}, USER, ANSWER]}),
        ("chat", {"messages": [{"role": "developer", "content": [{"type": "text", "text": "hi"}]}, USER, ANSWER]}),
        ("chat", {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}], "tools": [TOOL]}),
        ("chat", {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]},
                               {"role": "tool", "tool_call_id": "call_1", "content": "7"}, ANSWER],
                  "parallel_tool_calls": False}),
        ("chat", {"messages": [{"role": "assistant", "function_call": CALL["function"]},
                               {"role": "function", "name": "find", "content": None}],
                  "functions": [{"name": "find"}]}),
        ("chat", {"messages": [USER, {"role": "assistant", "content": None, "refusal": "no"}]}),
        ("chat", {"messages": [{**USER, "name": "ann"}, {**ANSWER, "weight": 1.0}]}),
        ("vision", {"messages": [SEEN, ANSWER]}),
        ("vision", {"messages": [USER, ANSWER]}),
        ("vision", {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}] * 10}, ANSWER]}),
        ("preference", PREFERENCE),
        ("preference", BY_SPEC),
        ("reinforcement", {"messages": [USER], "reference": {"order": [7]}, "tools": [TOOL]}),
        ("reinforcement", {"messages": [USER, ANSWER, USER]}),
        ("items", {"item": {"anything": [1, None, {"a": True}]}}),
        ("items", {"item": {}, "sample": {"output_text": "x"}}),
        ("chat", {"messages": [{"role": "assistant", "content": "Grüße, 你好, 🙂"}]}),
        ("chat", '{"messages": [{"role": "assistant", "content": "Grüße, 你好, 🙂"}]}'.encode()),
    ],
)  # fmt: skip
def test_a_good_row_is_no_problem(write: Write, fmt: str, row: Any) -> None:
    found = rows.scan(write(row), fmt)

    assert ([], 10) == (found.problems, found.rows)


def test_the_pass_digests_the_file_and_every_row(write: Write) -> None:
    path = write({"messages": [ANSWER]}, {"messages": [USER, ANSWER]}, times=5)
    data = path.read_bytes()

    found = rows.scan(path, "chat")

    assert (10, len(data), hashlib.sha256(data).hexdigest()) == (found.rows, found.bytes, found.sha256)
    assert b"".join(hashlib.sha256(line).digest()[:8] for line in data.splitlines()) == found.row_digests


def test_the_last_newline_may_be_missing(write: Write) -> None:
    path = write({"messages": [ANSWER]})
    path.write_bytes(path.read_bytes()[:-1])

    found = rows.scan(path, "chat")

    assert ([], 10) == (found.problems, found.rows)


def test_windows_newlines_are_fine(write: Write) -> None:
    path = write({"messages": [ANSWER]})
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    assert [] == rows.scan(path, "chat").problems


@pytest.mark.parametrize("block", [1, 2, 7, 64, 4096])
def test_rows_are_the_same_however_the_file_is_cut_into_blocks(
    write: Write, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    path = write({"messages": [ANSWER]}, b"{", "é".encode(), b"", times=3)
    whole = rows.scan(path, "chat")

    monkeypatch.setattr(rows, "_BLOCK", block)

    assert whole == rows.scan(path, "chat")


def test_problems_have_the_row_and_its_byte(write: Write) -> None:
    path = write({"messages": [ANSWER]}, times=10)
    good = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'{"messages": []}\n{"messages": x}\n')

    found = rows.scan(path, "chat")

    assert [
        f"rows.jsonl:11: messages must be a list of at least one message (byte {good})",
        f"rows.jsonl:12: not valid JSON: expecting value (byte {good + 17 + 13})",
    ] == [str(problem) for problem in found.problems]


def test_the_first_twenty_problems_are_told_and_the_rest_are_counted(write: Write) -> None:
    found = rows.scan(write({"messages": []}, times=1234), "chat")

    assert (20, 1234) == (len(found.problems), found.total_problems)
    assert "rows.jsonl: 1,214 more problems like these" == str(found.report()[-1])
    assert 21 == len(found.report())


def test_a_report_of_few_problems_counts_nothing(write: Write) -> None:
    found = rows.scan(write({"messages": []}), "chat")

    assert found.problems == found.report()


@pytest.mark.parametrize(
    ("data", "fmt", "what"),
    [
        (b"", "chat", "rows.jsonl: the file is empty"),
        (b"", "items", "rows.jsonl: the file is empty"),
        (b'{"messages": [{"role": "assistant", "content": "x"}]}\n' * 9, "chat",
         "rows.jsonl: the file has 9 rows, at least 10 are needed; add some"),
    ],
)  # fmt: skip
def test_a_file_that_holds_too_little_is_a_problem(write: Write, data: bytes, fmt: str, what: str) -> None:
    path = write()
    path.write_bytes(data)

    assert [what] == [str(problem) for problem in rows.scan(path, fmt).problems]


def test_how_many_rows_are_enough_can_be_told(write: Write) -> None:
    assert [] == rows.scan(write({"messages": [ANSWER]}, times=2), "chat", min_rows=2).problems
    assert [] == rows.scan(write({"item": {}}, times=1), "items").problems


def test_a_file_that_is_not_there_is_a_problem(write: Write) -> None:
    found = rows.scan(Path("nothing.jsonl"), "chat")

    assert ["nothing.jsonl: no such file"] == [str(problem) for problem in found.problems]


def test_a_folder_or_a_pipe_is_no_file(write: Write) -> None:
    Path("folder").mkdir()
    os.mkfifo("pipe")

    for name in ("folder", "pipe"):
        (problem,) = rows.scan(Path(name), "chat").problems
        assert f"{name}: this is not a file; name a .jsonl file" == str(problem)


def test_a_row_of_two_hundred_megabytes_is_refused_without_holding_it(write: Write) -> None:
    path = write({"messages": [ANSWER]}, times=10)
    good = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(good + 200_000_000)  # zeros that take no room on the disk
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"messages": []}\n')

    tracemalloc.start()
    found = rows.scan(path, "chat")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [
        f"rows.jsonl:11: the row has more than 67,108,864 bytes; shorten it (byte {good})",
        f"rows.jsonl:12: messages must be a list of at least one message (byte {good + 200_000_001})",
    ] == [str(problem) for problem in found.problems]
    assert peak < 80_000_000


def test_memory_does_not_grow_with_the_file(write: Write) -> None:
    path = write({"messages": [{**ANSWER, "content": "on its way " * 200}]}, times=10_000)

    tracemalloc.start()
    rows.scan(path, "chat")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert path.stat().st_size > 20_000_000
    assert peak < 8_000_000


@pytest.mark.skipif(
    "RECONCILER_SHARED_DATA" not in os.environ, reason="needs RECONCILER_SHARED_DATA=<folder>"
)
@pytest.mark.parametrize(
    ("name", "fmt", "count"),
    [
        ("gsm8k_chat_train", "chat", 449),
        ("gsm8k_chat_validation", "chat", 50),
        ("stock_toolcall_training", "chat", 86),
        ("stock_toolcall_validation", "chat", 10),
        ("orca_dpo_pairs", "preference", 284),
        ("countdown_rft_train", "reinforcement", 100),
        ("countdown_rft_validation", "reinforcement", 50),
        ("countdown_eval_items", "items", 100),
    ],
)
def test_files_that_others_wrote_are_fine(name: str, fmt: str, count: int) -> None:
    found = rows.scan(Path(os.environ["RECONCILER_SHARED_DATA"]) / f"{name}.jsonl", fmt)

    assert ([], count) == (found.problems, found.rows)
