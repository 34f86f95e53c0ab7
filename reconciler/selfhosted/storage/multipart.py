"""
Form uploads, streamed: the file part goes to disk as it arrives, the other fields are small text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from reconciler.selfhosted import wire
from reconciler.selfhosted.storage.blobs import Incoming
from reconciler.selfhosted.wire import WireError

FIELD_LIMIT = 64 * 1024  # bytes of all text fields together
FIELDS = 64  # parts in one form


@dataclass
class Form:
    """What came beside the file, and under which name the file came; None when there was no file part."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None


class _Parts:
    """Collects what the parser calls back: text into `form`, file bytes into `ready`, to be written next."""

    def __init__(self, file_part: str) -> None:
        self.form = Form()
        self.ready: list[bytes] = []
        self.complete = False
        self._file_part = file_part
        self._header, self._value = bytearray(), bytearray()
        self._disposition: bytes = b""
        self._name: str | None = None
        self._text = bytearray()
        self._used, self._parts = 0, 0

    def on_part_begin(self) -> None:
        self._disposition, self._name = b"", None
        self._text.clear()
        self._parts += 1
        if self._parts > FIELDS:
            raise wire.bad(f"the form has more than {FIELDS} parts")

    def on_header_begin(self) -> None:
        self._header.clear()
        self._value.clear()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == self._file_part:
            if self.form.filename is not None:
                raise wire.bad("the form has its bytes twice; send one file per request", self._file_part)
            self.form.filename = options.get(b"filename", b"").decode("utf-8", "replace") or "upload"
        else:
            self._name = name

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is None:
            self.ready.append(data[start:end])
            return
        self._used += end - start
        if self._used > FIELD_LIMIT:
            raise WireError(413, f"the form's text fields are larger than {FIELD_LIMIT} bytes")
        self._text += data[start:end]

    def on_part_end(self) -> None:
        if self._name is not None:
            self.form.fields[self._name] = self._text.decode("utf-8", "replace")

    def on_end(self) -> None:
        self.complete = True


async def receive(request: Request, incoming: Incoming, largest: int, file_part: str = "file") -> Form:
    """Read the form, writing its file part to `incoming`; 400 if it is no form, 413 beyond `largest`."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise wire.bad(f"send multipart/form-data with the bytes in a part named {file_part!r}", file_part)
    parts = _Parts(file_part)
    callbacks = {name: getattr(parts, name) for name in dir(parts) if name.startswith("on_")}
    try:
        parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        async for chunk in request.stream():
            parser.write(chunk)
            for piece in parts.ready:
                await incoming.write(piece)
            parts.ready.clear()
            if incoming.bytes > largest:
                raise WireError(413, f"the {file_part} is larger than {largest} bytes", param=file_part)
        parser.finalize()
    except FormParserError as error:
        raise wire.bad(f"the form could not be read: {str(error)[:200]}") from error
    if not parts.complete:
        raise wire.bad("the form ended before its last boundary; the upload was cut off")
    return parts.form
