"""
One request and its reply, or what is certain when there is none.

`Unsent`: not a byte of the request left, so nothing happened. `Lost`: it left and no whole reply came
back, so it may have. Nothing here retries, and nothing here knows what was asked.
"""

import email.utils
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any, BinaryIO, NamedTuple

import httpx
import msgspec

from reconciler.errors import Busy, Rejected
from reconciler.world import Upload

LONGEST_WAIT = 600.0  # seconds of a server's Retry-After that we believe
LARGEST_REPLY = 256 << 20  # bytes; a page of 10,000 files is 3 MB
SLOWEST_UPLOAD = 50_000  # bytes per second; what an upload may take longer than other calls


class Unsent(Exception):
    """No byte of the request left: nothing happened."""


class Lost(Exception):
    """The request may have arrived, but no whole reply came back."""


class Deadlines(NamedTuple):
    """Seconds."""

    connect: float = 10.0
    quiet: float = 60.0  # without one byte sent or received
    total: float = 120.0  # a call with all its retries; an upload gets time for its size on top


class Reply(NamedTuple):
    """An HTTP response that arrived whole."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> dict[str, Any] | None:
        """The body's JSON object; None when it is none."""
        try:
            found = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def error(self) -> tuple[str | None, str] | None:
        """Code and message of OpenAI's error envelope; None when the body has no such envelope."""
        error = (self.json() or {}).get("error")
        if not isinstance(error, dict):
            return None
        code = error.get("code") or error.get("type")
        return (str(code) if code else None), str(error.get("message") or "")

    def retry_after(self, wall: float) -> float | None:
        """Seconds to wait, as the server wishes (number or date), at most `LONGEST_WAIT`. Pure."""
        for header, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
            if value := self.headers.get(header):
                seconds = _seconds(value, unit, wall)
                if seconds is not None and math.isfinite(seconds):
                    return min(max(seconds, 0.0), LONGEST_WAIT)
        return None


class Line:
    """
    A connection to one server. The key goes into one request header and nowhere else.

    The environment's proxies are honoured unless a `transport` is given.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        deadlines: Deadlines = Deadlines(),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deadlines = deadlines
        self._now = now
        self._client = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {key}"} if key else None,
            transport=transport,
            trust_env=transport is None,
            # shorter than any server's own, so that a create does not meet a connection just being closed
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=2.0),
        )

    def close(self) -> None:
        self._client.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        until: float,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """
        One request, sent once, its reply whole. Raises `Unsent`, `Lost`, and for a file that cannot be
        read or changes while it is sent `Rejected` and `Busy`: its request then never became whole.
        """
        upload = _upload(body)
        if upload is None:
            content = None if body is None else msgspec.json.encode(body)
            given = {"Content-Type": "application/json"} if body is not None else {}
            return self._exchange(method, path, until, params, {**given, **(headers or {})}, content=content)
        field, file = upload
        with _opened(file) as handle:
            source = _Source(handle, file, until, self._now)
            part = {field: (file.filename, source, "application/octet-stream")}
            form = _form({name: value for name, value in (body or {}).items() if name != field})
            return self._exchange(method, path, source.until, params, headers or {}, data=form, files=part)

    def _exchange(
        self,
        method: str,
        path: str,
        until: float,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        **content: Any,
    ) -> Reply:
        left = until - self._now()
        if left <= 0:
            raise Unsent("no time was left")
        quiet = min(self._deadlines.quiet, left)
        timeout = httpx.Timeout(quiet, connect=min(self._deadlines.connect, left))
        request = {"params": params, "headers": headers, "timeout": timeout, **content}
        try:
            with self._client.stream(method, path, **request) as response:
                return Reply(response.status_code, response.headers, self._whole(response, until))
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.ProxyError,
            httpx.UnsupportedProtocol,
        ) as error:
            raise Unsent(_reason(error)) from error
        except httpx.HTTPError as error:
            raise Lost(_reason(error)) from error

    def _whole(self, response: httpx.Response, until: float) -> bytes:
        chunks, size = [], 0
        for chunk in response.iter_bytes():
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_REPLY:
                raise Lost(f"the reply is larger than {LARGEST_REPLY >> 20} MiB")
            if self._now() > until:
                raise Lost("the reply took too long")
        return b"".join(chunks)


class _Source:
    """A file while it is sent: counts, and breaks the request off if the bytes change underneath it."""

    def __init__(self, handle: BinaryIO, upload: Upload, until: float, now: Callable[[], float]) -> None:
        self._handle, self._upload, self._now = handle, upload, now
        self._before = os.fstat(handle.fileno())
        self._sent = 0
        self.until = until + self._before.st_size / SLOWEST_UPLOAD

    def fileno(self) -> int:
        return self._handle.fileno()

    def read(self, size: int = -1) -> bytes:
        chunk = self._handle.read(size)
        total, after = self._before.st_size, os.fstat(self.fileno())
        if (after.st_size, after.st_mtime_ns) != (total, self._before.st_mtime_ns):
            raise Busy(f"{self._upload.path} changed while it was sent; nothing was stored, run again")
        if self._now() > self.until:
            raise Busy(
                f"{self._upload.path} was only sent to {self._sent} of {total} bytes in time; run again"
            )
        self._sent += len(chunk)
        if chunk and self._upload.progress:
            self._upload.progress(self._sent, total)
        return chunk


def sanitised(text: str, secret: str | None = None, longest: int = 300) -> str:
    """One printable line without keys, for error messages that quote a server. Pure."""
    if secret:
        text = text.replace(secret, "…")
    text = re.sub(r"\b(sk-|Bearer\s+)[\w*.\-]{4,}", r"\1…", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def place_of(base_url: str, name: str) -> str:
    """Host and port of an address, without credentials. Pure."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise Rejected(f"base_url of platform {name} is no address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise Rejected(f"base_url of platform {name} must start with http:// or https:// and name a host")
    return url.host if url.port is None else f"{url.host}:{url.port}"


def usable(key: str | None, key_env: str) -> str | None:
    key = (key or "").strip()
    if not all(33 <= ord(character) <= 126 for character in key):
        raise Rejected(f"the key in {key_env} has characters that no key has; set it again")
    return key or None


def _seconds(value: str, unit: float, wall: float) -> float | None:
    try:
        return float(value) * unit
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall


def _upload(body: Mapping[str, Any] | None) -> tuple[str, Upload] | None:
    found = [(name, value) for name, value in (body or {}).items() if isinstance(value, Upload)]
    return found[0] if found else None


def _opened(upload: Upload) -> BinaryIO:
    try:
        return open(upload.path, "rb")
    except OSError as error:
        raise Rejected(f"{upload.path} cannot be read: {error.strerror}; nothing was sent") from error


def _form(body: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a form; one level of nesting as `outer[inner]`, the way the SDK writes it."""
    fields: dict[str, str] = {}
    for name, value in body.items():
        if isinstance(value, Mapping):
            fields |= {f"{name}[{inner}]": str(v) for inner, v in value.items()}
        else:
            fields[name] = str(value)
    return fields


def _reason(error: Exception) -> str:
    said = sanitised(str(error), longest=160)
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return said if said and not isinstance(error, httpx.TimeoutException) else kind
