"""
`response_format` as a constraint on tokens: at each step only tokens that can still lead to a valid
document count.

llguidance (a Rust library without dependencies) turns a JSON schema into a grammar over the tokenizer's
bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import torch

from reconciler.selfhosted.engine.values import EngineError

WHITESPACE = r"[ ]|\n[ ]{0,16}"  # between JSON tokens; free whitespace lets a weak model write it forever


class Grammar:
    """Where one answer stands in its grammar."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, schema: Mapping[str, Any]) -> None:
        text = llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(schema), defaults={"whitespace_flexible": True, "whitespace_pattern": WHITESPACE}
        )
        self._matcher = llguidance.LLMatcher(tokenizer, text, log_level=0)
        if self._matcher.is_error():
            reason = self._matcher.get_error().strip().splitlines()[0]
            raise EngineError("invalid_request", f"response_format's schema cannot be used: {reason}")

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
            raise EngineError("engine_failed", f"response_format: {self._matcher.get_error().strip()[:200]}")
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
        if schema is None:
            return None
        if self._tokenizer is None:
            self._tokenizer = llguidance.hf.from_tokenizer(self._source, eos_token=self._ends or None)
        return Grammar(self._tokenizer, schema)


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
