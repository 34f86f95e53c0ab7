"""
YAML from strangers, read without trust: values of JSON's types and nothing else.

We drive libyaml event by event instead of letting it compose a tree: its composer recurses in C and
overflows the stack on deep input, and merge keys and aliases can grow a page into gigabytes. So depth
is counted as we go, aliases have a budget, and tags, merge keys and duplicate keys are refused.
Scalars follow YAML 1.2's core schema, except that what it would silently change (010, .inf) is not guessed.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import yaml
from yaml import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

MAX_BYTES = 5_000_000
TOO_BIG = f"the file has more than {MAX_BYTES:,} bytes; split it"
MAX_DEPTH = 100  # levels of nesting, aliases unfolded
MAX_ALIASED = 1_000_000  # characters and nodes that the aliases of one file may stand for

Event = Any  # of libyaml; which attributes it has goes by its type

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff\ufeff]")
_NO_KEY = object()
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep; YAML this deep is not read"


class Flaw(NamedTuple):
    """What is wrong at a line of the text."""

    line: int
    what: str


class Page(NamedTuple):
    """One document of a file: its value and the line it starts on."""

    value: Any
    line: int


class _Stop(Exception):
    """The rest of the text cannot be read."""


def parse(data: bytes) -> tuple[list[Page], list[Flaw]]:
    """Every document in `data` that is not empty, and every flaw found. Pure."""
    if flaw := _unreadable(data):
        return [], [flaw]
    return _Reader(data).read()


def shown(value: Any) -> str:
    """A value that somebody wrote, fit for one sentence: on one line and not too long. Pure."""
    text = str(value)
    text = text if len(text) <= 60 else f"{text[:60]}…"
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _unreadable(data: bytes) -> Flaw | None:
    if len(data) > MAX_BYTES:
        return Flaw(1, TOO_BIG)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as bad:
        line = data.count(b"\n", 0, bad.start) + 1
        return Flaw(line, f"not valid UTF-8 at byte {bad.start}; save the file as UTF-8")
    if "\0" in text:
        at = text.index("\0")
        return Flaw(text.count("\n", 0, at) + 1, "a NUL byte is not text; remove it")
    return None


def events(data: bytes) -> Iterator[Event]:
    """libyaml's events, one by one. Raises yaml.YAMLError."""
    parser = yaml.CSafeLoader(data)
    while (event := parser.get_event()) is not None:
        yield event


class _Frame:
    """A mapping or sequence that is still open."""

    __slots__ = ("anchor", "key", "keys", "start", "value")

    def __init__(self, event: Event) -> None:
        is_map = type(event) is MappingStartEvent
        self.value: Any = {} if is_map else []
        self.keys: dict[str, int] | None = {} if is_map else None  # every key's line; None in a sequence
        self.key: Any = _NO_KEY
        self.anchor: str | None = event.anchor
        self.start: Event = event


class _Reader:
    """One file on its way from events to values. What is refused is noted, and reading goes on."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.flaws: list[Flaw] = []
        self.pages: list[Page] = []
        self.open: list[_Frame] = []
        self.anchors: dict[str, Any] = {}
        self.weights: dict[str, tuple[int, int]] = {}
        self.aliased = 0

    def read(self) -> tuple[list[Page], list[Flaw]]:
        try:
            take = self._take
            for event in events(self.data):
                take(type(event), event)
        except yaml.YAMLError as bad:
            self.flaws.append(_syntax_flaw(bad, self.data.decode("utf-8")))
        except _Stop:
            pass
        return self.pages, self.flaws

    def _take(self, kind: type, event: Event) -> None:
        if kind is ScalarEvent:
            if self.open and (frame := self.open[-1]).keys is not None and frame.key is _NO_KEY:
                frame.key = self._key(event, frame.keys)
            else:
                self._put(self._scalar(event), event)
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            if len(self.open) >= MAX_DEPTH:
                self._stop(event, _TOO_DEEP)
            if event.tag is not None:
                self._tagged(event)
            self.open.append(_Frame(event))
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            frame = self.open.pop()
            if frame.anchor is not None:
                self._anchor(frame.anchor, frame.value)
            if self.open:
                self._put(frame.value, frame.start)
            else:
                self.pages.append(Page(frame.value, frame.start.start_mark.line + 1))
        elif kind is AliasEvent:
            self._put(self._alias(event), event)
        elif kind is DocumentStartEvent:
            self.anchors.clear()
            self.weights.clear()

    def _put(self, value: Any, event: Event) -> None:
        """Set `value` where it belongs in the innermost open collection."""
        if not self.open:
            if value is not None:
                self.pages.append(Page(value, event.start_mark.line + 1))
            return
        frame = self.open[-1]
        if frame.keys is None:
            frame.value.append(value)
        elif frame.key is not _NO_KEY:
            frame.value[frame.key] = value
            frame.key = _NO_KEY
        else:
            self._flaw(
                event,
                "a key must be plain text; put {{ variables }} and text that starts with { or [ in quotes",
            )
            frame.key = ""

    def _flaw(self, event: Event, what: str) -> None:
        self.flaws.append(Flaw(event.start_mark.line + 1, what))

    def _stop(self, event: Event, what: str) -> NoReturn:
        self._flaw(event, what)
        raise _Stop

    def _tagged(self, event: Event) -> None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        self._flaw(
            event, f"the tag {shown(tag)} is not allowed; write the plain value, in quotes if it is text"
        )

    def _key(self, event: Event, keys: dict[str, int]) -> str:
        key: str = event.value
        if event.tag is not None:
            self._tagged(event)
        if event.anchor is not None:
            self._anchor(event.anchor, key)
        if key == "<<" and event.implicit[0]:
            self._flaw(event, "merge keys (<<) are not allowed; write the fields out")
        elif key in keys:
            self._flaw(
                event, f"the key {shown(key)} is already there on line {keys[key]}; remove one of the two"
            )
        elif not key:
            self._flaw(event, "a key is empty")
        elif "\0" in key:
            self._flaw(event, "a NUL character is not text; remove it")
        keys.setdefault(key, event.start_mark.line + 1)
        return key

    def _scalar(self, event: Event) -> Any:
        value: Any = event.value
        if event.tag is not None:
            self._tagged(event)
        if event.implicit[0]:
            if value in _WORDS:
                value = _WORDS[value]
            elif value[0] in "+-.0123456789":
                value = self._number(event, value)
        elif "\0" in value:
            self._flaw(event, "a NUL character is not text; remove it")
        if event.anchor is not None:
            self._anchor(event.anchor, value)
        return value

    def _number(self, event: Event, text: str) -> Any:
        if _INT.fullmatch(text):
            if len(text) > 24 or not -(2**63) <= (number := int(text, 0)) < 2**63:
                self._flaw(event, "the integer does not fit 64 bits; put it in quotes if it is text")
                return 0
            return number
        if _FLOAT.fullmatch(text):
            if text.lstrip("+-")[:2].isdigit() and text.lstrip("+-")[0] == "0":
                return text  # 010, 007.5: an id or a time, not ours to renumber
            if math.isfinite(real := float(text)):
                return real
        elif not _NOT_FINITE.fullmatch(text):
            return text
        self._flaw(event, "the number is not finite; put it in quotes if it is text")
        return 0

    def _anchor(self, name: str, value: Any) -> None:
        self.anchors[name] = value
        self.weights.pop(name, None)

    def _alias(self, event: Event) -> Any:
        name = event.anchor
        if name not in self.anchors:
            self._flaw(event, f"the alias *{shown(name)} has no anchor of that name that ends before it")
            return None
        if name not in self.weights:
            self.weights[name] = _weight(self.anchors[name])
        weight, height = self.weights[name]
        self.aliased += weight
        if self.aliased > MAX_ALIASED:
            self._stop(
                event, f"the file's aliases stand for more than {MAX_ALIASED:,} values; write fewer of them"
            )
        if len(self.open) + height > MAX_DEPTH:
            self._stop(event, _TOO_DEEP)
        return self.anchors[name]


def _weight(value: Any) -> tuple[int, int]:
    """Nodes and characters in `value` with its aliases unfolded, and its levels. The budget bounds both."""
    if isinstance(value, str):
        return 1 + len(value), 0
    if not isinstance(value, dict | list):
        return 1, 0
    parts = [_weight(part) for part in (value.values() if isinstance(value, dict) else value)]
    keys = sum(map(len, value)) if isinstance(value, dict) else 0
    return 1 + keys + sum(weight for weight, _ in parts), 1 + max((height for _, height in parts), default=0)


def _syntax_flaw(bad: yaml.YAMLError, text: str) -> Flaw:
    """One sentence out of the parser's four lines."""
    if not isinstance(bad, yaml.MarkedYAMLError):  # from the reader of characters, which knows no line
        found = _UNPRINTABLE.search(text)
        line = text.count("\n", 0, found.start()) + 1 if found else 1
        return Flaw(line, "a control character is not allowed; remove it")
    problem = bad.problem or "the text ends too early"
    mark = bad.problem_mark or bad.context_mark
    if mark is None:
        return Flaw(1, f"not valid YAML: {problem}")
    line = mark.line + 1
    if "nesting depth" in problem:
        return Flaw(line, _TOO_DEEP)
    where = f"at column {mark.column + 1}"
    if line > (last := len(text.splitlines())):
        line, where = max(last, 1), "at the end"
    context = ""
    if bad.context and bad.context_mark and bad.context_mark.line < line:
        context = f" ({bad.context} that starts on line {bad.context_mark.line + 1})"
    hint = ""
    if "cannot start any token" in problem:
        hint = "; put text that starts with @, ` or % in quotes, and indent with spaces, not tabs"
    return Flaw(line, f"not valid YAML: {problem} {where}{context}{hint}")
