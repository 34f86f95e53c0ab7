"""
Embeddings: any served model turns texts into vectors of unit length, the same for the same text.

They are means of hidden states, so they have the size of the model; `dimensions` may only name that size.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.selfhosted import context, wire
from reconciler.selfhosted.engine.values import EngineError, Text
from reconciler.selfhosted.evaluation import runner
from reconciler.selfhosted.serving import chat
from reconciler.selfhosted.serving.sampling import served

MOST_TEXTS = 2048
FORMATS = ("float", "base64")


async def create(request: Request) -> Response:
    here, project = context.of(request), context.project(request)
    body = await wire.body_json(request)
    texts, format = _texts(body.get("input")), body.get("encoding_format") or "float"
    if format not in FORMATS:
        raise wire.bad(f"encoding_format must be one of {', '.join(FORMATS)}", "encoding_format")
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise wire.bad("model is required and must be the name of a model", "model")
    model = await here.store.read(partial(served, project=project, name=name, listed=here.upstreams))
    try:
        made = await chat.while_connected(request, runner.of(request).sampler.embed(model, texts))
    except EngineError as error:
        refused = chat.refusal(error)
        refused.param = "model" if refused.param == "model" else "input"
        raise refused from error
    except ConnectionAbortedError:
        return Response(status_code=chat.CLIENT_GONE)
    size = len(made[0].vector)
    if body.get("dimensions") not in (None, size):
        raise wire.bad(f"{model.id} makes vectors of {size} dimensions and no others", "dimensions")
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(one.vector, format)}
        for index, one in enumerate(made)
    ]
    tokens = sum(one.tokens for one in made)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return wire.answer({"object": "list", "data": data, "model": model.id, "usage": usage})


def _encoded(vector: Sequence[float], format: str) -> Any:
    """A list of numbers, or their little-endian float32 bytes as base64. Pure."""
    if format == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _texts(given: Any) -> list[Text]:
    """The input as a list: of texts, or of texts that are tokens already."""
    if isinstance(given, str) or (_is_list(given) and all(_is_token(each) for each in given)):
        given = [given]
    if not _is_list(given) or len(given) > MOST_TEXTS:
        raise wire.bad(
            f"input is required and must be a text, tokens, or up to {MOST_TEXTS} of them", "input"
        )
    for position, each in enumerate(given):
        if isinstance(each, str) or (_is_list(each) and all(_is_token(token) for token in each)):
            if not each:
                raise wire.bad(f"input[{position}] is empty", "input")
            continue
        raise wire.bad(f"input[{position}] must be a text or a list of tokens", "input")
    return list(given)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


routes = [Route("/v1/embeddings", create, methods=["POST"])]
