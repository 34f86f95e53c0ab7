"""
Pictures that were uploaded: a chat that shows a file by its id is asked with what the file holds.

Only files of the purpose `vision` are looked into, and only as far as to see what kind of picture they are.
Whether a picture can be looked at is for the engine to say.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.selfhosted import wire
from reconciler.selfhosted.context import Context

PURPOSE = "vision"
LARGEST = 10_000_000  # bytes, as of a picture that is sent along
BEGINNINGS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}

Message = Mapping[str, Any]


async def shown(here: Context, project: str, messages: Sequence[Message]) -> list[Message]:
    """The messages with the pictures themselves in the place of file ids; 400 for a file that is none."""
    return [
        {**message, "content": [await _part(here, project, part) for part in content]}
        if isinstance(content := message.get("content"), list)
        else message
        for message in messages
    ]


async def _part(here: Context, project: str, part: Any) -> Any:
    image = part.get("image_url") if isinstance(part, Mapping) else None
    id = image.get("file_id") if isinstance(image, Mapping) else None
    if id is None or not isinstance(image, Mapping):
        return part
    row = await here.store.read(lambda tx: tx.get(project, "file", str(id)))
    if row is None:
        raise wire.bad(
            f"the file '{str(id)[:100]}' of a picture does not exist", "messages", "file_not_found"
        )
    if row.label != PURPOSE or row.wire()["bytes"] > LARGEST:
        raise wire.bad(
            f"the file '{id}' cannot be shown: upload pictures of at most {LARGEST // 1_000_000} MB "
            f"with the purpose '{PURPOSE}'",
            "messages",
        )
    content = await asyncio.to_thread(here.blobs.path(row.id).read_bytes)
    kind = kind_of(content)
    if kind is None:
        raise wire.bad(f"the file '{id}' is no JPEG, PNG or WEBP", "messages")
    rest = {key: value for key, value in image.items() if key != "file_id"}
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {**part, "image_url": {**rest, "url": uri}}


def kind_of(content: bytes) -> str | None:
    """What a picture's first bytes say that it is. Pure."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((kind for begins, kind in BEGINNINGS.items() if content.startswith(begins)), None)
