"""
The few calls to GitHub that a CI job makes.

Each is asked again after a fault of the server's or when it says to wait, so each may happen twice: whoever
creates something looks afterwards whether it did. The token goes to the API's own host and nowhere else.
"""

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from reconciler.backoff import backoff
from reconciler.errors import Busy, ReconcilerError, Rejected

TRIES = 6
LONGEST_WAIT = 120.0  # seconds of a Retry-After that we believe; a CI job costs by the minute
PAGE = 100
MOST_PAGES = 100
LARGEST = 16 << 20  # bytes of one reply
NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="next"')


class GitHub:
    """One repository, as a token sees it."""

    def __init__(
        self,
        api: str,
        repository: str,
        token: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.repository = repository
        self._api, self._sleep, self._chance, self._wall = api, sleep, chance, wall
        self._client = httpx.Client(
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
                "User-Agent": "reconciler",
            },
            timeout=30.0,
            follow_redirects=True,  # httpx leaves the token behind when the host is another
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that a path of the repository answers with; None where it answers with nothing."""
        reply = self._send(method, self._url(path), body=body)
        return self._json(reply, path) if reply.content else None

    def read(self, path: str) -> bytes:
        """The bytes of a path. Raises Rejected, which tells the status."""
        return self._send("GET", self._url(path)).content

    def each(self, path: str, within: str | None = None, **params: str) -> Iterator[dict[str, Any]]:
        """Every entry of a list, page by page; `within` is the field that holds it."""
        url: str | None = self._url(path)
        query: dict[str, str] | None = {**params, "per_page": str(PAGE)}
        for _ in range(MOST_PAGES):
            if url is None:
                return
            reply = self._send("GET", url, params=query)
            found = self._json(reply, path)
            yield from (found[within] if within else found)
            following = NEXT.search(reply.headers.get("link", ""))
            url, query = (following[1] if following else None), None
            if url and not url.startswith(f"{self._api}/"):
                raise ReconcilerError(
                    f"GitHub's list of {path} goes on at another host; nothing is sent there"
                )

    def _url(self, path: str) -> str:
        return f"{self._api}/repos/{self.repository}/{path}"

    def _send(
        self,
        method: str,
        url: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        said = ""
        for attempt in range(1, TRIES + 1):
            wait = None
            try:
                reply = self._client.request(method, url, json=body, params=params)
            except httpx.TransportError as error:
                said = f"{type(error).__name__}"
            else:
                if reply.is_success:
                    if len(reply.content) > LARGEST:
                        raise ReconcilerError(f"{_what(method, url)} answered with more than 16 MiB")
                    return reply
                said, wait = f"{reply.status_code}", self._wait(reply)
                if wait is None:
                    raise _refusal(method, url, reply)
            if attempt < TRIES:
                self._sleep(max(wait or 0.0, backoff(attempt, self._chance(), longest=30.0)))
        raise Busy(f"{_what(method, url)} did not succeed in {TRIES} tries ({said}); run the job again")

    def _wait(self, reply: httpx.Response) -> float | None:
        """Seconds to wait before the same again; None where that would not help."""
        asked = reply.headers.get("retry-after", "")
        spent = reply.headers.get("x-ratelimit-remaining") == "0"
        limited = reply.status_code == 429 or (
            reply.status_code == 403 and (bool(asked) or spent or "rate limit" in reply.text[:2000])
        )
        if reply.status_code < 500 and not limited:
            return None
        reset = reply.headers.get("x-ratelimit-reset", "")
        if asked.isdigit():
            seconds = float(asked)
        elif spent and reset.isdigit():
            seconds = float(reset) - self._wall()
        else:
            seconds = 0.0
        return max(0.0, min(seconds, LONGEST_WAIT))

    def _json(self, reply: httpx.Response, path: str) -> Any:
        try:
            return reply.json()
        except ValueError:
            raise ReconcilerError(
                f"GitHub's answer about {path} is no JSON; is GITHUB_API_URL right?"
            ) from None


def _what(method: str, url: str) -> str:
    return f"GitHub's {method} {httpx.URL(url).path}"


def _refusal(method: str, url: str, reply: httpx.Response) -> Rejected:
    try:
        said = str(reply.json().get("message") or "")[:200]
    except (ValueError, AttributeError):
        said = ""
    advice = {
        401: "; the token is not valid",
        403: f"; give the job {_permission(url)}",
        404: f"; give the job {_permission(url)} if it exists",
    }.get(reply.status_code, "")
    what = f"{_what(method, url)}: {reply.status_code} {said}".strip()
    return Rejected(f"{what}{advice}", status=reply.status_code)


def _permission(url: str) -> str:
    path = httpx.URL(url).path
    if "/check-runs" in path:
        return "`permissions: checks: write`"
    if "/actions/" in path:
        return "`permissions: actions: read`"
    if path.endswith("/pulls"):
        return "`permissions: pull-requests: read`"
    return "`permissions: pull-requests: write` for comments, `issues: write` for issues"
