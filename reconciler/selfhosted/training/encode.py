"""
Rows as tokens, with the loss on what the assistant said and nothing else.

A template with `{% generation %}` marks says itself where an assistant's turn begins and ends. Where it
has none, the turn is what rendering one message more adds; and where rendering more changes what came
before (templates that drop earlier thoughts), every trained turn becomes an example of its own, exactly
as the model will meet it. Rows that are too long lose their end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, concatenate_datasets
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from reconciler.selfhosted.training import turns
from reconciler.selfhosted.training.failures import Failure
from reconciler.selfhosted.training.rows import Param

IGNORED = -100  # the label of a token that carries no loss, PyTorch's ignore_index
_CHUNK = 1000  # rows tokenized together


class Marked(NamedTuple):
    """A conversation as text, and the stretches of characters to learn."""

    text: str
    spans: list[tuple[int, int]]


@dataclass(frozen=True)
class Examples:
    """`dataset` has the columns `input_ids` and `labels`."""

    dataset: Dataset
    tokens: int
    longest: int
    truncated: int  # rows that lost their end
    silent: int  # rows without a token to learn, left out


class Encoder:
    """`picture` is the text that stands for a picture, where the model sees."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int, picture: str = "") -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._picture = picture

    def encode(self, rows: Iterable[tuple[int, dict[str, Any]]], param: Param) -> Examples:
        """All rows of a file. Failure when the template refuses a row, or no row has anything to learn."""
        batches, tokens, longest, truncated, silent = [], 0, 0, 0, 0
        remaining = iter(rows)
        while chunk := list(islice(remaining, _CHUNK)):
            ids, labels = [], []
            for these, those in self.tokens([m for row in chunk for m in self._marked(*row, param)]):
                truncated += len(these) > self._max_length
                these, those = these[: self._max_length], those[: self._max_length]
                if not (those[1:] != IGNORED).any():
                    silent += 1
                    continue
                ids.append(these)
                labels.append(those)
                tokens += len(these)
                longest = max(longest, len(these))
            if ids:
                batches.append(Dataset.from_dict({"input_ids": ids, "labels": labels}))
        if tokens == 0:
            message = (
                f"no row of the {param.replace('_', ' ')} has an assistant turn to learn within the length"
            )
            raise Failure(f"invalid_{param}", f"{message} of {self._max_length} tokens", param)
        return Examples(concatenate_datasets(batches), tokens, longest, truncated, silent)

    def _marked(self, number: int, row: Mapping[str, Any], param: Param) -> list[Marked]:
        try:
            return self.mark(row)
        except TemplateError:
            message = (
                f"row {number}: the chat template of the base model refuses this order of messages or roles"
            )
            raise Failure(f"invalid_{param}", message, param) from None

    def mark(self, row: Mapping[str, Any]) -> list[Marked]:
        """The examples of a row: one, or one for each trained turn."""
        messages, tools = turns.for_template(row["messages"], self._picture), turns.tools_for_template(row)
        assistant = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        trained = [i for i in assistant if row["messages"][i].get("weight", 1) == 1]
        text, blocks = self._render(messages, tools)
        if len(blocks) == len(assistant):
            return [Marked(text, [block for i, block in zip(assistant, blocks, strict=True) if i in trained])]
        return self._by_difference(text, messages, tools, trained)

    def _by_difference(
        self, text: str, messages: list[dict[str, Any]], tools: Any, trained: list[int]
    ) -> list[Marked]:
        single = []
        for i in trained:
            before = self._render(messages[:i], tools, prompt=True)[0] if i else ""
            after = self._render(messages[: i + 1], tools)[0]
            # What follows the mark that ends a turn (a line break, as a rule) is not the assistant's.
            single.append(Marked(after, [(_shared(before, after), len(after.rstrip()))]))
        if all(text.startswith(each.text) for each in single):
            return [Marked(text, [span for each in single for span in each.spans])]
        return single

    def _render(
        self, messages: list[dict[str, Any]], tools: Any, *, prompt: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        template = self._tokenizer.get_chat_template(None, tools=tools)
        texts, blocks = render_jinja_template(
            conversations=[messages],
            tools=tools,
            chat_template=template,
            return_assistant_tokens_mask="generation" in template,
            add_generation_prompt=prompt,
            **self._tokenizer.special_tokens_map,
        )
        return texts[0], blocks[0] if blocks else []

    def tokens(self, marked: list[Marked]) -> Iterator[tuple[Any, Any]]:
        """Token ids and labels of each example, as arrays of the same length."""
        tokenized = self._tokenizer(
            [each.text for each in marked],
            add_special_tokens=False,  # the template wrote them
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        offsets = tokenized["offset_mapping"]
        for each, ids, at in zip(marked, tokenized["input_ids"], offsets, strict=True):
            tokens = np.asarray(ids, dtype=np.int32)
            start, end = np.asarray(at, dtype=np.int64).reshape(-1, 2).T
            learn = np.zeros(len(tokens), dtype=bool)
            for first, last in each.spans:
                # Some tokenizers report a token of spaces only as an empty stretch at its end.
                learn |= (end > first) & ((start < last) | (end <= last))
            yield tokens, np.where(learn, tokens, IGNORED)


def _shared(one: str, other: str) -> int:
    """How many characters the two begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
