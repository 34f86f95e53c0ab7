"""
A platform that speaks OpenAI's API, over plain HTTP.

A create is one request, never repeated here; what came of it is told apart by what to do next. A read
may be repeated, gives everything or raises, and never takes "I could not look" for "there is nothing".
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from reconciler.errors import Busy, PlatformError, Rejected, Unclear, Unreachable
from reconciler.platforms.exchange import Deadlines, Line, Lost, Reply, Unsent, place_of, sanitised, usable
from reconciler.world import Object

Objects = list[Object]

ATTEMPTS = 4
MOST_PAGES = 10_000
# the largest page the contract allows, None where the list is one page
PAGE: Mapping[str, int | None] = {"files": 10_000, "models": None}
USUAL_PAGE = 100
PASSING = frozenset({408, 409, 425, 429})  # with 5xx: the statuses that say nothing definite
NOT_AN_API = "not_an_api"  # our code for a 404 that is about the address, not about an absent object


class Clock(NamedTuple):
    """Time and chance, so that tests own both."""

    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random


class OpenAI:
    """`world.Platform` over HTTP. `key` is a value from the environment, `key_env` the name we may print."""

    def __init__(
        self,
        base_url: str = "https://api.openai.com/v1",
        *,
        name: str = "openai",
        key: str | None = None,
        key_env: str = "OPENAI_API_KEY",
        transport: httpx.BaseTransport | None = None,
        place: str | None = None,
        advice: str = "check that it is up and that base_url is right",
        deadlines: Deadlines = Deadlines(),
        clock: Clock = Clock(),
    ) -> None:
        self.name = name
        self._place = place or place_of(base_url, name)
        self._advice = advice
        self._key = usable(key, key_env)
        self._key_env = key_env
        self._clock = clock
        self._total = deadlines.total
        self._line = Line(base_url, self._key, transport=transport, deadlines=deadlines, now=clock.now)
        self._discovering = threading.Lock()
        self._capabilities: frozenset[str] | None = None

    def __repr__(self) -> str:
        return f"OpenAI({self.name!r}, {self._place!r})"

    def close(self) -> None:
        self._line.close()

    @property
    def capabilities(self) -> frozenset[str]:
        """Extensions it says it has, asked once; a plain OpenAI has none."""
        with self._discovering:
            if self._capabilities is None:
                self._capabilities = self._discover()
            return self._capabilities

    def list(self, collection: str, **where: str) -> Objects:
        """Every object of a collection, all pages; raises rather than return a part."""
        return [found for page in self._pages(collection, where) for found in page]

    def latest(self, collection: str, limit: int, **where: str) -> Objects:
        """The first page alone, in the platform's own order (newest first for jobs and events)."""
        return _data(self._read("GET", collection, {**where, "limit": str(limit)})) or []

    def get(self, collection: str, id: str) -> Object | None:
        """One object; None when the platform itself says there is none."""
        try:
            return self._read("GET", _member(collection, id))
        except Rejected as error:
            if _absent(error):
                return None
            raise

    def content(self, id: str) -> bytes:
        """The bytes of a file, asked for once."""
        return self._once("GET", f"{_member('files', id)}/content").body

    def ask(self, path: str, body: Mapping[str, Any]) -> Object:
        """A POST that leaves nothing behind (`chat/completions`, grader checks), so repeated as a read is."""
        return self._read("POST", path, body=body)

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> Object:
        """Exactly one request: the object made, or `Rejected`, `Busy`, `Unreachable`, `Unclear`."""
        headers = {"Idempotency-Key": key} if "idempotency" in self.capabilities else {}
        reply = self._once("POST", collection, body, headers)
        made = reply.json()
        if made is None or identity(made) is None:
            raise Unclear(
                f"{self.name} answered POST {collection} with {reply.status} but no object; look for it"
            )
        return made

    def delete(self, collection: str, id: str) -> None:
        """One request; an absent object is no error."""
        try:
            self._once("DELETE", _member(collection, id))
        except Rejected as error:
            if not _absent(error):
                raise

    def _pages(self, collection: str, where: Mapping[str, str]) -> Iterator[Objects]:
        limit = PAGE.get(collection, USUAL_PAGE)
        params = dict(where) if limit is None else {**where, "limit": str(limit)}
        seen: set[str] = set()
        for _ in range(MOST_PAGES):
            page = self._read("GET", collection, params)
            found = _data(page)
            if found is None:
                raise Unreachable(
                    f"{self.name} ({self._place}) answered GET {collection} with no list; check base_url"
                )
            yield found
            if not page.get("has_more"):
                return
            last = identity(found[-1]) if found else None
            if last is None or last in seen:
                break
            seen.add(last)
            params["after"] = last
        raise Unreachable(
            f"{self.name} ({self._place}) never ends its list of {collection}; its paging is broken"
        )

    def _read(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The reply's object, after as many attempts as the deadline allows."""
        clock, what = self._clock, f"{method} {path}"
        until = clock.now() + self._total
        trouble, attempt, reply = "", 0, None
        while attempt < ATTEMPTS:
            attempt += 1
            try:
                reply = self._line.send(method, path, until=until, params=params, body=body)
            except (Unsent, Lost) as error:
                reply, trouble = None, str(error)
            else:
                if reply.ok and (found := reply.json()) is not None:
                    return found
                if not reply.ok and not _passing(reply):
                    raise self._rejected(reply, what)
                trouble = f"{reply.status}{_said(reply)}" if not reply.ok else "an answer that is not JSON"
            pause = 0.5 * 2 ** (attempt - 1) * (0.5 + clock.random())
            pause = max(pause, (reply.retry_after(clock.wall()) if reply else None) or 0.0)
            if attempt == ATTEMPTS or clock.now() + pause >= until:
                break
            clock.sleep(pause)
        raise self._given_up(what, trouble, attempt, reply)

    def _given_up(self, what: str, trouble: str, attempts: int, reply: Reply | None) -> PlatformError:
        trouble = sanitised(trouble, self._key)
        if reply is not None and reply.status == 429:
            return Busy(f"{self.name} is busy ({what}: {trouble})", reply.retry_after(self._clock.wall()))
        return Unreachable(
            f"{self.name} ({self._place}) gave no usable answer to {what} in {attempts} attempts: {trouble};"
            f" {self._advice}, then run again"
        )

    def _once(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """The reply to a request sent once, if it is a success; what is known, if not."""
        what = f"{method} {path}"
        until = self._clock.now() + self._total
        try:
            reply = self._line.send(method, path, until=until, body=body, headers=headers)
        except Unsent as error:
            reason = sanitised(str(error), self._key)
            raise Unreachable(
                f"{self.name} ({self._place}) was not reached for {what}: {reason};"
                f" nothing was sent, {self._advice}, then run again"
            ) from error
        except Lost as error:
            reason = sanitised(str(error), self._key)
            raise Unclear(
                f"{self.name} did not finish answering {what}: {reason}; it may have happened"
            ) from error
        if reply.ok:
            return reply
        if reply.status == 429 and _passing(reply):
            raise Busy(f"{self.name} is busy ({what}: 429)", reply.retry_after(self._clock.wall()))
        if reply.status >= 400 and not _passing(reply):
            raise self._rejected(reply, what)
        said = sanitised(f"{reply.status}{_said(reply)}", self._key)
        raise Unclear(f"{self.name} answered {what} with {said}; it may have happened")

    def _rejected(self, reply: Reply, what: str) -> Rejected:
        error, status = reply.error(), reply.status
        code = NOT_AN_API if _wrong_address(reply) else error[0] if error else None
        if status == 401:
            wish = f"does not accept the key in {self._key_env}" if self._key else "wants a key"
            message = f"{self.name} ({self._place}) {wish}; set {self._key_env} to a key of this platform"
        elif code == "training_not_available":
            message = (
                f"{self.name} no longer lets this organization create training jobs ({code});"
                " point the project at another platform, such as the embedded one"
            )
        elif code == NOT_AN_API:
            message = f"{self.name} ({self._place}) knows no {what}; check base_url, it usually ends in /v1"
        elif 300 <= status < 400:
            message = f"{self.name} ({self._place}) redirects {what}; set base_url to where it really is"
        else:
            message = f"{self.name} refused {what}: {status}{_said(reply)}"
        return Rejected(sanitised(message, self._key, longest=500), status=status, code=code)

    def _discover(self) -> frozenset[str]:
        try:
            found = self._read("GET", "reconciler")
        except Rejected as error:
            if error.status == 401:
                raise
            return frozenset()
        if found.get("object") != "reconciler.platform":
            return frozenset()
        return frozenset(map(str, found.get("capabilities") or ()))


def _passing(reply: Reply) -> bool:
    """Whether the refusal says nothing definite about the same call later. Pure."""
    error = reply.error()
    if reply.status == 429 and error and error[0] == "insufficient_quota":
        return False
    full = reply.status == 507 and error and error[0] == "disk_full"  # our platform's: nothing was stored
    return not full and (reply.status in PASSING or reply.status >= 500)


def _said(reply: Reply) -> str:
    """` (code): message` of the envelope, as far as there is one. Pure."""
    code, message = reply.error() or (None, "")
    return (f" ({code})" if code else "") + (f": {sanitised(message)}" if message else "")


def _wrong_address(reply: Reply) -> bool:
    """Whether a 404 is about the path, not about an object under it. Pure."""
    code, message = reply.error() or ("unknown_url", "")
    return reply.status == 404 and (code == "unknown_url" or message.startswith("Invalid URL"))


def _absent(error: Rejected) -> bool:
    return error.status == 404 and error.code != NOT_AN_API


def identity(found: Mapping[str, Any]) -> str | None:
    """An object's id; an alias has its name. Pure."""
    id = found.get("id") or found.get("name")
    return id if isinstance(id, str) else None


def _data(page: Mapping[str, Any]) -> Objects | None:
    found = page.get("data")
    return found if isinstance(found, list) and all(isinstance(each, dict) for each in found) else None


def _member(collection: str, id: str) -> str:
    if id in ("", ".", ".."):
        raise Rejected(f"{id!r} is no id of {collection}")
    return f"{collection}/{quote(id, safe=':')}"
