"""YAML as strangers write it: what it means, what is refused, and on which line."""

import subprocess
import sys
from typing import Any

import pytest

from reconciler import yamlsafe
from reconciler.yamlsafe import Flaw

BOMB = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)),
    ]
)


def value_of(text: str) -> Any:
    (page,), flaws = yamlsafe.parse(text.encode())
    assert [] == flaws
    return page.value


def flaws_of(text: str | bytes) -> list[Flaw]:
    return yamlsafe.parse(text if isinstance(text, bytes) else text.encode())[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("No", "No"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("2026-11-24", "2026-11-24"),
        ("1_000", "1_000"),
        ("010", "010"),
        ("007.5", "007.5"),
        ("0o10", 8),
        ("0x1F", 31),
        ("+5", 5),
        ("-0", 0),
        ("9223372036854775807", 9223372036854775807),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("0.5", 0.5),
        ("-1.5e-3", -0.0015),
        ("'1'", "1"),
        ('"true"', "true"),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("-", "-"),
        ("0x", "0x"),
    ],
)
def test_a_scalar_means_what_yaml_1_2_says(text: str, expected: Any) -> None:
    found = value_of(
        f"a: [{text}]" if text not in ("", "-") else f"a: [1, '{text}']" if text else "a: [1,~]"
    )["a"][-1]

    assert (expected, type(expected)) == (found, type(found))


def test_an_anchor_may_be_used_again() -> None:
    text = "base: &base {model: tiny, tags: [a, b]}\nmore: [*base, *base]\n"

    base = {"model": "tiny", "tags": ["a", "b"]}
    assert {"base": base, "more": [base, base]} == value_of(text)


def test_block_text_keeps_its_lines() -> None:
    assert {"a": "one\n  two\n", "b": "one two"} == value_of("a: |\n  one\n    two\nb: >-\n  one\n  two\n")


def test_keys_are_text() -> None:
    assert {"1": "a", "on": "b", "null": "c"} == value_of("1: a\non: b\nnull: c\n")


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert {"a": 1} == value_of("\ufeffa: 1")


TAG = "is not allowed; write the plain value, in quotes if it is text"
KEY = "a key must be plain text; put {{ variables }} and text that starts with { or [ in quotes"
FINITE = "the number is not finite; put it in quotes if it is text"
BITS = "the integer does not fit 64 bits; put it in quotes if it is text"
STARTS = "put text that starts with @, ` or % in quotes, and indent with spaces, not tabs"
BAD: list[tuple[str | bytes, int, str]] = [
    ("a: 1\nb: 2\na: 3\n", 3, "the key a is already there on line 1; remove one of the two"),
    ("a:\n  x: 1\n  x: 2\n", 3, "the key x is already there on line 2; remove one of the two"),
    ("a: !!str 1\n", 1, f"the tag !!str {TAG}"),
    ("a: 1\nb: !!python/object:os.system {}\n", 2, f"the tag !!python/object:os.system {TAG}"),
    ("b: &b {x: 1}\na:\n  <<: *b\n", 3, "merge keys (<<) are not allowed; write the fields out"),
    ("a: {{ name }}\n", 1, KEY),
    ("a: 1\n? [x]\n: 2\n", 2, KEY),
    (
        f"? {'k' * 99}\n: 1\n? {'k' * 99}\n: 2\n",
        3,
        f"the key {'k' * 60}… is already there on line 1; remove one of the two",
    ),
    ('"a\\nb": 1\n"a\\nb": 2\n', 2, "the key a\\nb is already there on line 1; remove one of the two"),
    ("a: 1\n'': 2\n", 2, "a key is empty"),
    ("a: .inf\n", 1, FINITE),
    ("a: .NaN\n", 1, FINITE),
    ("a: 1e999\n", 1, FINITE),
    ("a: 9223372036854775808\n", 1, BITS),
    (f"a: {'9' * 10_000}\n", 1, BITS),
    ("a: 1\nb: *nothing\n", 2, "the alias *nothing has no anchor of that name that ends before it"),
    ("a: &a [*a]\n", 1, "the alias *a has no anchor of that name that ends before it"),
    ('a: 1\nb: "x\\0y"\n', 2, "a NUL character is not text; remove it"),
    ("a: 1\nb\0: 2\n", 2, "a NUL byte is not text; remove it"),
    ("a: 1\nb: \x07\n", 2, "a control character is not allowed; remove it"),
    (b"a: 1\nb: caf\xe9\n", 2, "not valid UTF-8 at byte 11; save the file as UTF-8"),
    ("a: 1".encode("utf-16"), 1, "not valid UTF-8 at byte 0; save the file as UTF-8"),
    (
        "a: [1, 2\nb: 3\n",
        2,
        "not valid YAML: did not find expected ',' or ']' at column 2 "
        "(while parsing a flow sequence that starts on line 1)",
    ),
    ("a: b: c\n", 1, "not valid YAML: mapping values are not allowed in this context at column 5"),
    (
        "a: 'x\n",
        1,
        "not valid YAML: found unexpected end of stream at the end "
        "(while scanning a quoted scalar that starts on line 1)",
    ),
    (
        "a: @x\n",
        1,
        "not valid YAML: found character that cannot start any token at column 4 "
        f"(while scanning for the next token that starts on line 1); {STARTS}",
    ),
]


@pytest.mark.parametrize(("text", "line", "what"), BAD)
def test_a_flaw_has_a_line_and_one_sentence(text: str | bytes, line: int, what: str) -> None:
    assert [Flaw(line, what)] == flaws_of(text)


def test_all_flaws_of_a_file_are_found() -> None:
    text = "a: 1\na: 2\n---\nb: !x 1\n---\nc: *d\n"

    assert [2, 4, 6] == [flaw.line for flaw in flaws_of(text)]


def test_a_bomb_of_aliases_is_refused() -> None:
    (flaw,) = flaws_of(BOMB)

    assert "the file's aliases stand for more than 1,000,000 values; write fewer of them" == flaw.what


def test_a_bomb_of_merge_keys_is_refused() -> None:
    layers = [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 9)]

    assert {"merge keys (<<) are not allowed; write the fields out"} < {
        flaw.what for flaw in flaws_of("\n".join(["a0: &a0 {x: 1}", *layers]))
    }


def test_aliases_cannot_dig_deeper_than_brackets_can() -> None:
    text = "\n".join(["a0: &a0 []", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 120))])

    assert [Flaw(100, "nested more than 100 levels deep; YAML this deep is not read")] == flaws_of(text)


@pytest.mark.parametrize("text", ["[" * 99 + "]" * 99, "- " * 99 + "a"])
def test_a_hundred_levels_are_deep_enough(text: str) -> None:
    assert [] == flaws_of(f"a:\n  {text}")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "- ? ", "[{a: "])
def test_a_hundred_thousand_levels_do_not_end_the_process(opening: str) -> None:
    """PyYAML's own composer overflows the stack on them."""
    code = (
        "import sys; from reconciler import yamlsafe;"
        "print(yamlsafe.parse(sys.argv[1].encode() * 100_000)[1][0].what)"
    )

    done = subprocess.run([sys.executable, "-c", code, opening], capture_output=True, text=True, timeout=60)

    expected = "nested more than 100 levels deep; YAML this deep is not read\n"
    assert (0, expected, "") == (done.returncode, done.stdout, done.stderr)
