"""
Webhook endpoints over HTTP: who wants to be told of what, and the secret that proves it was us.

A secret is shown when it is made and never again.
"""

from __future__ import annotations

import base64
import secrets
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.selfhosted import context, idempotency, wire
from reconciler.selfhosted.notices import outbox, postman
from reconciler.selfhosted.storage.store import Record, Row, Tx
from reconciler.selfhosted.wire import Answer, WireError

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Url = Annotated[str, msgspec.Meta(max_length=2000)]
Types = Annotated[list[str], msgspec.Meta(min_length=1, max_length=len(outbox.EVENTS))]


class Wanted(msgspec.Struct):
    name: Name
    url: Url
    event_types: Types


class Changes(msgspec.Struct):
    name: Name | None = None
    url: Url | None = None
    event_types: Types | None = None


class Rotation(msgspec.Struct):
    keep_old_secret_active_for_24_hours: bool = False


class Trial(msgspec.Struct):
    event_type: str


async def create(request: Request) -> Response:
    here, project = context.of(request), context.project(request)
    body = await wire.body_json(request)
    wanted = wire.as_type(body, Wanted)
    _check(request, wanted.url, wanted.event_types)
    secret, now = _new_secret(), here.seconds()
    endpoint = {
        "id": wire.new_id("we_"),
        "object": "webhook_endpoint",
        "created_at": now,
        "updated_at": now,
        "name": wanted.name,
        "url": wanted.url,
        "event_types": wanted.event_types,
        "signing_secret_hint": _hint(secret),
    }

    def keep(tx: Tx) -> Answer:
        tx.insert(
            Record(outbox.ENDPOINT, str(endpoint["id"]), project, endpoint, now, private={"secret": secret})
        )
        return Answer(wire.encode({**endpoint, "signing_secret": secret}))

    return await idempotency.once(request, idempotency.digest_of(body), keep)


async def list_endpoints(request: Request) -> Response:
    asked = wire.listing(request, outbox.ENDPOINT, context.project(request), order="desc")
    return wire.answer_list(await context.of(request).store.read(lambda tx: tx.page(asked)), ends=True)


async def get(request: Request) -> Response:
    return wire.answer(await context.of(request).store.read(lambda tx: _existing(tx, request)))


async def update(request: Request) -> Response:
    changes = wire.as_type(await wire.body_json(request), Changes)
    _check(request, changes.url, changes.event_types)
    wanted = {name: value for name, value in msgspec.to_builtins(changes).items() if value is not None}

    def change(tx: Tx) -> dict[str, Any]:
        row = _existing(tx, request, lock=True)
        before = row.wire()
        if before | wanted == before:
            return before
        changed: dict[str, Any] = {**before, **wanted, "updated_at": int(tx.now())}
        tx.update(row, body=changed)
        return changed

    return wire.answer(await context.of(request).store.write(change))


async def delete(request: Request) -> Response:
    await context.of(request).store.write(lambda tx: outbox.drop(tx, _existing(tx, request, lock=True)))
    return wire.answer(
        {"id": request.path_params["id"], "object": "webhook_endpoint.deleted", "deleted": True}
    )


async def rotate_secret(request: Request) -> Response:
    """Make a new secret; the old one ends at once, or signs beside it for a day."""
    asked = wire.as_type(wire.parsed(await wire.body_bytes(request) or b"{}"), Rotation)
    secret = _new_secret()

    def rotate(tx: Tx) -> dict[str, Any]:
        row, now = _existing(tx, request, lock=True), int(tx.now())
        until = now + postman.OVERLAP if asked.keep_old_secret_active_for_24_hours else 0
        kept = {"secret": secret, "old_secret": row.hidden()["secret"], "old_until": until}
        changed = row.wire() | {"signing_secret_hint": _hint(secret), "updated_at": now}
        tx.update(row, body=changed, private=kept if until else {"secret": secret})
        return {**changed, "signing_secret": secret}

    return wire.answer(await context.of(request).store.write(rotate))


async def test(request: Request) -> Response:
    """Send a sample event now, and say what the endpoint answered."""
    here = context.of(request)
    asked = wire.as_type(await wire.body_json(request), Trial)
    _check(request, None, [asked.event_type])
    row = await here.store.read(lambda tx: _existing(tx, request))
    event = outbox.sample(asked.event_type, here.seconds())
    try:
        status = await postman.send(here, row.wire()["url"], row.hidden(), event)
    except postman.Unreachable as why:
        sentence = f"the endpoint could not be reached: {why}"
        raise WireError(400, sentence, param="url", code="webhook_endpoint_unreachable") from why
    return wire.answer(
        {
            "object": "webhook_endpoint.test",
            "webhook_endpoint_id": row.id,
            "event_type": asked.event_type,
            "status_code": status,
            "success": True,
        }
    )


async def event_types(request: Request) -> Response:
    return wire.answer({"object": "list", "data": list(outbox.EVENTS)})


def _check(request: Request, url: str | None, types: list[str] | None) -> None:
    for type in types or ():
        if type not in outbox.EVENTS:
            known = ", ".join(outbox.EVENTS)
            raise wire.bad(f"{type[:80]!r} never happens here; the events are {known}", "event_types")
    if url is not None:
        problem = postman.url_problem(url, context.of(request).private_webhooks)
        if problem is not None:
            raise wire.bad(problem, "url", "invalid_url")


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _hint(secret: str) -> str:
    return f"whsec_...{secret[-4:]}"


def _existing(tx: Tx, request: Request, *, lock: bool = False) -> Row:
    id = request.path_params["id"]
    row = tx.get(context.project(request), outbox.ENDPOINT, id, lock=lock)
    if row is None:
        raise wire.missing("WebhookEndpoint", id)
    return row


ENDPOINTS = "/v1/webhook_endpoints"
routes = [
    Route(ENDPOINTS, list_endpoints, methods=["GET"]),
    Route(ENDPOINTS, create, methods=["POST"]),
    Route(ENDPOINTS + "/{id}", get, methods=["GET"]),
    Route(ENDPOINTS + "/{id}", update, methods=["POST"]),
    Route(ENDPOINTS + "/{id}", delete, methods=["DELETE"]),
    Route(ENDPOINTS + "/{id}/rotate_secret", rotate_secret, methods=["POST"]),
    Route(ENDPOINTS + "/{id}/test", test, methods=["POST"]),
    Route("/v1/webhook_event_types", event_types, methods=["GET"]),
]
