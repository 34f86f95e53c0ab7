"""
What the platform has logged, as the rows of an eval run: the conversation in `item.input`, its answer in `sample`.

A run keeps the rows that matched when it was created, so it measures the same thing after a restart, and
when a completion is deleted meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.selfhosted import grading
from reconciler.selfhosted.serving import background, completions
from reconciler.selfhosted.serving.sampling import Problem
from reconciler.selfhosted.storage.store import Row, Tx

SOURCES = ("stored_completions", "responses")
CONFIGS = ("logs", "stored_completions")
ANSWERED = ("completed", "incomplete")  # responses that say something
INPUT: Mapping[str, Any] = {"type": "item_reference", "item_reference": "item.input"}
ITEM_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"input": {"type": "array", "items": {"type": "object"}}},
    "required": ["input"],
}


def source_problems(source: Mapping[str, Any], where: str) -> list[Problem]:
    """Everything wrong with the filters of a source. Pure."""
    kinds: dict[str, tuple[type | tuple[type, ...], str]] = {
        "metadata": (dict, "an object of text values"),
        "model": (str, "the name of a model"),
        "created_after": (int, "a Unix time"),
        "created_before": (int, "a Unix time"),
        "limit": (int, "a number of rows"),
    }
    if source["type"] == "responses":
        kinds |= {
            "instructions_search": (str, "a text"),
            "reasoning_effort": (str, "an effort"),
            "temperature": ((int, float), "a number"),
            "top_p": ((int, float), "a number"),
            "users": (list, "a list of users"),
            "tools": (list, "a list of names"),
        }
    return [
        Problem(f"{where}.{name}", f"must be {words}")
        for name, (kind, words) in kinds.items()
        if source.get(name) is not None and (not isinstance(source[name], kind) or source[name] is True)
    ]


def rows(
    tx: Tx, project: str, source: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The rows that the source's filters, and those of its eval, let through; oldest first."""
    type = completions.COMPLETION if source["type"] == "stored_completions" else background.RESPONSE
    wanted = {**(config.get("metadata") or {}), **(source.get("metadata") or {})}
    left = source.get("limit")
    for logged in tx.all(type, project=project):
        if left == 0:
            return
        if _matches(logged, source, wanted):
            left = None if left is None else left - 1
            yield _completion(logged) if type == completions.COMPLETION else _response(logged)


def _matches(logged: Row, source: Mapping[str, Any], metadata: Mapping[str, str]) -> bool:
    def asked(name: str) -> Any:
        return source.get(name)

    if asked("model") is not None and asked("model") != logged.label:
        return False
    if asked("created_after") is not None and logged.created_at <= asked("created_after"):
        return False
    if asked("created_before") is not None and logged.created_at >= asked("created_before"):
        return False
    body = logged.wire()
    if not metadata.items() <= body["metadata"].items():
        return False
    if source["type"] != "responses":
        return True
    if logged.status not in ANSWERED:
        return False
    tools = {tool.get("name") or tool.get("type") for tool in body["tools"]}
    return (
        (asked("instructions_search") or "") in (body["instructions"] or "")
        and asked("reasoning_effort") in (None, body["reasoning"]["effort"])
        and asked("temperature") in (None, body["temperature"])
        and asked("top_p") in (None, body["top_p"])
        and (not asked("users") or body.get("user") in asked("users"))
        and (not asked("tools") or bool(tools & set(asked("tools"))))
    )


def _completion(logged: Row) -> dict[str, Any]:
    body = logged.wire()
    message = body["choices"][0]["message"]
    return _row(logged.hidden()["messages"], message, body)


def _response(logged: Row) -> dict[str, Any]:
    body = logged.wire()
    *messages, answer = logged.hidden()["messages"]
    if body["instructions"]:
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    return _row(messages, answer, body)


def _row(messages: list[Any], answer: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    sample = grading.sample_of(answer.get("content") or "", answer.get("tool_calls"))
    item = {"input": messages, "id": body["id"], "model": body["model"], "metadata": body["metadata"]}
    return {"item": item, "sample": {**sample, "model": body["model"]}}
