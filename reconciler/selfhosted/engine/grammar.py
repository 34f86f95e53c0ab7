"""
`response_format` and a forced call as constraints on tokens: at each step only tokens that can still lead to a
valid document count.

llguidance (a Rust library without dependencies) turns a JSON schema into a grammar over the tokenizer's
bytes. A call is written as models write it that were trained on calls, so that it is read as theirs are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import torch

from reconciler.selfhosted.engine.prompt import CLOSES, OPENS
from reconciler.selfhosted.engine.values import EngineError

WHITESPACE = r"[ ]|\n[ ]{0,16}"  # between JSON tokens; free whitespace lets a weak model write it forever

AS_TEMPLATES_WRITE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammar:
    """Where one answer stands in its grammar."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, text: str, what: str) -> None:
        self._what = what
        self._matcher = llguidance.LLMatcher(tokenizer, text, log_level=0)
        if self._matcher.is_error():
            reason = self._matcher.get_error().strip().splitlines()[0]
            raise EngineError("invalid_request", f"{what} cannot be used: {reason}")

    def constrain(self, logits: Any) -> None:
        """Set the `[vocabulary]` logits of impossible tokens to minus infinity, in place."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.zeros(len(logits), dtype=bool)
        known = np.unpackbits(bits, bitorder="little")[: len(logits)]
        allowed[: len(known)] = known
        logits[~torch.from_numpy(allowed).to(logits.device)] = float("-inf")

    def take(self, token: int) -> bool:
        """Go on by `token`; True when the document is complete."""
        self._matcher.consume_token(token)
        if self._matcher.is_error():
            raise EngineError("engine_failed", f"{self._what}: {self._matcher.get_error().strip()[:200]}")
        return bool(self._matcher.is_stopped())


class Grammars:
    """Grammars for one model; reading its tokenizer for them is slow and happens once."""

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        self._source = tokenizer
        self._ends = sorted(ends)
        self._tokenizer: llguidance.LLTokenizer | None = None

    def grammar(self, response_format: Mapping[str, Any] | None) -> Grammar | None:
        """The constraint `response_format` asks for, None for free text."""
        schema = _schema(response_format)
        return None if schema is None else self._made(_json(schema), "response_format's schema")

    def call(self, tools: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Grammar:
        """One call of a tool with one of these names, and nothing else."""
        schema = json.dumps({**_calls(tools, names), "x-guidance": AS_TEMPLATES_WRITE})
        text = f"start: {self._mark(OPENS)} %json {schema} {self._mark(CLOSES)}"
        return self._made(text, "the parameters of a tool that must be called")

    def _mark(self, text: str) -> str:
        """A mark in the words of a grammar: the token that it is in this tokenizer, or its letters."""
        token = self._source.get_added_vocab().get(text)
        return json.dumps(text) if token is None else f"<[{token}]>"

    def _made(self, text: str, what: str) -> Grammar:
        if self._tokenizer is None:
            self._tokenizer = llguidance.hf.from_tokenizer(self._source, eos_token=self._ends or None)
        return Grammar(self._tokenizer, text, what)


def _json(schema: Mapping[str, Any]) -> str:
    grammar: str = llguidance.LLMatcher.grammar_from_json_schema(
        json.dumps(schema), defaults={"whitespace_flexible": True, "whitespace_pattern": WHITESPACE}
    )
    return grammar


def _calls(tools: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Mapping[str, Any]:
    """The schema of a call of one of these tools."""
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    if missing := [name for name in names if name not in functions]:
        raise EngineError("invalid_request", f"there is no tool {missing[0]!r} to call")
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": name},
                "arguments": functions[name].get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name in names
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _schema(response_format: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    kind = response_format.get("type") if response_format else "text"
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind == "json_schema":
        schema = (response_format.get("json_schema") or {}).get("schema")
        if isinstance(schema, Mapping):
            return schema
        raise EngineError("invalid_request", "response_format needs an object at json_schema.schema")
    raise EngineError(
        "invalid_request", f"response_format.type is {kind!r}; use text, json_object or json_schema"
    )
