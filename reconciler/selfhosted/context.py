"""
What every endpoint may use. There is one per server; it is handed in, so that tests can choose each part.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from starlette.requests import Request

from reconciler.selfhosted.engine import Answer, Ask, Embedding, EngineError, Text
from reconciler.selfhosted.storage.blobs import Blobs
from reconciler.selfhosted.storage.store import Store
from reconciler.selfhosted.upstream.upstreams import Upstream

DEFAULT_PROJECT = "default"  # whose objects a caller without a key sees


class Engine(Protocol):
    """What the serving engine must do; `engine.client.Engine` does it with a process of its own."""

    async def start(self) -> None: ...

    async def load(self, model: str) -> None: ...

    async def generate(self, asks: Sequence[Ask]) -> list[Answer | EngineError]: ...

    def stream(self, ask: Ask) -> AsyncIterator[str | Answer]: ...

    async def embed(self, model: str, texts: Sequence[Text]) -> list[Embedding]: ...

    async def close(self) -> None: ...


class Caller(NamedTuple):
    """Who asks: the project of its key, and whether it came through the private socket."""

    project: str
    private: bool


@dataclass(frozen=True)
class Context:
    """The parts of one running server."""

    data: Path
    store: Store
    blobs: Blobs
    engine: Engine
    version: str = "0"
    organization: str = "local"  # goes into the names of tuned models
    model_sources: bool = False  # whether TCP callers may register folders as models
    upstreams: tuple[Upstream, ...] = ()  # who has the models that we do not have
    embedding_model: str = "tiny-chat"  # whose vectors the text similarity `cosine` compares
    private_webhooks: bool = True  # whether webhooks may be at private addresses, and without https
    unsafe_graders: bool = False  # whether python graders run without isolation where there is none
    trainer: tuple[str, ...] = ()  # the command that trains; the job folder is added to it
    jobs_at_once: int = 1
    processes: int | None = None  # that train one job; None: one for each GPU, one where there is none
    worker: str = "local"  # who holds the leases of running jobs
    now: Callable[[], float] = time.time
    wake: asyncio.Event = field(default_factory=asyncio.Event)  # set when the supervisor has something to do

    def seconds(self) -> int:
        """The time as the wire carries it."""
        return int(self.now())


def of(request: Request) -> Context:
    return cast(Context, request.app.state.context)


def project(request: Request) -> str:
    """Whose objects this caller sees; decided by its key."""
    return cast(Caller, request.scope["caller"]).project


def private(request: Request) -> bool:
    """Whether the caller came through the server's own socket, which only its owner can open."""
    return cast(Caller, request.scope["caller"]).private
