"""A stand-in for the engine process: it answers at once and always the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from reconciler.selfhosted.engine import Answer, Ask, Embedding, EngineError, Text


class StubEngine:
    """Answers everything with one word; refuses models in a folder that holds a file named `unservable`."""

    async def start(self) -> None: ...

    async def load(self, model: str) -> None:
        if (Path(model) / "unservable").exists():
            raise EngineError("model_unloadable", "it has no chat template")

    async def generate(self, asks: Sequence[Ask]) -> list[Answer | EngineError]:
        return [Answer("hello", "stop", None, 1, 1, None) for _ in asks]

    async def stream(self, ask: Ask) -> AsyncIterator[str | Answer]:
        yield "hello"
        yield Answer("hello", "stop", None, 1, 1, None)

    async def embed(self, model: str, texts: Sequence[Text]) -> list[Embedding]:
        return [Embedding([1.0, 0.0], 1) for _ in texts]

    async def close(self) -> None:
        return None
