"""
What a good row of each method is. Every function raises `rows.Problem` with a sentence that names places
and never quotes the row. Free of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from reconciler.selfhosted.training import job, rows
from reconciler.selfhosted.training.failures import Failure
from reconciler.selfhosted.training.rows import Problem

# OpenAI's guides and everybody else use the first name of each pair, its specification the second.
PREFERRED = ("preferred_output", "preferred_completion")
NOT_PREFERRED = ("non_preferred_output", "non_preferred_completion")


def check_job(asked: job.Job) -> None:
    """Failure when the job lacks a file that its method cannot do without."""
    if isinstance(asked.method, job.ReinforcementMethod) and asked.validation_file is None:
        message = "a reinforcement job needs a validation_file: its checkpoints are chosen by their rewards"
        raise Failure("missing_validation_file", message, "validation_file")


def check_for(method: job.Method, *, sees: bool) -> Callable[[Any], None]:
    """The check of the rows that this method learns from, on a base that may see pictures."""
    match method:
        case job.PreferenceMethod():
            return check_preference
        case job.ReinforcementMethod():
            return check_reinforcement
    return partial(rows.check_chat, sees=sees)


def check_preference(row: Any) -> None:
    """A prompt and two answers to it, the better one named."""
    if not isinstance(row, dict):
        raise Problem("is not a JSON object")
    if "messages" in row:
        raise Problem("is a chat row; the method dpo needs input, preferred_output and non_preferred_output")
    prompt = row.get("input")
    if not isinstance(prompt, dict):
        raise Problem("has no input with messages")
    rows.check_messages(prompt.get("messages"))
    rows.check_tools(prompt)
    for names in (PREFERRED, NOT_PREFERRED):
        _check_output(row, names)
    if one_of(row, PREFERRED) == one_of(row, NOT_PREFERRED):
        raise Problem("prefers an answer to itself; there is nothing to learn from it")


def check_reinforcement(row: Any) -> None:
    """A prompt that ends with the user; whatever else the row holds is for its grader."""
    if not isinstance(row, dict):
        raise Problem("is not a JSON object")
    if "messages" not in row:
        raise Problem("has no messages; the method reinforcement needs a prompt that ends with the user")
    rows.check_messages(row["messages"])
    rows.check_tools(row)
    if row["messages"][-1]["role"] != "user":
        raise Problem("does not end with a message of the user; the answer is for the model to write")


def one_of(row: Any, names: tuple[str, str]) -> Any:
    """The value under either name. Pure."""
    return row.get(names[0], row.get(names[1]))


def _check_output(row: Any, names: tuple[str, str]) -> None:
    output = one_of(row, names)
    if not isinstance(output, list) or len(output) != 1:
        raise Problem(f"its {names[0]} is not a list of exactly one message")
    try:
        rows.check_messages(output)
    except Problem as problem:
        raise Problem(f"in its {names[0]} {problem}") from None
    if output[0]["role"] != "assistant":
        raise Problem(f"its {names[0]} is not a message of the assistant")
