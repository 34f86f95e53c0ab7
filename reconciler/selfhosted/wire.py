"""
OpenAI's manner of speaking: errors with all four keys, list envelopes, cursors, metadata limits.

Everything that a client sends is checked here or with a msgspec Struct through `as_type`; unknown fields
pass, as they do at OpenAI. What a client sees leaves through `answer`, `answer_list` or a WireError.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from reconciler.selfhosted.storage.store import Listing, Page, Row, UnknownCursor

S = TypeVar("S")
Order = Literal["asc", "desc"]
JSON_LIMIT = 64 * 1024 * 1024  # bytes of a JSON body; rows travel as files
ALPHABET = string.ascii_letters + string.digits

_encode = msgspec.json.Encoder().encode


class WireError(Exception):
    """A refusal as the client will read it: HTTP status and the four keys of the envelope."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.type = status, message, param, code, type
        self.headers = headers

    def response(self) -> Response:
        shown = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return Response(_encode({"error": shown}), self.status, self.headers, media_type="application/json")


class Answer(NamedTuple):
    """What a creating endpoint answers: kept beside an Idempotency-Key and sent again with it."""

    body: bytes
    status: int = 200

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        return Response(self.body, self.status, headers, media_type="application/json")


def bad(message: str, param: str | None = None, code: str | None = None) -> WireError:
    """A 400."""
    return WireError(400, message, param=param, code=code)


def missing(what: str, id: str) -> WireError:
    """A 404 in OpenAI's words; `what` is the object's name, such as File."""
    return WireError(404, f"No such {what} object: {id}", param="id")


def new_id(prefix: str) -> str:
    """A fresh opaque id."""
    return prefix + "".join(secrets.choice(ALPHABET) for _ in range(24))


def encode(value: Any) -> bytes:
    return _encode(value)


def answer(value: Mapping[str, Any] | Row | bytes, status: int = 200) -> Response:
    """One object as a response; a Row's JSON is sent as it is stored."""
    content = value.body if isinstance(value, Row) else value if isinstance(value, bytes) else _encode(value)
    return Response(content, status, media_type="application/json")


def answer_list(page: Page, *, ends: bool) -> Response:
    """A list envelope; `ends` adds first_id and last_id, which jobs and events do not carry."""
    parts = [b'{"object":"list","data":[', b",".join([row.body for row in page.rows]), b"]"]
    if ends:
        first, last = (page.rows[0].id, page.rows[-1].id) if page.rows else (None, None)
        parts += [b',"first_id":', _encode(first), b',"last_id":', _encode(last)]
    parts.append(b',"has_more":true}' if page.has_more else b',"has_more":false}')
    return Response(b"".join(parts), media_type="application/json")


def listing(
    request: Request,
    type: str,
    project: str,
    *,
    limit: int = 20,
    most: int = 100,
    order: Order,
    parent: str = "",
    status: str | None = None,
    label: str | None = None,
) -> Listing:
    """The page that the query asks for: after, limit, order (asc, desc), metadata[k]=v or metadata=null."""
    query = request.query_params
    asked = query.get("order", order)
    wanted = {"ascending": "asc", "descending": "desc"}.get(asked, asked)  # permissions spell them out
    if wanted not in ("asc", "desc"):
        raise bad(f"order is {wanted!r}; use 'asc' or 'desc'", "order")
    filters = {
        key.removeprefix("metadata[").removesuffix("]"): value
        for key, value in query.multi_items()
        if key.startswith("metadata[") and key.endswith("]")
    }
    return Listing(
        type,
        project,
        _limit(query.get("limit"), limit, most),
        after=query.get("after"),
        newest_first=wanted == "desc",
        parent=parent,
        status=status,
        label=label,
        marks=filters,
        unmarked=query.get("metadata") == "null",
    )


def answer_values(request: Request, values: Sequence[Mapping[str, Any]], *, order: Order) -> Response:
    """The page that the query asks for (after, limit, order) of a list that is kept whole."""
    asked = listing(request, "", "", order=order)
    in_order = list(reversed(values)) if asked.newest_first else list(values)
    ids = [value["id"] for value in in_order]
    if asked.after is not None and asked.after not in ids:
        raise UnknownCursor(asked.after)
    start = 0 if asked.after is None else ids.index(asked.after) + 1
    shown = in_order[start : start + asked.limit]
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    more = start + asked.limit < len(in_order)
    return answer({"object": "list", "data": shown, "first_id": first, "last_id": last, "has_more": more})


def _limit(text: str | None, default: int, most: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= most:
        raise bad(f"limit is {text[:20]!r}; use a number from 1 to {most}", "limit")
    return int(text)


async def body_bytes(request: Request, limit: int = JSON_LIMIT) -> bytes:
    """The whole body; 413 beyond `limit` bytes."""
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > limit:
            raise WireError(413, f"the body is larger than {limit} bytes; upload rows as a file instead")
    return bytes(received)


async def body_json(request: Request, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """The body as a JSON object; 400 when it is something else."""
    return parsed(await body_bytes(request, limit))


def parsed(content: bytes) -> dict[str, Any]:
    """Bytes as a JSON object; 400 when they are something else."""
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"We could not parse the JSON body of your request: {error}") from error
    if not isinstance(value, dict):
        raise bad("the body must be a JSON object")
    return value


def as_type(value: Any, wanted: type[S]) -> S:
    """A decoded JSON value as a msgspec Struct; 400 naming the field when it does not fit."""
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from error


def _misfit(text: str) -> WireError:
    message, _, path = text.partition(" - at `$")
    path = path.strip(".`")
    if path:
        return bad(f"Invalid value for {path!r}: {_lower(message)}", path, "invalid_value")
    if message.startswith("Object missing required field"):
        name = message.split("`")[1]
        return bad(f"Missing required parameter: {name!r}.", name, "missing_required_parameter")
    return bad(f"Invalid body: {_lower(message)}")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def checked_metadata(value: Any) -> dict[str, str]:
    """Metadata within OpenAI's limits: 16 pairs of text, keys to 64 and values to 512 characters."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad("metadata must be an object of text values", "metadata")
    if len(value) > 16:
        raise bad(f"metadata has {len(value)} pairs; at most 16 are allowed", "metadata")
    for key, text in value.items():
        if not isinstance(text, str):
            raise bad(
                f"metadata value of {key[:64]!r} is not text; send it as a string", f"metadata.{key[:64]}"
            )
        if len(key) > 64:
            raise bad(f"metadata key of {len(key)} characters; at most 64 are allowed", "metadata")
        if len(text) > 512:
            raise bad(f"metadata value of {key!r} has {len(text)} characters; at most 512", f"metadata.{key}")
    return value
