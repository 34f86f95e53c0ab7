"""
The arithmetic of `multi.calculate_output`: `+ - * / ^`, parentheses, a few functions, and names of graders.

A parser of our own, never `eval`: a formula is somebody else's text. Everything is a float, so
nothing can grow beyond 8 bytes, and what has no finite value (1/0, log(0), 10^999) is a FormulaError.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

MAX_CHARACTERS = 4_000
MAX_TOKENS = 400  # bounds the depth of the tree, and with it the recursion that walks it
MAX_DEPTH = 40

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>[-+*/^(),]))"
)
_ONE: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "floor": lambda x: float(math.floor(x)),
    "ceil": lambda x: float(math.ceil(x)),
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
_MANY: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max}
FUNCTIONS = tuple(sorted((*_ONE, *_MANY)))


class FormulaError(Exception):
    """The formula cannot be read, or has no finite value."""


class Number(NamedTuple):
    value: float


class Name(NamedTuple):
    name: str


class Call(NamedTuple):
    """An operator or a function with its arguments."""

    function: str
    arguments: tuple[Node, ...]


Node = Number | Name | Call


def parse(text: str) -> Node:
    """The formula as a tree. Pure. Raises FormulaError with the position of the first mistake."""
    if len(text) > MAX_CHARACTERS:
        raise FormulaError(
            f"the formula has {len(text)} characters; at most {MAX_CHARACTERS} are read: shorten it"
        )
    parser = _Parser(_tokens(text))
    tree = parser.sum(0)
    if parser.here != "":
        raise FormulaError(f"the formula ends before '{parser.here}' at token {parser.position + 1}")
    return tree


def names(tree: Node) -> set[str]:
    """The grader names a formula refers to. Pure."""
    if isinstance(tree, Name):
        return {tree.name}
    if isinstance(tree, Call):
        return set[str]().union(*(names(argument) for argument in tree.arguments))
    return set()


def evaluate(tree: Node, values: Mapping[str, float]) -> float:
    """The finite value of a formula. Pure. Raises FormulaError where there is none."""
    try:
        value = _value(tree, values)
    except ZeroDivisionError:
        raise FormulaError("the formula divides by zero") from None
    except OverflowError:
        raise FormulaError("the formula's value is too large") from None
    except ValueError:
        raise FormulaError("the formula takes a logarithm or root of a number that has none") from None
    if not math.isfinite(value):
        raise FormulaError(f"the formula's value is {value}, not a finite number")
    return value


def _value(tree: Node, values: Mapping[str, float]) -> float:
    if isinstance(tree, Number):
        return tree.value
    if isinstance(tree, Name):
        if tree.name not in values:
            raise FormulaError(
                f"the formula names {tree.name}, which is not one of its graders: {_known(values)}"
            )
        return values[tree.name]
    arguments = [_value(argument, values) for argument in tree.arguments]
    if tree.function in _ONE:
        return _ONE[tree.function](arguments[0])
    if tree.function in _MANY:
        return _MANY[tree.function](arguments)
    return _operate(tree.function, arguments)


def _operate(sign: str, arguments: list[float]) -> float:
    if sign == "negate":
        return -arguments[0]
    left, right = arguments
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left / right
    return math.pow(left, right)


def _known(values: Mapping[str, float]) -> str:
    return ", ".join(sorted(values)[:10]) or "none"


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        token = _TOKEN.match(text, position)
        if token is None:
            rest = text[position:].lstrip()
            raise FormulaError(f"the formula has '{rest[:1]}' at character {len(text) - len(rest) + 1}")
        tokens.append(token.group().strip())
        position = token.end()
        if len(tokens) > MAX_TOKENS:
            raise FormulaError(f"the formula has more than {MAX_TOKENS} numbers, names and signs: shorten it")
    return tokens


@dataclass
class _Parser:
    """Recursive descent, one method per precedence; `depth` bounds the recursion."""

    tokens: list[str]
    position: int = 0

    @property
    def here(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.here
        self.position += 1
        return token

    def expect(self, sign: str) -> None:
        if self.take() != sign:
            raise FormulaError(f"the formula lacks '{sign}' at token {self.position}")

    def sum(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise FormulaError(f"the formula is nested more than {MAX_DEPTH} deep: flatten it")
        return self._chain(self.product, "+-", depth)

    def product(self, depth: int) -> Node:
        return self._chain(self.signed, "*/", depth)

    def _chain(self, part: Callable[[int], Node], signs: str, depth: int) -> Node:
        terms = part(depth)
        while self.here and self.here in signs:
            sign = self.take()
            terms = Call(sign, (terms, part(depth)))
        return terms

    def signed(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise FormulaError(f"the formula is nested more than {MAX_DEPTH} deep: flatten it")
        if self.here in ("-", "+"):
            sign = self.take()
            inner = self.signed(depth + 1)
            return Call("negate", (inner,)) if sign == "-" else inner
        return self.power(depth)

    def power(self, depth: int) -> Node:
        base = self.atom(depth)
        if self.here == "^":
            self.take()
            return Call("^", (base, self.signed(depth + 1)))
        return base

    def atom(self, depth: int) -> Node:
        token = self.take()
        if token == "(":
            inner = self.sum(depth + 1)
            self.expect(")")
            return inner
        if token[:1].isdigit() or token[:1] == ".":
            return Number(float(token))
        if token[:1].isalpha() or token[:1] == "_":
            return self._call(token, depth) if self.here == "(" else Name(token)
        what = f"has '{token}' where a number, a name or '(' belongs" if token else "ends too early"
        raise FormulaError(f"the formula {what}, at token {self.position}")

    def _call(self, function: str, depth: int) -> Node:
        if function not in FUNCTIONS:
            raise FormulaError(f"the formula calls {function}; known are {', '.join(FUNCTIONS)}")
        self.expect("(")
        arguments = [self.sum(depth + 1)]
        while self.here == ",":
            self.take()
            arguments.append(self.sum(depth + 1))
        self.expect(")")
        if function in _ONE and len(arguments) != 1:
            raise FormulaError(f"the formula gives {function} {len(arguments)} arguments; it takes one")
        return Call(function, tuple(arguments))
