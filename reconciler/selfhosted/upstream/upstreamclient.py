"""
Asks upstreams, as many at once as each takes well, and again what went wrong on the way.

Sampling changes nothing at the other end, so a request is tried up to eight times: after 429, 5xx, silence,
a dropped connection or garbage, each time after a longer and random pause, and never before `Retry-After`.
Only asks that are repeatable and come in lists, those of evals and judges, are answered from the cache: a
chat is always asked. When a key is refused for a whole list, the list fails as one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple, TypeVar

import aiohttp
import msgspec

from reconciler.selfhosted import context
from reconciler.selfhosted.engine.values import Answer, Ask, Embedding, EngineError, Text
from reconciler.selfhosted.upstream import upstreamreply, upstreamwire
from reconciler.selfhosted.upstream.upstreamcache import Cache
from reconciler.selfhosted.upstream.upstreampace import QUIET, Pace
from reconciler.selfhosted.upstream.upstreamreply import DENIED, REFUSED, Again
from reconciler.selfhosted.upstream.upstreams import ADDRESS, Upstream

T = TypeVar("T")
CHAT, EMBEDDINGS = "chat/completions", "embeddings"
DROPPED = (aiohttp.ClientError, TimeoutError, OSError)
LONGEST_EVENT = 1 << 22  # bytes of one line of a stream
DONE = b"[DONE]"


@dataclass(frozen=True)
class Patience:
    """How long we go on trying: seconds, but for `tries`."""

    tries: int = 8
    pause: float = 0.5  # before the second try; doubles with each
    longest_pause: float = 30.0
    longest_wait: float = 600.0  # that a Retry-After is obeyed
    connect: float = 10.0
    reply: float = 600.0  # for a whole reply, and between two pieces of a stream
    quiet: float = QUIET  # without a refusal, until more is sent to an upstream that is new to us

    def before(self, tries: int, luck: float) -> float:
        """The pause after so many tries; luck from 0 to 1 spreads it over its upper half. Pure."""
        return min(self.longest_pause, self.pause * 2.0 ** (tries - 1)) * (1 + luck) / 2


class Lane:
    """One upstream: how it is asked, at which pace, and whether it has ever answered."""

    def __init__(self, upstream: Upstream, quiet: float) -> None:
        self.upstream, self.pace, self.answered = upstream, Pace(upstream.concurrency, quiet), False
        self.headers = {"content-type": "application/json", "user-agent": "reconciler"}
        if upstream.key is not None:
            self.headers["authorization"] = f"Bearer {upstream.key}"


class Request(NamedTuple):
    """One ask as it is sent, and its key in the cache if it may be answered from there."""

    lane: Lane
    body: bytes
    key: bytes | None


class Upstreams:
    """An engine for models that are elsewhere."""

    def __init__(
        self,
        listed: Sequence[Upstream],
        cache: Cache,
        patience: Patience = Patience(),
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._lanes = [Lane(upstream, patience.quiet) for upstream in listed]
        self._cache, self._patience, self._luck = cache, patience, luck
        self._opened: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Nothing: they run already, or not."""

    async def load(self, model: str) -> None:
        """Nothing to load; EngineError when no pattern fits any more."""
        self._found(model)

    async def generate(self, asks: Sequence[Ask]) -> list[Answer | EngineError]:
        """One answer per ask, in order. Raises EngineError when the key was refused for every one."""
        requests = [self._request(ask) for ask in asks]
        known = await self._cache.get([each.key for each in requests if each.key is not None])
        answers = await asyncio.gather(*(self._answer(each, known) for each in requests))
        refused = [each for each in answers if isinstance(each, EngineError) and each.code in REFUSED]
        if refused and len(refused) == len(answers):
            # A 403 may be about what one ask says, where others were answered.
            for request, error in zip(requests, refused, strict=True):
                if error.code == DENIED or not request.lane.answered:
                    raise error
        return answers

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Answer, None]:
        """Text as it comes, then the whole answer. A stream that has begun is not begun again."""
        lane, name = self._found(ask.model)
        wanted = {"stream": True, "stream_options": {"include_usage": True}}
        body = msgspec.json.encode(upstreamwire.body_of(ask, name) | wanted)
        response = await self._tried(lane, partial(self._begun, lane, body), stays=True)
        try:
            told = upstreamwire.Told()
            async for data in _events(response):
                if text := told.hear(data):
                    yield text
            answer = told.answer()
        except DROPPED as error:
            raise upstreamreply.failed(lane.upstream, type(error).__name__) from error
        except ValueError as garbled:
            raise upstreamreply.failed(lane.upstream, "a stream that breaks off or is garbled") from garbled
        finally:
            response.close()
            lane.pace.leave()
        yield answer

    async def embed(self, model: str, texts: Sequence[Text]) -> list[Embedding]:
        """One vector of unit length per text. Raises EngineError."""
        lane, name = self._found(model)
        body = msgspec.json.encode({"model": name, "input": texts, "encoding_format": "float"})
        reader = partial(upstreamwire.embeddings_of, count=len(texts))
        return await self._tried(lane, partial(self._whole, lane, EMBEDDINGS, body, reader))

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()
        await self._cache.close()

    def _found(self, model: str) -> tuple[Lane, str]:
        """The lane of a model's address, and the model's name there."""
        name = model.removeprefix(ADDRESS)
        lane = next((lane for lane in self._lanes if lane.upstream.fits(name)), None)
        if lane is None:
            raise EngineError("model_not_found", f"no upstream has a pattern that fits {name[:200]!r}")
        return lane, lane.upstream.model or name

    def _request(self, ask: Ask) -> Request:
        lane, name = self._found(ask.model)
        body = upstreamwire.body_of(ask, name)
        key = upstreamwire.key_of(lane.upstream.base_url, body) if upstreamwire.repeatable(ask) else None
        return Request(lane, msgspec.json.encode(body), key)

    async def _answer(self, request: Request, known: Mapping[bytes, Answer]) -> Answer | EngineError:
        if request.key is not None and (answer := known.get(request.key)):
            return answer
        ask = partial(self._whole, request.lane, CHAT, request.body, upstreamwire.answer_of)
        try:
            answer = await self._tried(request.lane, partial(_timed, ask))
        except EngineError as error:
            return error
        if request.key is not None:
            await self._cache.put(request.key, answer)
        return answer

    async def _tried(self, lane: Lane, send: Callable[[], Awaitable[T]], *, stays: bool = False) -> T:
        """Send until something comes of it. With `stays` the turn is the caller's to leave. Raises EngineError."""
        for tries in range(1, self._patience.tries + 1):
            entered = await lane.pace.enter()
            try:
                made = await send()
            except Again as again:
                refused = again
            except DROPPED as error:
                refused = Again(upstreamreply.failed(lane.upstream, type(error).__name__))
            except BaseException:  # a refusal that is final, or a cancel: either way the turn is free
                lane.pace.leave()
                raise
            else:
                lane.answered = True
                if not stays:
                    lane.pace.leave_well()
                return made
            lane.pace.leave_in_trouble(entered, min(refused.after, self._patience.longest_wait))
            if tries < self._patience.tries:
                await asyncio.sleep(self._patience.before(tries, self._luck()))
        raise refused.error

    async def _whole(self, lane: Lane, path: str, body: bytes, reader: Callable[[bytes], T]) -> T:
        async with self._post(lane, path, body, total=self._patience.reply) as response:
            raw = await response.read()
        return upstreamreply.read(lane.upstream, response.status, response.headers, raw, reader)

    async def _begun(self, lane: Lane, body: bytes) -> aiohttp.ClientResponse:
        """A stream that has begun; whoever gets it closes it."""
        response = await self._post(lane, CHAT, body, total=None)
        if response.status == 200:
            return response
        async with response:
            raw = await response.read()
        raise upstreamreply.refusal(lane.upstream, response.status, response.headers, raw)

    def _post(
        self, lane: Lane, path: str, body: bytes, total: float | None
    ) -> aiohttp.client._RequestContextManager:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # how many there are is for the paces to say
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=LONGEST_EVENT,
                trace_configs=[_connecting()],
            )
        wait = self._patience
        return self._opened.post(
            f"{lane.upstream.base_url}/{path}",
            data=body,
            headers=lane.headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=total, sock_connect=wait.connect, sock_read=wait.reply),
            trace_request_ctx=lane,
        )


def _connecting() -> aiohttp.TraceConfig:
    """Tells the pace of a request's lane when a connection was made, and how long that took."""

    async def begins(_session: object, of: SimpleNamespace, _: object) -> None:
        of.began = time.perf_counter()

    async def ends(_session: object, of: SimpleNamespace, _: object) -> None:
        of.trace_request_ctx.pace.connected(time.perf_counter() - of.began)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(begins)
    trace.on_connection_create_end.append(ends)
    return trace


async def _timed(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    started = time.perf_counter()
    answer = await ask()
    return replace(answer, latency_ms=round((time.perf_counter() - started) * 1000, 1))


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The data of server-sent events up to [DONE]. Raises ValueError for a line that is too long."""
    async for line in response.content:
        if line.startswith(b"data:"):
            data = line[len(b"data:") :].strip()
            if data == DONE:
                return
            yield data


class Everywhere:
    """The engine of a server with upstreams: its own for folders of weights, theirs for addresses."""

    def __init__(self, own: context.Engine, elsewhere: Upstreams) -> None:
        self._own, self._elsewhere = own, elsewhere

    def _for(self, model: str) -> context.Engine:
        return self._elsewhere if model.startswith(ADDRESS) else self._own

    async def start(self) -> None:
        await self._own.start()

    async def load(self, model: str) -> None:
        await self._for(model).load(model)

    async def generate(self, asks: Sequence[Ask]) -> list[Answer | EngineError]:
        return await self._for(asks[0].model).generate(asks) if asks else []

    def stream(self, ask: Ask) -> AsyncIterator[str | Answer]:
        return self._for(ask.model).stream(ask)

    async def embed(self, model: str, texts: Sequence[Text]) -> list[Embedding]:
        return await self._for(model).embed(model, texts)

    async def close(self) -> None:
        await self._own.close()
        await self._elsewhere.close()
