"""
A platform that is asked no faster than it likes, by all who use it together; every call is counted.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from reconciler.errors import Busy, PlatformError, Rejected, Unclear, Unreachable
from reconciler.world import Object, Platform

Objects = list[Object]
Result = TypeVar("Result")
Told = Callable[[str, str, str, float], None]  # verb, collection, outcome, seconds
HOLDERS = ("evals", "jobs", "runs")  # collections whose objects hold others
BURST = 20  # requests that may come at once
OUTCOMES: Mapping[type[PlatformError], str] = {
    Busy: "busy",
    Rejected: "rejected",
    Unclear: "unclear",
    Unreachable: "unreachable",
}


class Bucket:
    """So many requests per second on average, a few at once, and none while the platform asked for quiet."""

    def __init__(
        self, rate: float | None, now: Callable[[], float], sleep: Callable[[float], None], burst: int = BURST
    ) -> None:
        self._rate, self._burst, self._now, self._sleep = rate, burst, now, sleep
        self._left, self._at, self._quiet = float(burst), now(), 0.0
        self._lock = threading.Lock()

    def take(self, name: str) -> None:
        """Wait for a turn. Raises Busy while the platform wants to be left alone."""
        with self._lock:
            now = self._now()
            if now < self._quiet:
                left = self._quiet - now
                raise Busy(f"{name} asked to be left alone for {left:.0f} s more", left)
            if self._rate is None:
                return
            self._left = min(self._burst, self._left + (now - self._at) * self._rate) - 1
            self._at = now
            pause = max(0.0, -self._left / self._rate)
        if pause:
            self._sleep(pause)

    def hush(self, seconds: float) -> None:
        """The platform said it is asked too much."""
        with self._lock:
            self._quiet = max(self._quiet, self._now() + seconds)


class Paced:
    """A platform behind a bucket that all its users share; every call and its outcome is told."""

    def __init__(self, platform: Platform, bucket: Bucket, told: Told, now: Callable[[], float]) -> None:
        self._platform, self._bucket, self._told, self._now = platform, bucket, told, now

    @property
    def name(self) -> str:
        return self._platform.name

    @property
    def capabilities(self) -> frozenset[str]:
        return self._platform.capabilities

    def list(self, collection: str, **where: str) -> Objects:
        return self._call("list", collection, lambda: self._platform.list(collection, **where))

    def latest(self, collection: str, limit: int, **where: str) -> Sequence[Object]:
        return self._call("latest", collection, lambda: self._platform.latest(collection, limit, **where))

    def get(self, collection: str, id: str) -> Object | None:
        return self._call("get", collection, lambda: self._platform.get(collection, id))

    def content(self, id: str) -> bytes:
        return self._call("content", "files", lambda: self._platform.content(id))

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> Object:
        return self._call("create", collection, lambda: self._platform.create(collection, body, key=key))

    def delete(self, collection: str, id: str) -> None:
        self._call("delete", collection, lambda: self._platform.delete(collection, id))

    def _call(self, verb: str, collection: str, call: Callable[[], Result]) -> Result:
        self._bucket.take(self.name)
        began, outcome = self._now(), "done"
        try:
            return call()
        except PlatformError as error:
            outcome = OUTCOMES.get(type(error), "failed")
            if isinstance(error, Busy) and error.retry_after:
                self._bucket.hush(error.retry_after)
            raise
        finally:
            self._told(verb, shape(collection), outcome, self._now() - began)


def shape(collection: str) -> str:
    """A collection without the ids of what holds it: `evals/*/runs`. Pure."""
    parts = collection.split("/")
    return "/".join(
        "*" if before in HOLDERS else part for before, part in zip(["", *parts], parts, strict=False)
    )
