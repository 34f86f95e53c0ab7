"""
`response_format` while answers are sampled for training: the engine's own grammars, one for each row.

What a constrained model may say in production is then all that it is rewarded for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import LogitsProcessor

from reconciler.selfhosted.engine import EngineError
from reconciler.selfhosted.engine.grammar import Grammar, Grammars
from reconciler.selfhosted.training.failures import Failure


class Constraint(LogitsProcessor):  # type: ignore[misc]
    """Rules out, for one batch, what the format does not allow next; a complete answer can only end."""

    def __init__(self, grammars: Grammars, response_format: Mapping[str, Any], rows: int, end: int) -> None:
        self._grammars: list[Grammar | None] = [grammars.grammar(response_format) for _ in range(rows)]
        self._end = end
        self._began = False

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores = scores.clone()
        for row, grammar in enumerate(self._grammars):
            if grammar is not None and self._began:
                token = int(input_ids[row, -1])
                if token == self._end or grammar.take(token):
                    grammar = self._grammars[row] = None
            if grammar is not None:
                grammar.constrain(scores[row])
            else:
                scores[row] = torch.full_like(scores[row], float("-inf"))
                scores[row, self._end] = 0.0
        self._began = True
        return scores


def grammars(tokenizer: Any, response_format: Mapping[str, Any] | None) -> Grammars | None:
    """What the format allows in this tokenizer's words, None for free text. Failure when it is no format."""
    made = Grammars(tokenizer, frozenset({tokenizer.eos_token_id}))
    try:
        return made if made.grammar(response_format) else None
    except EngineError as error:
        raise Failure("invalid_response_format", error.message) from None
