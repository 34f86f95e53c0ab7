"""
From logits to tokens, row by row: what a row draws depends on its own logits and its own random numbers only.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Sampling:
    """How one row draws; `random` is its own stream, so a seed repeats whatever else runs."""

    temperature: float
    top_p: float
    random: random.Random

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def choose(logits: Any, rows: Sequence[Sampling]) -> list[int]:
    """One token per row of `logits` `[rows, vocabulary]`; draws one random number per row that samples."""
    tokens: list[int] = logits.argmax(-1).tolist()
    plain = [i for i, row in enumerate(rows) if not row.greedy and row.top_p >= 1]
    nucleus = [i for i, row in enumerate(rows) if not row.greedy and row.top_p < 1]
    if plain:
        picked = _draw(_probabilities(logits, rows, plain), rows, plain)
        for i, token in zip(plain, picked.tolist(), strict=True):
            tokens[i] = token
    if nucleus:
        ranked, order = _probabilities(logits, rows, nucleus).sort(dim=-1, descending=True, stable=True)
        limits = torch.tensor([rows[i].top_p for i in nucleus], dtype=ranked.dtype, device=logits.device)
        # a token is kept while the mass before it is short of top_p; the first one always is
        ranked[ranked.cumsum(-1) - ranked >= limits[:, None].clamp_min(1e-9)] = 0
        picked = order.gather(-1, _draw(ranked, rows, nucleus)[:, None])[:, 0]
        for i, token in zip(nucleus, picked.tolist(), strict=True):
            tokens[i] = token
    return tokens


def _probabilities(logits: Any, rows: Sequence[Sampling], chosen: list[int]) -> Any:
    temperatures = torch.tensor(
        [rows[i].temperature for i in chosen], dtype=torch.float64, device=logits.device
    )
    mine = logits[chosen].double()
    mine -= mine.amax(-1, keepdim=True)  # or a tiny temperature overflows
    return torch.softmax(mine / temperatures[:, None], dim=-1)


def _draw(probabilities: Any, rows: Sequence[Sampling], chosen: list[int]) -> Any:
    """Inverse transform sampling: the first token at which the cumulated mass exceeds a uniform number."""
    cumulated = probabilities.cumsum(-1)
    uniform = torch.tensor(
        [rows[i].random.random() for i in chosen], dtype=torch.float64, device=cumulated.device
    )
    at = torch.searchsorted(cumulated, uniform[:, None] * cumulated[:, -1:], right=True)[:, 0]
    # rounding may carry the number to the very end, past the last token with any mass
    last = (probabilities > 0).long().cumsum(-1).argmax(-1)
    return torch.minimum(at, last)
