"""
The rows of a reinforcement file as prompts: rendered as they will be served, and whole in the grader's eyes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from reconciler.selfhosted.engine import Ask, EngineError, prompt
from reconciler.selfhosted.training import rows
from reconciler.selfhosted.training.failures import Failure
from reconciler.selfhosted.training.folder import Story
from reconciler.selfhosted.training.rows import Param

_MOST_ROWS = {"training_file": 50_000, "validation_file": 1_000}


class Prompts(NamedTuple):
    items: list[dict[str, Any]]  # the rows, which the grader may read
    tokens: list[list[int]]


def read(tokenizer: Any, path: Path, param: Param, room: int, story: Story) -> Prompts:
    """Every prompt of at most `room` tokens; an event counts the others. Failure when none is left."""
    found = Prompts([], [])
    noun, most, left_out = param.replace("_", " "), _MOST_ROWS[param], 0
    for number, row in rows.read(path, param):
        try:
            tokens = prompt.tokens(tokenizer, Ask("", row["messages"], tools=row.get("tools")))
        except EngineError:
            message = (
                f"row {number}: the chat template of the base model refuses this order of messages or roles"
            )
            raise Failure(f"invalid_{param}", message, param) from None
        if len(tokens) > room:
            left_out += 1
            continue
        found.items.append(row)
        found.tokens.append(tokens)
        if len(found.items) > most:
            message = f"the {noun} has more than {most:,} examples, the most that reinforcement takes"
            raise Failure("invalid_n_examples", message, param)
    if not found.items:
        message = f"no prompt of the {noun} leaves room for an answer; the base takes prompts of up to {room} tokens"
        raise Failure(f"invalid_{param}", message, param)
    if left_out:
        text = f"{left_out} prompt(s) of the {noun} leave no room for an answer and were left out"
        story.say(f"too-long-{param}", text, "warn")
    return found


def refuse_overlap(training: Prompts, validation: Prompts) -> None:
    """Failure when a prompt is in both: a checkpoint would be chosen by what it was trained on."""
    seen = set(map(tuple, training.tokens))
    both = [number for number, tokens in enumerate(validation.tokens, start=1) if tuple(tokens) in seen]
    if both:
        message = f"{len(both)} prompt(s) of the validation file are in the training file, the first in row {both[0]}"
        raise Failure("invalid_validation_file", f"{message}; hold other rows out", "validation_file")
