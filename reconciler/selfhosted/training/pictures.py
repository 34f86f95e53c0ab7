"""
Pictures in chat messages: where they are, and what may be looked at.

A picture is a data URI of a JPEG, PNG or WEBP. Nothing is fetched: neither the process that trains nor the
one that serves has a network. Free of torch.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 10  # in one row or request
LARGEST = 10_000_000  # bytes
_MOST_PIXELS = 50_000_000  # a small file can stand for a picture that fills the memory
_URI = re.compile(r"data:image/(?:jpeg|jpg|png|webp);base64,")
_FORMATS = ("JPEG", "PNG", "WEBP")


class BadPicture(Exception):
    """Why a picture cannot be looked at, as the end of a sentence."""


def urls(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The URL of every picture, in the order in which they are said. Pure."""
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, Mapping) and part.get("type") == "image_url":
                image = part.get("image_url")
                yield str(image.get("url", "") if isinstance(image, Mapping) else image)


def read(url: str) -> Image:
    """The picture, in RGB. Raises BadPicture."""
    from PIL import Image, UnidentifiedImageError

    if url.startswith(("http://", "https://")):
        raise BadPicture("is behind a URL, and nothing is fetched here; write it as a data URI")
    head = _URI.match(url)
    if head is None:
        raise BadPicture("is no base64 data URI of a JPEG, PNG or WEBP")
    if len(url) > LARGEST * 4 // 3 + 40:
        raise BadPicture(f"has more than {LARGEST // 1_000_000} MB")
    try:
        content = base64.b64decode(url[head.end() :], validate=True)
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise BadPicture(f"has {image.width} x {image.height} pixels; make it smaller")
            if image.mode not in ("RGB", "RGBA", "P", "L"):
                raise BadPicture(f"has the colour mode {image.mode}; the modes are RGB and RGBA")
            whole: Image.Image = image.convert("RGB")
            return whole
    except binascii.Error:
        raise BadPicture("is not base64") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise BadPicture("is broken, or not of the type it says") from None
