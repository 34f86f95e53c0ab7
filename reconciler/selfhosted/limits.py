"""
How long and how large a request may be before the app sees it: uvicorn's protocol with an end to its patience.

A head is complete within `head_seconds` and `HEAD_LIMIT` bytes; a body never pauses for longer than
`lull_seconds`, however long it is as a whole. Bodies' sizes are limited where they are read.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from reconciler.selfhosted import wire

HEAD_LIMIT = 64 * 1024  # bytes of request line and headers


class Protocol(HttpToolsProtocol):
    """One connection whose client has to come to the point."""

    head_seconds = 30.0
    lull_seconds = 60.0

    _in_head = True
    _head_bytes = 0
    _too_large = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        elif self._timer is not None:
            self._wait(self.lull_seconds)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_LIMIT and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._wait(self.head_seconds)

    def on_headers_complete(self) -> None:
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > HEAD_LIMIT:
            self._too_large = True
            raise ValueError("the head is too large")  # the parser stops, and we are asked for a 400
        self._in_head, self._head_bytes = False, 0
        self._wait(self.lull_seconds)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._wait(None)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not yet a request, in the words of every other refusal, and hang up."""
        if self._too_large:
            self._refuse(b"431 Request Header Fields Too Large", f"the headers exceed {HEAD_LIMIT} bytes")
        else:
            self._refuse(b"400 Bad Request", "this is no HTTP request")

    def _wait(self, seconds: float | None) -> None:
        """Run out of patience after so long; None: wait for as long as it takes."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._impatient)

    def _impatient(self) -> None:
        if self.flow.read_paused or (self._in_head and self.cycle and not self.cycle.response_complete):
            self._wait(self.lull_seconds)  # it is our turn, not the client's
        elif self._in_head:
            self._refuse(b"408 Request Timeout", f"the headers took longer than {self.head_seconds:g} s")
        else:
            self.transport.close()

    def _refuse(self, status: bytes, sentence: str) -> None:
        body = bytes(wire.WireError(int(status[:3]), sentence).response().body)
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)
        self.transport.close()
