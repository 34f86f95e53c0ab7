"""
What an upstream's reply means: an answer, a refusal of this one ask, or come again later. Pure.

No message holds a key: what an upstream says about a refused key is not repeated, for some repeat the key,
and in whatever else it says the key is blotted out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import msgspec

from reconciler.selfhosted.engine.values import EngineError
from reconciler.selfhosted.upstream.upstreams import Upstream

T = TypeVar("T")
DENIED = "upstream_denied"  # 401: the key was refused; what fails one ask so fails all
FORBIDDEN = "upstream_forbidden"  # 403: the key may not do this, or nobody may ask that
REFUSED = (DENIED, FORBIDDEN)
BUSY = "upstream_busy"
FAILED = "upstream_failed"
LATER = (408, 409, 425, 429)
MOST_SHOWN = 300  # characters of what an upstream says


class Again(Exception):
    """Nothing came of it; ask again, after so many seconds if it named some. `error` if this was the last try."""

    def __init__(self, error: EngineError, after: float = 0) -> None:
        super().__init__(error.message)
        self.error, self.after = error, after


def failed(upstream: Upstream, reason: str) -> EngineError:
    return EngineError(FAILED, f"{upstream.base_url} gave no usable answer: {reason}")


def read(
    upstream: Upstream, status: int, headers: Mapping[str, str], body: bytes, reader: Callable[[bytes], T]
) -> T:
    """What the reader makes of a good reply. Raises Again, or EngineError where asking again is no use."""
    if status == 200:
        try:
            return reader(body)
        except ValueError as garbled:
            raise Again(failed(upstream, f"HTTP 200 with {len(body)} bytes of something else")) from garbled
    raise refusal(upstream, status, headers, body)


def refusal(upstream: Upstream, status: int, headers: Mapping[str, str], body: bytes) -> Again | EngineError:
    """Why there is no answer."""
    if status in (401, 403):
        return _denied(upstream, status)
    code, said = _said(body)
    where = f"{upstream.base_url} (HTTP {status})"
    if upstream.key:
        said = said.replace(upstream.key, "***")
    if code == "insufficient_quota":
        return EngineError(BUSY, f"{where}: the quota of its key is used up")
    if status == 429:
        return Again(EngineError(BUSY, f"{where} refused every try as too many"), _after(headers))
    if status in LATER or status >= 500:
        return Again(failed(upstream, f"HTTP {status}"), _after(headers))
    if status == 404:
        return EngineError("model_not_found", f"{where} does not have this model or path: {said}")
    known = "context_length_exceeded"
    return EngineError(known if code == known else "invalid_request", f"{where}: {said}")


def _denied(upstream: Upstream, status: int) -> EngineError:
    if upstream.api_key_env is None:
        sentence = (
            f"{upstream.base_url} wants a key (HTTP {status}); name its environment variable in api_key_env"
        )
    else:
        sentence = (
            f"{upstream.base_url} refused the key in the environment variable {upstream.api_key_env} "
            f"(HTTP {status}); set a valid key and start the server again"
        )
    return EngineError(DENIED if status == 401 else FORBIDDEN, sentence)


def _said(body: bytes) -> tuple[Any, str]:
    """The code and the words of an error, in the spellings of OpenAI, vLLM and FastAPI."""
    try:
        told = msgspec.json.decode(body)
        error = told.get("error", told)
        if isinstance(error, str):
            return None, error[:MOST_SHOWN]
        said = error.get("message") or error.get("detail")
        return error.get("code"), str(said)[:MOST_SHOWN] if said else "it does not say why"
    except (ValueError, AttributeError, RecursionError):
        return None, "it does not say why"


def _after(headers: Mapping[str, str]) -> float:
    """Seconds that `retry-after-ms` or `Retry-After` ask for, the latter as a number or a date; or 0."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / unit
            return seconds if 0 < seconds < float("inf") else 0
        except ValueError:
            continue
    try:
        at = parsedate_to_datetime(headers.get("retry-after", ""))
        sent = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
        return max(0.0, (at - sent).total_seconds())
    except (ValueError, TypeError):  # TypeError: one of them names no time zone
        return 0
