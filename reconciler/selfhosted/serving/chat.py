"""
Chat completions: one question to one model, answered whole or as it is written.

Both ways go through the engine's streams, so that many clients share batches. A client that hangs up
stops its generation. An error before the first token is an HTTP status; a later one is an event.
With `store` the whole completion is kept before its end is sent.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.engine.values import Answer, Ask, EngineError
from reconciler.selfhosted.evaluation import runner
from reconciler.selfhosted.serving import canary, chatbody, completions, pictures
from reconciler.selfhosted.serving.chatbody import Chat
from reconciler.selfhosted.serving.sampling import Sampler, served
from reconciler.selfhosted.wire import WireError

T = TypeVar("T")
Keep = Callable[[Mapping[str, Any]], Awaitable[None]]
STATUS = {
    "model_not_found": 404,
    "context_length_exceeded": 400,
    "invalid_request": 400,
    "model_unloadable": 503,
    "engine_unavailable": 503,
    "upstream_busy": 503,
    "upstream_denied": 502,
    "upstream_forbidden": 502,
    "upstream_failed": 502,
}
CLIENT_GONE = 499  # nobody reads it, but the log does


class Piece(NamedTuple):
    """What one choice said next: more text, or its whole answer at the end."""

    choice: int
    said: str | Answer


class Head(NamedTuple):
    """What all chunks of one completion have in common."""

    id: str
    created: int
    model: str
    fingerprint: str

    def body(self, kind: str, choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "service_tier": "default",
            "system_fingerprint": self.fingerprint,
        }


async def create(request: Request) -> Response:
    here, project = context.of(request), context.project(request)
    body = await wire.body_json(request)
    asked = chatbody.read(body)
    if asked.store and (known := await idempotency.replayed(request, idempotency.digest_of(body))):
        return known
    model = await here.store.read(
        partial(served, project=project, name=asked.model, listed=here.upstreams, user=canary.user_of(body))
    )
    fingerprint = "fp_" + hashlib.sha256(f"{model.id}\0{model.path}".encode()).hexdigest()[:10]
    head = Head(wire.new_id("chatcmpl-"), here.seconds(), model.id, fingerprint)
    asked = replace(asked, messages=await pictures.shown(here, project, asked.messages))
    pieces = said(runner.of(request).sampler, asked.asks(model))
    try:
        if not asked.stream:
            answers = await while_connected(request, _whole(pieces, asked.choices))
            made = completion(head, answers)
            return await completions.keep(request, body, made) if asked.store else wire.answer(made)
        first = await while_connected(request, anext(pieces))
    except EngineError as error:
        raise refusal(error) from error
    except ConnectionAbortedError:
        return Response(status_code=CLIENT_GONE)
    keep = partial(completions.keep_streamed, request, body) if asked.store else None
    events = _events(head, asked, chained(first, pieces), keep)
    return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})


def refusal(error: EngineError) -> WireError:
    """The engine's reason as an HTTP status."""
    status = STATUS.get(error.code, 500)
    kind = "invalid_request_error" if status < 500 else "server_error"
    param = {"model_not_found": "model", "context_length_exceeded": "messages"}.get(error.code)
    return WireError(status, error.message, type=kind, code=error.code, param=param)


async def said(sampler: Sampler, asks: Sequence[Ask]) -> AsyncIterator[Piece]:
    """The pieces of all choices as they come. Raises the first EngineError; leaving it stops them all."""
    queue: asyncio.Queue[Piece | EngineError] = asyncio.Queue()

    async def listen(choice: int, ask: Ask) -> None:
        try:
            async for each in sampler.stream(ask):
                queue.put_nowait(Piece(choice, each))
        except EngineError as error:
            queue.put_nowait(error)

    listeners = [asyncio.create_task(listen(choice, ask)) for choice, ask in enumerate(asks)]
    try:
        unfinished = len(asks)
        while unfinished:
            piece = await queue.get()
            if isinstance(piece, EngineError):
                raise piece
            unfinished -= isinstance(piece.said, Answer)
            yield piece
    finally:
        for listener in listeners:
            listener.cancel()


async def _whole(pieces: AsyncIterator[Piece], choices: int) -> list[Answer]:
    answers = {piece.choice: piece.said async for piece in pieces if isinstance(piece.said, Answer)}
    return [answers[choice] for choice in range(choices)]


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Wait for the work, but stop it when the client hangs up. Raises ConnectionAbortedError then."""

    async def hangs_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(hangs_up())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ConnectionAbortedError
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


def completion(head: Head, answers: Sequence[Answer]) -> dict[str, Any]:
    """The answers as a chat completion. Pure."""
    choices = [
        {
            "index": index,
            "message": _message(answer),
            "finish_reason": answer.finish_reason,
            "logprobs": _logprobs(answer),
        }
        for index, answer in enumerate(answers)
    ]
    return {**head.body("chat.completion", choices), "usage": usage(answers)}


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if answer.tool_calls and not answer.text else answer.text,
        "refusal": None,
        "annotations": [],
    }
    return {**message, "tool_calls": answer.tool_calls} if answer.tool_calls else message


def _logprobs(answer: Answer) -> dict[str, Any] | None:
    return None if answer.logprobs is None else {"content": answer.logprobs, "refusal": None}


def usage(answers: Sequence[Answer]) -> dict[str, Any]:
    """Tokens of one completion; the prompt counts once, however many choices it had. Pure."""
    prompt = answers[0].prompt_tokens
    written = sum(answer.completion_tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


async def _events(
    head: Head, asked: Chat, pieces: AsyncIterator[Piece], keep: Keep | None
) -> AsyncIterator[bytes]:
    """Server-sent events: the role, the text, the reason to finish, the usage if asked for, [DONE]."""
    extra: Mapping[str, Any] = {"usage": None} if asked.include_usage else {}

    def chunk(index: int, delta: Mapping[str, Any], finish: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        return _event({**head.body("chat.completion.chunk", [choice]), **extra})

    answers: dict[int, Answer] = {}
    for index in range(asked.choices):
        yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
    try:
        async for piece in pieces:
            if isinstance(piece.said, str):
                yield chunk(piece.choice, {"content": piece.said})
                continue
            answers[piece.choice] = piece.said
            calls = [{"index": at, **call} for at, call in enumerate(piece.said.tool_calls or ())]
            delta = {"tool_calls": calls} if calls else {}
            yield chunk(piece.choice, delta, piece.said.finish_reason, _logprobs(piece.said))
    except EngineError as error:
        refused = refusal(error)
        shown = {"message": refused.message, "type": refused.type, "param": refused.param}
        yield _event({"error": {**shown, "code": refused.code}})
        return
    if keep is not None:
        await keep(completion(head, [answers[choice] for choice in range(asked.choices)]))
    if asked.include_usage:
        yield _event({**head.body("chat.completion.chunk", []), "usage": usage(list(answers.values()))})
    yield b"data: [DONE]\n\n"


async def chained(first: T, rest: AsyncIterator[T]) -> AsyncIterator[T]:
    """The stream again whose first piece was taken to see whether there is any."""
    yield first
    async for piece in rest:
        yield piece


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + wire.encode(value) + b"\n\n"


routes = [Route("/v1/chat/completions", create, methods=["POST"])]
