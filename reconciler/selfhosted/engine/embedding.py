"""
Texts to vectors: the mean of a model's last hidden states over a text's own tokens, at unit length.

A model that was trained to talk was not trained for this, so the vectors tell near from far and no more.
Rows of one call are computed a few at a time, between the steps of running batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from reconciler.selfhosted.engine.front import Key
from reconciler.selfhosted.engine.network import Served
from reconciler.selfhosted.engine.values import Embedding, EngineError, Text

MOST_ROWS = 32
MOST_TOKENS = 8192  # padded, of one pass


class Embedder:
    """One `embed` call and how far it is. Raises `EngineError` at once for texts that cannot be embedded."""

    def __init__(self, key: Key, model: str, served: Served, texts: Sequence[Text]) -> None:
        self.key = key
        self.model = model
        self.done: list[Embedding] = []
        self._served = served
        self._waiting = deque(_tokens(served, text, place) for place, text in enumerate(texts))

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def step(self) -> None:
        """Embed the next few texts."""
        rows: list[list[int]] = []
        while self._waiting and len(rows) < MOST_ROWS:
            widest = max(map(len, [*rows, self._waiting[0]]))
            if rows and widest * (len(rows) + 1) > MOST_TOKENS:
                break
            rows.append(self._waiting.popleft())
        vectors = _vectors(self._served, rows)
        self.done += [Embedding(vector, len(row)) for vector, row in zip(vectors, rows, strict=True)]


def _tokens(served: Served, text: Text, place: int) -> list[int]:
    if isinstance(text, str):
        tokens: list[int] = served.tokenizer.encode(text, add_special_tokens=False)
    else:
        tokens, size = list(text), len(served.tokenizer)
        if any(not 0 <= token < size for token in tokens):
            raise EngineError("invalid_request", f"input[{place}] has a token outside of the model's {size}")
    if not tokens:
        raise EngineError("invalid_request", f"input[{place}] is empty")
    if len(tokens) > served.context:
        sentence = f"input[{place}] has {len(tokens)} tokens, the context is {served.context}; shorten it"
        raise EngineError("context_length_exceeded", sentence)
    return tokens


def _vectors(served: Served, rows: Sequence[Sequence[int]]) -> list[list[float]]:
    device, widest = served.base.network.device, max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (widest - len(row))] for row in rows], device=device)
    own: Any = torch.tensor([[1] * len(row) + [0] * (widest - len(row)) for row in rows], device=device)
    served.base.act_as(served.adapter)
    out = served.base.network(
        input_ids=ids, attention_mask=own, output_hidden_states=True, use_cache=False, logits_to_keep=1
    )
    states = out.hidden_states[-1].float() * own[:, :, None]
    mean = states.sum(dim=1) / own.sum(dim=1, keepdim=True)
    vectors: list[list[float]] = torch.nn.functional.normalize(mean, dim=-1).tolist()
    return vectors
