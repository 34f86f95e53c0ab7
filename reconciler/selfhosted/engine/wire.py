"""
The frames between client and engine: four bytes of length, then one msgpack message.

Many calls share a connection and are told apart by the client's call number. Nobody else speaks this
protocol, and both ends always come from the same installation, so it has no version.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TypeVar

import msgspec

from reconciler.selfhosted.engine.values import Answer, Ask, Embedding, EngineError, Text

LONGEST_FRAME = 1 << 30  # a length beyond this is not ours
_LENGTH = struct.Struct(">I")
HEADER = _LENGTH.size  # bytes before the message


class Load(msgspec.Struct, tag="load", frozen=True):
    call: int
    model: str


class Generate(msgspec.Struct, tag="generate", frozen=True):
    call: int
    asks: list[Ask]


class Stream(msgspec.Struct, tag="stream", frozen=True):
    call: int
    ask: Ask


class Embed(msgspec.Struct, tag="embed", frozen=True):
    call: int
    model: str
    texts: list[Text]


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    call: int


class Failure(msgspec.Struct, frozen=True):
    code: str
    message: str

    def error(self) -> EngineError:
        return EngineError(self.code, self.message)


class Outcome(msgspec.Struct, frozen=True):
    """An answer or a failure; exactly one is set."""

    answer: Answer | None = None
    failure: Failure | None = None


class Delta(msgspec.Struct, tag="delta", frozen=True):
    call: int
    text: str


class Done(msgspec.Struct, tag="done", frozen=True):
    """The last message of a call: nothing for `load`, one outcome per ask, one embedding per text."""

    call: int
    outcomes: list[Outcome] = []
    embeddings: list[Embedding] = []


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """The last message of a call that failed as a whole."""

    call: int
    failure: Failure


Request = Load | Generate | Stream | Embed | Cancel
Reply = Delta | Done | Failed

requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_encoder = msgspec.msgpack.Encoder()
_M = TypeVar("_M")


def frame(message: Request | Reply) -> bytes:
    """The bytes of one message on the wire. Pure."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[_M]) -> _M | None:
    """The next message, None when the other end is gone; `msgspec.DecodeError` for what is none."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > LONGEST_FRAME:
            raise msgspec.DecodeError(f"a frame of {length} bytes")
        return decoder.decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
