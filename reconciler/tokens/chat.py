"""
A model's chat template: messages in, the text that the model reads out.

It does what the trainer of the self-hosted platform does with Transformers, so that a count made here is
the number it trains on; a test holds the two to each other. A template is a stranger's program: it runs
in Jinja's sandbox.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from reconciler.tokens.messages import Message, Refused, for_template, tools_of

SOME_DAY = datetime(2026, 11, 23, tzinfo=UTC)  # templates that write the date write one of this length
BREAKS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
Span = tuple[int, int]  # characters


class Rendered(NamedTuple):
    """One example as text, and the stretches of it that are learned."""

    text: str
    spans: tuple[Span, ...]


class Template:
    """A chat template. `special` are the tokens it may name, `picture` is what stands for a picture."""

    def __init__(self, source: str, special: Mapping[str, str], picture: str = "") -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {
            "raise_exception": _refuse,
            "strftime_now": SOME_DAY.strftime,
            "namespace": jinja2.utils.Namespace,
        }
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise Refused(str(error)) from None
        self._marks: Any = environment.extensions[_Generation.identifier]
        self._marked = "generation" in source
        self._special, self.picture = special, picture

    def prompt(self, messages: Sequence[Message]) -> str:
        """What a model is asked. Raises Refused."""
        return self._render(for_template(messages, self.picture), None, asks=True)[0]

    def examples(self, row: Mapping[str, Any]) -> list[Rendered]:
        """What a chat row trains on: one example, or one for each trained turn. Raises Refused."""
        said = row["messages"]
        messages, tools = for_template(said, self.picture), tools_of(row)
        turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        trained = [index for index in turns if said[index].get("weight", 1) == 1]
        text, blocks = self._render(messages, tools)
        if len(blocks) == len(turns):
            spans = (block for index, block in zip(turns, blocks, strict=True) if index in trained)
            return [Rendered(text, tuple(spans))]
        return self._by_difference(text, messages, tools, trained)

    def _by_difference(
        self, text: str, messages: list[dict[str, Any]], tools: Any, trained: list[int]
    ) -> list[Rendered]:
        """A template without marks: a turn is what rendering one message more adds."""
        single = []
        for index in trained:
            before = self._render(messages[:index], tools, asks=True)[0] if index else ""
            after = self._render(messages[: index + 1], tools)[0]
            single.append(Rendered(after, ((_shared(before, after), len(after.rstrip())),)))
        if all(text.startswith(each.text) for each in single):
            return [Rendered(text, tuple(span for each in single for span in each.spans))]
        return single

    def _render(
        self, messages: list[dict[str, Any]], tools: Any, *, asks: bool = False
    ) -> tuple[str, list[Span]]:
        given = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": asks}
        pieces: list[str] = []
        found: list[Span] = []
        self._marks.watch(pieces if self._marked else None, found)
        try:
            for piece in self._template.generate(**self._special, **given):
                pieces.append(piece)  # one by one: a mark looks how far the text has come
        except BREAKS as error:
            raise Refused(type(error).__name__) from None
        finally:
            self._marks.watch(None, found)
        return "".join(pieces), found


class _Generation(Extension):
    """`{% generation %}` … `{% endgeneration %}`: what the assistant says."""

    tags = {"generation"}
    _pieces: list[str] | None = None
    _found: list[Span] = []

    def watch(self, pieces: list[str] | None, found: list[Span]) -> None:
        self._pieces, self._found = pieces, found

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Any) -> str:
        text: str = caller()
        if self._pieces is not None:
            start = sum(map(len, self._pieces))
            self._found.append((start, start + len(text)))
        return text


def _shared(one: str, other: str) -> int:
    """How many characters the two begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _to_json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **how)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
