"""
Our own OpenAPI document: the routes as they are, with the bodies and queries that they read.

Bodies come from the structs that check them, or are written down beside here. Answers are OpenAI's, and
described in its own specification.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from reconciler.selfhosted import context, wire
from reconciler.selfhosted.evaluation import evalruns, evals
from reconciler.selfhosted.notices import webhooks
from reconciler.selfhosted.openapibodies import (
    BYTES,
    FORMS,
    OBJECT,
    STRUCTS,
    TEXT,
    WRITTEN,
    Endpoint,
    Schema,
    body,
)
from reconciler.selfhosted.registry import aliases
from reconciler.selfhosted.serving import batches, chat, completions, responses
from reconciler.selfhosted.storage import files
from reconciler.selfhosted.tuning import jobs, permissions

# How many objects a page may have, and what else a list understands.
PAGED: dict[Endpoint, int] = {
    aliases.list_aliases: 1000,
    batches.list_batches: 100,
    completions.list_completions: 100,
    completions.list_messages: 100,
    evalruns.list_items: 100,
    evalruns.list_runs: 100,
    evals.list_evals: 100,
    files.list_files: 10_000,
    jobs.checkpoints: 100,
    jobs.events: 100,
    jobs.list_jobs: 100,
    permissions.list_permissions: 100,
    responses.list_input_items: 100,
    webhooks.list_endpoints: 100,
}
FILTERS: dict[Endpoint, Mapping[str, Schema]] = {
    completions.list_completions: {"model": TEXT},
    evalruns.list_items: {"status": {"enum": list(evalruns.ITEM_STATUSES)}},
    evalruns.list_runs: {"status": {"enum": list(evalruns.STATUSES)}},
    evals.list_evals: {"order_by": {"enum": list(evals.ORDERED_BY)}},
    files.list_files: {"purpose": TEXT},
    permissions.list_permissions: {"project_id": TEXT},
}
MADE = (evals.create, evalruns.create)  # answered with 201; everything else with 200
STREAMED = (chat.create, responses.create)
RAW = (files.content,)

ERROR = body(
    ["error"],
    error=body(
        ["message", "type", "param", "code"],
        message=TEXT,
        type=TEXT,
        param={"type": ["string", "null"]},
        code={"type": ["string", "null"]},
    ),
)


async def show(request: Request) -> Response:
    """This document."""
    return wire.answer(document(request.app.routes, context.of(request).version))


def document(routes: Sequence[BaseRoute], version: str) -> dict[str, Any]:
    """The routes as an OpenAPI document. Pure."""
    template = "#/components/schemas/{name}"
    made, components = msgspec.json.schema_components(STRUCTS.values(), ref_template=template)
    bodies = {**WRITTEN, **dict(zip(STRUCTS, made, strict=True))}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if isinstance(route, Route):
            path = re.sub(r"\{(\w+)(:\w+)?\}", r"{\1}", route.path)
            for method in (route.methods or set()) - {"HEAD"}:
                paths.setdefault(path, {})[method.lower()] = _operation(route, bodies)
    return {
        "openapi": "3.1.0",
        "info": {"title": "reconciler platform", "version": version},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _operation(route: Route, bodies: Mapping[Endpoint, Schema]) -> dict[str, Any]:
    endpoint = route.endpoint
    module = endpoint.__module__.rpartition(".")[2]
    operation: dict[str, Any] = {
        "tags": [module],
        "parameters": _parameters(route),
        "responses": {
            "201" if endpoint in MADE else "200": {"description": "done", "content": _content(endpoint)},
            "default": {"description": "refused", "content": _json({"$ref": "#/components/schemas/Error"})},
        },
    }
    if endpoint.__doc__:
        operation["summary"] = inspect.cleandoc(endpoint.__doc__)
    if endpoint in bodies:
        operation["requestBody"] = {"required": True, "content": _json(bodies[endpoint])}
    if endpoint in FORMS:
        operation["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": FORMS[endpoint]}},
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found = [_parameter(name, "path", TEXT) for name in route.param_convertors]
    query: dict[str, Schema] = dict(FILTERS.get(route.endpoint, {}))
    if route.endpoint in PAGED:
        query["limit"] = {"type": "integer", "minimum": 1, "maximum": PAGED[route.endpoint]}
        query |= {"after": TEXT, "order": {"enum": ["asc", "desc"]}}
    return found + [_parameter(name, "query", schema) for name, schema in query.items()]


def _parameter(name: str, where: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _content(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint in RAW:
        return {"application/octet-stream": {"schema": BYTES}}
    return {**_json(OBJECT), **({"text/event-stream": {"schema": TEXT}} if endpoint in STREAMED else {})}


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


routes = [Route("/v1/reconciler/openapi.json", show, methods=["GET"])]
