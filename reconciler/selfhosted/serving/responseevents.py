"""
A response as it grows: the items that the model writes, and the events that tell of them in order.

Every piece of output is added, told in deltas and done, one after the other; `response.created` comes
first and the whole response last, so that a client can rebuild it from either.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.selfhosted import wire
from reconciler.selfhosted.engine.values import Answer


class Head(NamedTuple):
    """What a response says from its beginning."""

    id: str
    created: int
    model: str
    settings: Mapping[str, Any]

    def body(self, status: str, output: Sequence[Mapping[str, Any]] = (), **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": output,
            **self.settings,
            **more,
        }


def whole(head: Head, answer: Answer, output: Sequence[Mapping[str, Any]], now: int) -> dict[str, Any]:
    """The response at its end. Pure."""
    cut = answer.finish_reason == "length"
    details = {"reason": "max_output_tokens"} if cut else None
    return head.body(
        "incomplete" if cut else "completed",
        output,
        completed_at=None if cut else now,
        incomplete_details=details,
        usage=_usage(answer),
    )


def output_of(answer: Answer, message_id: str) -> list[dict[str, Any]]:
    """The items of an answer: its message, if it says anything, then its calls."""
    status = "incomplete" if answer.finish_reason == "length" else "completed"
    items: list[dict[str, Any]] = []
    if answer.text or not answer.tool_calls:
        items.append(_message(message_id, status, [_text(answer.text, answer.logprobs)]))
    return items + [_call(call, status) for call in answer.tool_calls or ()]


def spoken(answer: Answer) -> dict[str, Any]:
    """The answer as the chat message that the next response goes on from."""
    calls = {"tool_calls": answer.tool_calls} if answer.tool_calls else {}
    return {"role": "assistant", "content": answer.text or (None if calls else ""), **calls}


def _message(id: str, status: str, content: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def _text(text: str, logprobs: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


def _call(call: Mapping[str, Any], status: str) -> dict[str, Any]:
    function = call["function"]
    return {
        "id": wire.new_id("fc_"),
        "type": "function_call",
        "status": status,
        "call_id": call["id"],
        "name": function["name"],
        "arguments": function["arguments"],
    }


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answer.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


class Events:
    """The server-sent events of one response, numbered."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._numbers = itertools.count()
        self._message_id = wire.new_id("msg_")
        self.answer: Answer | None = None
        self.output: list[dict[str, Any]] = []

    async def told(self, pieces: AsyncIterator[str | Answer]) -> AsyncIterator[bytes]:
        """Everything but the last event; afterwards `answer` and `output` are there."""
        for name in ("created", "in_progress"):
            yield self._event(f"response.{name}", response=self._head.body("in_progress"))
        begun = False
        async for piece in pieces:
            if isinstance(piece, Answer):
                self.answer = piece
                break
            if not begun:
                begun = True
                for event in self._message_begins():
                    yield event
            yield self._event(
                "response.output_text.delta", item_id=self._message_id, **_FIRST, delta=piece, logprobs=[]
            )
        assert self.answer is not None
        self.output = output_of(self.answer, self._message_id)
        for index, item in enumerate(self.output):
            if item["type"] == "message":
                for event in [*(() if begun else self._message_begins()), *self._message_ends(item)]:
                    yield event
            else:
                for event in self._call_events(index, item):
                    yield event

    def ended(self, response: Mapping[str, Any]) -> bytes:
        """The last event: the whole response, named by how it ended."""
        return self._event(f"response.{response['status']}", response=response)

    def failed(self, code: str, message: str) -> bytes:
        error = {"code": code, "message": message}
        return self.ended(self._head.body("failed", error=error))

    def _message_begins(self) -> list[bytes]:
        return [
            self._event(
                "response.output_item.added",
                output_index=0,
                item=_message(self._message_id, "in_progress", []),
            ),
            self._event(
                "response.content_part.added", item_id=self._message_id, **_FIRST, part=_text("", None)
            ),
        ]

    def _message_ends(self, item: Mapping[str, Any]) -> list[bytes]:
        [part] = item["content"]
        told = {"text": part["text"], "logprobs": part["logprobs"]}
        return [
            self._event("response.output_text.done", item_id=self._message_id, **_FIRST, **told),
            self._event("response.content_part.done", item_id=self._message_id, **_FIRST, part=part),
            self._event("response.output_item.done", output_index=0, item=item),
        ]

    def _call_events(self, index: int, item: Mapping[str, Any]) -> list[bytes]:
        at = {"item_id": item["id"], "output_index": index}
        begun = {**item, "status": "in_progress", "arguments": ""}
        arguments = item["arguments"]
        return [
            self._event("response.output_item.added", output_index=index, item=begun),
            self._event("response.function_call_arguments.delta", **at, delta=arguments),
            self._event(
                "response.function_call_arguments.done", **at, name=item["name"], arguments=arguments
            ),
            self._event("response.output_item.done", output_index=index, item=item),
        ]

    def _event(self, type: str, **fields: Any) -> bytes:
        value = {"type": type, "sequence_number": next(self._numbers), **fields}
        return b"event: " + type.encode() + b"\ndata: " + wire.encode(value) + b"\n\n"


_FIRST = {"output_index": 0, "content_index": 0}
