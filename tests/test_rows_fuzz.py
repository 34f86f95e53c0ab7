"""The fast test of a row and the slow one agree: what the fast one takes, the slow one finds nothing in."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler import rowcheck, rows, rowtypes
from reconciler.itemschema import ItemSchema

SLOW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CALL = st.fixed_dictionaries({"name": st.just("f"), "arguments": st.sampled_from(["{}", 1])})
TOOL_CALL = st.fixed_dictionaries(
    {"id": st.just("1"), "type": st.sampled_from(["function", "x"]), "function": CALL}
)
PART = st.sampled_from(
    [
        {"type": "text", "text": "x"},
        {"type": "text"},
        {"type": "image_url", "image_url": {"url": "https://a.example"}},
        {"type": "image_url", "image_url": {"url": "ftp://a.example", "detail": "low"}},
    ]
)
CONTENT = st.sampled_from(["x", "", None, 1]) | st.lists(PART, max_size=3)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(
            ["system", "developer", "user", "assistant", "assistant", "tool", "function", "x"]
        )
    },
    optional={
        "content": CONTENT,
        "weight": st.sampled_from([0, 1, 1.0, True, 2, None]),
        "name": st.sampled_from(["n", None]),
        "tool_calls": st.none() | st.lists(TOOL_CALL, max_size=2),
        "function_call": st.none() | CALL,
        "refusal": st.sampled_from(["no", None, 1]),
        "tool_call_id": st.just("1"),
    },
)
GOOD_MESSAGE = st.sampled_from(
    [{"role": role, "content": "x"} for role in ("user", "assistant", "developer")]
)
MESSAGES = st.lists(MESSAGE | GOOD_MESSAGE, max_size=4)
TOOLS = st.sampled_from([[], [{"type": "function", "function": {"name": "f"}}], [{}], None, {}])
CONVERSATION = st.fixed_dictionaries(
    {"messages": MESSAGES},
    optional={"tools": TOOLS, "parallel_tool_calls": st.sampled_from([True, 1]), "answer": st.just(1)},
)
ANSWERS = st.lists(MESSAGE | GOOD_MESSAGE, max_size=2)
PAIR = st.fixed_dictionaries(
    {"input": CONVERSATION},
    optional={
        f"{which}_{word}": ANSWERS
        for which in ("preferred", "non_preferred")
        for word in ("output", "completion")
    },
)
ROW = (
    CONVERSATION
    | PAIR
    | st.fixed_dictionaries({"item": st.sampled_from([{}, 1])}, optional={"sample": st.just({})})
)

LEAF = st.sampled_from([0, 1, 1.0, 1.5, True, None, "a", "b", [], ["a"], {}, {"a": 1}])
SCHEMA = st.recursive(
    st.sampled_from(
        [{"type": kind} for kind in ("string", "integer", "number", "boolean", "null", "array", "object")]
        + [{"enum": ["a", "b"]}, {"const": "a"}, {"type": "string", "minLength": 1}, {"enum": [1, "a"]}, {}]
    ),
    lambda inner: (
        st.builds(
            lambda properties, required, extra: {
                "type": "object",
                "properties": properties,
                "required": [name for name in properties if name in required],
                **({} if extra is None else {"additionalProperties": extra}),
            },
            st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
            st.sets(st.sampled_from(["a", "b"])),
            st.sampled_from([True, False, None]),
        )
        | st.builds(lambda items: {"type": "array", "items": items}, inner)
    ),
    max_leaves=4,
)
ITEM = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), LEAF | st.dictionaries(st.sampled_from(["a", "b"]), LEAF)
)


def fast_takes(line: bytes, fmt: str) -> bool:
    test = rowtypes.test_for(fmt)
    try:
        return test.is_good(test.decode(line))
    except msgspec.ValidationError:
        return False


@SLOW
@given(ROW, st.sampled_from(rows.FORMATS))
def test_a_row_that_passes_fast_has_no_flaw(row: Any, fmt: str) -> None:
    line = json.dumps(row).encode()

    if fast_takes(line, fmt):
        assert [] == list(rowcheck.explain(line, fmt))


@SLOW
@given(ROW, st.sampled_from(["chat", "vision", "reinforcement"]))
def test_a_row_without_a_flaw_passes_fast_or_holds_a_number_in_other_clothes(row: Any, fmt: str) -> None:
    line = json.dumps(row).encode()

    if not list(rowcheck.explain(line, fmt)):
        assert fast_takes(line.replace(b"1.0", b"1"), fmt)


@SLOW
@given(SCHEMA, ITEM)
def test_a_schema_as_a_type_takes_nothing_that_the_schema_refuses(schema: Any, item: Any) -> None:
    as_type = ItemSchema(schema).type

    if as_type is not None:
        try:
            msgspec.json.decode(json.dumps(item).encode(), type=as_type)
        except msgspec.ValidationError:
            return
        jsonschema.validate(item, schema)


@SLOW
@given(st.binary(max_size=200), st.sampled_from(rows.FORMATS))
def test_random_bytes_never_crash(tmp_path: Path, data: bytes, fmt: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)

    found = rows.scan(path, fmt)

    assert found.total_problems >= 1
    assert len(data) == found.bytes


@SLOW
@given(ROW, st.integers(0, 400), st.binary(max_size=3), st.sampled_from(rows.FORMATS))
def test_mutated_rows_never_crash(tmp_path: Path, row: Any, at: int, piece: bytes, fmt: str) -> None:
    line = json.dumps(row).encode()
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line[:at] + piece + line[at + len(piece) :])

    found = rows.scan(path, fmt, min_rows=1)

    assert all("\n" not in problem.what for problem in found.problems)
