"""
Responses: a chat that the server remembers, for thirty days unless `store` is false.

A stored response keeps the whole conversation up to its answer, so the next one needs only its id, and
goes on even when an earlier response is deleted. Instructions are not carried over, as at OpenAI.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.engine.values import Answer, Ask, EngineError
from reconciler.selfhosted.evaluation import runner
from reconciler.selfhosted.serving import background, canary, chat, pictures, responsebody, responseevents
from reconciler.selfhosted.serving.responsebody import Asked
from reconciler.selfhosted.serving.responseevents import Events, Head
from reconciler.selfhosted.serving.sampling import served
from reconciler.selfhosted.storage.store import Record, Row, Tx
from reconciler.selfhosted.wire import WireError

LIFE = 30 * 24 * 3600  # seconds


async def create(request: Request) -> Response:
    here, project = context.of(request), context.project(request)
    body = await wire.body_json(request)
    asked = responsebody.read(body, await _earlier(request, body.get("previous_response_id")))
    if asked.store and (known := await idempotency.replayed(request, idempotency.digest_of(body))):
        return known
    model = await here.store.read(
        partial(
            served, project=project, name=asked.chat.model, listed=here.upstreams, user=canary.user_of(body)
        )
    )
    head = Head(wire.new_id("resp_"), here.seconds(), model.id, asked.settings)
    [ask] = asked.chat.asks(model)
    if asked.background:
        return await _begun(request, body, asked, head, ask)
    ask = replace(ask, messages=await pictures.shown(here, project, ask.messages))
    pieces = runner.of(request).sampler.stream(ask)
    try:
        if not asked.chat.stream:
            answer = await chat.while_connected(request, background.whole(pieces))
            made = responseevents.whole(
                head, answer, responseevents.output_of(answer, wire.new_id("msg_")), here.seconds()
            )
            return await _answered(request, body, asked, answer, made)
        first = await chat.while_connected(request, anext(pieces))
    except EngineError as error:
        raise _refusal(error) from error
    except ConnectionAbortedError:
        return Response(status_code=chat.CLIENT_GONE)
    events = _events(request, asked, head, chat.chained(first, pieces))
    return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})


async def _earlier(request: Request, previous: Any) -> Sequence[Mapping[str, Any]]:
    """The conversation up to the previous response."""
    if previous is None:
        return ()
    project = context.project(request)
    row = await context.of(request).store.read(lambda tx: tx.get(project, background.RESPONSE, str(previous)))
    if row is None:
        sentence = f"Previous response with id '{str(previous)[:100]}' not found."
        raise wire.bad(sentence, "previous_response_id", "previous_response_not_found")
    if row.status == background.PENDING:
        sentence = f"The previous response '{row.id}' is not answered yet; wait for it or cancel it."
        raise wire.bad(sentence, "previous_response_id")
    messages: Sequence[Mapping[str, Any]] = row.hidden()["messages"]
    return messages


async def _begun(request: Request, body: Mapping[str, Any], asked: Asked, head: Head, ask: Ask) -> Response:
    """A response that is kept now and answered in the background."""
    here, project = context.of(request), context.project(request)
    made = head.body(background.PENDING)
    record = _record(project, asked, made, background.private(here, asked, head, ask))

    def keep(tx: Tx) -> wire.Answer:
        tx.insert(record)
        return wire.Answer(wire.encode(made))

    response = await idempotency.once(request, idempotency.digest_of(body), keep)
    background.of(request).begin(project, head.id)
    return response


def _refusal(error: EngineError) -> WireError:
    refused = chat.refusal(error)
    param = "input" if refused.param == "messages" else refused.param
    return WireError(refused.status, refused.message, param=param, code=refused.code, type=refused.type)


async def _answered(
    request: Request, body: Mapping[str, Any], asked: Asked, answer: Answer, made: Mapping[str, Any]
) -> Response:
    if not asked.store:
        return wire.answer(made)
    record = _record(context.project(request), asked, made, _spoken(asked, answer))

    def keep(tx: Tx) -> wire.Answer:
        tx.insert(record)
        return wire.Answer(wire.encode(made))

    return await idempotency.once(request, idempotency.digest_of(body), keep)


async def _events(
    request: Request, asked: Asked, head: Head, pieces: AsyncIterator[str | Answer]
) -> AsyncIterator[bytes]:
    here, events = context.of(request), Events(head)
    try:
        async for event in events.told(pieces):
            yield event
    except EngineError as error:
        yield events.failed("server_error", error.message)
        return
    assert events.answer is not None
    made = responseevents.whole(head, events.answer, events.output, here.seconds())
    if asked.store:
        record = _record(context.project(request), asked, made, _spoken(asked, events.answer))
        await here.store.write(lambda tx: tx.insert(record))
    yield events.ended(made)


def _spoken(asked: Asked, answer: Answer) -> Mapping[str, Any]:
    return {"items": asked.items, "messages": [*asked.messages, responseevents.spoken(answer)]}


def _record(project: str, asked: Asked, made: Mapping[str, Any], private: Mapping[str, Any]) -> Record:
    return Record(
        background.RESPONSE,
        made["id"],
        project,
        made,
        made["created_at"],
        status=made["status"],
        label=made["model"],
        expires_at=made["created_at"] + LIFE,
        private=dict(private),
        marks=made["metadata"],
    )


async def get(request: Request) -> Response:
    if request.query_params.get("stream") == "true":
        raise wire.bad("a response that is complete cannot be streamed again; leave stream out", "stream")
    return wire.answer(await context.of(request).store.read(lambda tx: _existing(tx, request)))


async def cancel(request: Request) -> Response:
    """Stop a response in the background; what is answered already stays."""

    def stop(tx: Tx) -> dict[str, Any]:
        return background.cancel(tx, _existing(tx, request, lock=True))

    made = await context.of(request).store.write(stop)
    background.of(request).stop(made["id"])
    return wire.answer(made)


async def delete(request: Request) -> Response:
    await context.of(request).store.write(lambda tx: tx.delete(_existing(tx, request)))
    background.of(request).stop(request.path_params["id"])
    return wire.answer({"id": request.path_params["id"], "object": "response", "deleted": True})


async def list_input_items(request: Request) -> Response:
    row = await context.of(request).store.read(lambda tx: _existing(tx, request))
    return wire.answer_values(request, row.hidden()["items"], order="desc")


def _existing(tx: Tx, request: Request, *, lock: bool = False) -> Row:
    id = request.path_params["id"]
    row = tx.get(context.project(request), background.RESPONSE, id, lock=lock)
    if row is None:
        raise WireError(404, f"Response with id '{id[:100]}' not found.", param="id")
    return row


routes = [
    Route("/v1/responses", create, methods=["POST"]),
    Route("/v1/responses/{id}", get, methods=["GET"]),
    Route("/v1/responses/{id}", delete, methods=["DELETE"]),
    Route("/v1/responses/{id}/cancel", cancel, methods=["POST"]),
    Route("/v1/responses/{id}/input_items", list_input_items, methods=["GET"]),
]
