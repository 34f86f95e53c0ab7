"""
vLLM as the engine: an upstream that we start ourselves, one process for a base model and all its adapters.

A GPU's memory holds one base in vLLM's way, so there is one process at a time; whoever asks for another base
waits until nobody asks the first. Only safetensors are loaded and no code of a model's. The process listens on
loopback with a key that only it and we have, is started again when it died, and never outlives us. What vLLM
does not do beside chats, embeddings, stays with our own engine. Its answers repeat as far as vLLM's do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.selfhosted import context
from reconciler.selfhosted.engine import folders
from reconciler.selfhosted.engine.values import Answer, Ask, Embedding, EngineError, Text
from reconciler.selfhosted.upstream import upstreamreply, vllmprocess
from reconciler.selfhosted.upstream.upstreams import ADDRESS
from reconciler.selfhosted.upstream.vllmprocess import Running

COMMAND = ("vllm", "serve")
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM can be told to make room for


@dataclass(frozen=True)
class Place:
    """Where a model is served: over which base, by which adapter, and with how much room for its rank."""

    base: Path
    adapter: Path | None = None
    rank: int = 0

    @property
    def name(self) -> str:
        """What the model is called in its process."""
        return vllmprocess.BASE if self.adapter is None else vllmprocess.name_of(self.adapter)

    def is_served_by(self, running: Running) -> bool:
        return running.alive and running.base == self.base and self.rank <= running.rank


def placed(model: str) -> Place:
    """Where a model folder is served. Raises EngineError for a folder that is none."""
    folder = Path(model)
    if not folder.is_dir():
        raise EngineError("model_not_found", f"there is no model folder {model}")
    try:
        if not folders.is_adapter(folder):
            return Place(folder.resolve())
        config = folders.adapter_config(folder)
        rank = int(config.get("r") or 0)
        room = next((most for most in RANKS if rank <= most), None)
        if config.get("peft_type") != "LORA" or room is None:
            raise ValueError(f"vLLM serves LoRA adapters of rank {RANKS[-1]} at most")
        base = folders.base_folder(folder, config.get("base_model_name_or_path"))
        return Place(base, folder.resolve(), room)
    except (OSError, ValueError) as error:
        raise EngineError("model_unloadable", f"{model} cannot be loaded: {error}") from error


class Vllm:
    """An engine; belongs to one event loop, and dies with the thread that first used it."""

    def __init__(
        self, own: context.Engine, command: Sequence[str] = COMMAND, *, log: Path | None = None
    ) -> None:
        self._own, self._command, self._log = own, command, log
        self._running: Running | None = None
        self._changing = asyncio.Lock()
        self._left = asyncio.Event()

    async def start(self) -> None:
        """Nothing: which base to start with shows with the first model."""

    async def load(self, model: str) -> None:
        """Have `model` ready to answer; raises EngineError if it never will be."""
        async with self._using(placed(model)):
            return

    async def generate(self, asks: Sequence[Ask]) -> list[Answer | EngineError]:
        """One answer per ask, in order. Raises EngineError only without an engine."""
        results: list[Answer | EngineError] = [EngineError("engine_failed", "nothing was asked")] * len(asks)
        models: dict[str, list[int]] = {}
        for number, ask in enumerate(asks):
            models.setdefault(ask.model, []).append(number)
        for model, numbers in models.items():
            try:
                made = await self._generate(placed(model), [asks[number] for number in numbers])
            except EngineError as error:
                if error.code == "engine_unavailable":
                    raise
                made = [error] * len(numbers)
            for number, result in zip(numbers, made, strict=True):
                results[number] = result
        return results

    async def _generate(self, place: Place, asks: Sequence[Ask]) -> list[Answer | EngineError]:
        for _ in (1, 2):
            async with self._using(place) as running:
                made = await running.client.generate([_there(ask, place) for ask in asks])
                lost = any(
                    isinstance(each, EngineError) and each.code == upstreamreply.FAILED for each in made
                )
                if not (lost and await running.dies()):
                    return [_ours(each) if isinstance(each, EngineError) else each for each in made]
        raise _died_twice()

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Answer, None]:
        """The text as it comes, then the answer. One that has begun when the process dies is not begun again."""
        place, begun = placed(ask.model), False
        for _ in (1, 2):
            async with self._using(place) as running:
                try:
                    async with contextlib.aclosing(running.client.stream(_there(ask, place))) as parts:
                        async for part in parts:
                            begun = True
                            yield part
                    return
                except EngineError as error:
                    lost = error.code == upstreamreply.FAILED
                    if begun or not (lost and await running.dies()):
                        raise _ours(error) from error
        raise _died_twice()

    async def embed(self, model: str, texts: Sequence[Text]) -> list[Embedding]:
        """One vector of unit length per text, by our own engine."""
        return await self._own.embed(model, texts)

    async def close(self) -> None:
        """End the process; calls in flight fail."""
        running, self._running = self._running, None
        if running is not None:
            await running.stop()
        await self._own.close()

    @contextlib.asynccontextmanager
    async def _using(self, place: Place) -> AsyncIterator[Running]:
        """The process that serves this model, which stays as long as it is used. Raises EngineError."""
        async with self._changing:
            running = self._running
            if running is None or not place.is_served_by(running):
                running = await self._changed(place)
            if place.adapter is not None and place.adapter not in running.adapters:
                await vllmprocess.add_adapter(running, place.adapter)
            running.users += 1
        try:
            yield running
        finally:
            running.users -= 1
            self._left.set()

    async def _changed(self, place: Place) -> Running:
        """Another process in the place of the one there is, when nobody uses that any more."""
        before, rank, adapters = self._running, place.rank, [] if place.adapter is None else [place.adapter]
        if before is not None:
            while before.users and before.alive:
                self._left.clear()
                await self._left.wait()
            if before.base == place.base:
                rank = max(rank, before.rank)
                kept = [adapter for adapter in before.adapters if adapter.is_dir()]
                adapters = list(dict.fromkeys([*kept, *adapters]))
            self._running = None
            await before.stop()
        self._running = await vllmprocess.start(self._command, place.base, rank, adapters, self._log)
        return self._running


def _there(ask: Ask, place: Place) -> Ask:
    return replace(ask, model=ADDRESS + place.name)


def _ours(error: EngineError) -> EngineError:
    """The error of an upstream as one of an engine. Pure."""
    codes = {upstreamreply.FAILED: "engine_failed", upstreamreply.BUSY: "engine_unavailable"}
    return EngineError(codes.get(error.code, error.code), error.message)


def _died_twice() -> EngineError:
    return EngineError("engine_unavailable", "vLLM died twice during this call; see its log")
