"""
The key/value cache of a running batch: one slot per row, every row starting at position 0.

Rows have different lengths, so each layer writes a row's new token at that row's own position and attention
masks what lies beyond. Active rows are the first `len(lengths)` slots: a row that leaves is overwritten by
the last one, so joining and leaving move one row, never the batch. Models see an ordinary Transformers
cache.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

ROOM = 64  # slots grow in steps of at least this many positions


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped to mypy
    """One layer's keys and values, `[slots, heads, positions, head size]`."""

    is_sliding = False  # sliding windows are a matter of the mask

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots

    def lazy_initialization(self, key_states: Any, value_states: Any) -> None:
        rows, width = self.slots.capacity
        self.keys = _room(key_states, rows, width)
        self.values = _room(value_states, rows, width)
        self.is_initialized = True

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Write one new token per row, and return what the rows may attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        index, positions, width = self.slots.turn
        self.keys[index, :, positions] = key_states[:, :, 0]
        self.values[index, :, positions] = value_states[:, :, 0]
        rows = len(self.slots.lengths)
        return self.keys[:rows, :, :width], self.values[:rows, :, :width]

    def get_seq_length(self) -> int:
        return max(self.slots.lengths, default=0)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1


class Slots:
    """The cache of a batch and who holds how much of it."""

    def __init__(self, layers: int, device: Any) -> None:
        self.lengths: list[int] = []  # tokens held, by active row
        self.capacity = (0, 0)  # slots, positions
        self.turn: tuple[Any, Any, int] = (
            None,
            None,
            0,
        )  # this step's slot index, write positions, widest row
        self.cache = Cache(layers=[SlotLayer(self) for _ in range(layers)])
        self.device = device

    def join(self, prefilled: DynamicCache | None, lengths: list[int]) -> None:
        """Append rows; `prefilled` holds their first tokens, right padded; None when they have none."""
        first = len(self.lengths)
        self.lengths += lengths
        self._reserve(len(self.lengths), max(self.lengths) + 1)
        if prefilled is None:
            return
        for layer, new in zip(self.cache.layers, prefilled.layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(new.keys, new.values)
            layer.keys[first : len(self.lengths), :, : new.keys.shape[2]] = new.keys
            layer.values[first : len(self.lengths), :, : new.values.shape[2]] = new.values

    def leave(self, row: int) -> None:
        """Take `row` out; the last row moves into its place."""
        last = len(self.lengths) - 1
        if row != last:
            for layer in self.cache.layers:
                layer.keys[row] = layer.keys[last]
                layer.values[row] = layer.values[last]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()

    def advance(self) -> tuple[Any, Any]:
        """
        Begin a step in which every row gains one token: `(positions, keys)`.

        `positions` `[rows]` is each new token's position, `keys` `[widest]` counts the positions to attend
        to.
        """
        width = max(self.lengths) + 1
        self._reserve(len(self.lengths), width)
        positions = torch.tensor(self.lengths, device=self.device)
        self.turn = (torch.arange(len(self.lengths), device=self.device), positions, width)
        self.lengths = [length + 1 for length in self.lengths]
        return positions, torch.arange(width, device=self.device)

    def _reserve(self, rows: int, width: int) -> None:
        have_rows, have_width = self.capacity
        if rows <= have_rows and width <= have_width:
            return
        rows = rows if rows <= have_rows else max(rows, have_rows * 2)
        width = have_width if width <= have_width else max(width + ROOM, have_width * 3 // 2)
        self.capacity = (max(rows, have_rows), width)
        for layer in self.cache.layers:
            if layer.is_initialized:
                layer.keys = _grown(layer.keys, *self.capacity)
                layer.values = _grown(layer.values, *self.capacity)


def _room(like: Any, rows: int, width: int) -> Any:
    # zeros, because masked positions are multiplied by 0 and must not be NaN
    return like.new_zeros(rows, like.shape[1], width, like.shape[3])


def _grown(old: Any, rows: int, width: int) -> Any:
    new = _room(old, rows, width)
    new[: old.shape[0], :, : old.shape[2]] = old
    return new
