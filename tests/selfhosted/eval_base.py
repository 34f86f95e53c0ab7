"""
A real server on a real port over a fake engine, for tests of evals and chat.

Run as a program it is a process of its own that can be killed; it prints its port, and `blocked`
when its engine has got as far as it is allowed to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from openai import OpenAI

from reconciler.selfhosted import app, auth
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.engine import Answer, Ask, Embedding, EngineError, Text
from reconciler.selfhosted.registry import models
from reconciler.selfhosted.storage.blobs import Blobs
from reconciler.selfhosted.storage.store import SHARED, Store, Tx

ENDED = ("completed", "failed", "canceled")


def echo(ask: Ask) -> str:
    return str(ask.messages[-1]["content"])


def direction(text: Text) -> list[float]:
    """Texts that begin alike look the same way; a right angle for every other letter."""
    first = text[0] if isinstance(text, str) else chr(97 + text[0])
    return [float(letter == first) for letter in "abcdefgh"]


class FakeEngine:
    """Answers at once with what `says` makes of an ask; remembers every batch and what was left unfinished."""

    def __init__(self, says: Callable[[Ask], str | EngineError] = echo) -> None:
        self.says = says
        self.embedded: list[list[Text]] = []
        self.batches: list[list[Ask]] = []
        self.left: list[Ask] = []
        self.was_left = threading.Event()
        self.stuck = threading.Event()  # set when a call waits that will never be answered
        self.sticks_at: int | None = None  # the number of the batch, or of the stream's word, that never ends
        self.unloadable: EngineError | None = None
        self.log: Path | None = None

    async def start(self) -> None: ...

    async def load(self, model: str) -> None:
        if self.unloadable:
            raise self.unloadable

    async def generate(self, asks: Sequence[Ask]) -> list[Answer | EngineError]:
        self.batches.append(list(asks))
        if self.log:
            with self.log.open("a") as log:
                log.write(json.dumps([[echo(ask), ask.seed] for ask in asks]) + "\n")
        if len(self.batches) == self.sticks_at:
            await self._stick(asks[0])
        return [self._answer(ask) for ask in asks]

    async def stream(self, ask: Ask) -> AsyncIterator[str | Answer]:
        answer = self._answer(ask)
        if isinstance(answer, EngineError):
            raise answer
        for number, word in enumerate(answer.text.split(" ")):
            if number == self.sticks_at:
                await self._stick(ask)
            yield word if number == 0 else " " + word
        yield answer

    async def embed(self, model: str, texts: Sequence[Text]) -> list[Embedding]:
        self.embedded.append(list(texts))
        for text in texts:
            if text == "too long":
                raise EngineError("context_length_exceeded", "a text is too long")
        return [Embedding(direction(text), len(text)) for text in texts]

    async def close(self) -> None:
        pass

    async def _stick(self, ask: Ask) -> None:
        self.stuck.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.append(ask)
            self.was_left.set()

    def _answer(self, ask: Ask) -> Answer | EngineError:
        said = self.says(ask)
        if isinstance(said, EngineError):
            return said
        words = said.split(" ")
        logprobs = None
        if ask.logprobs is not None:
            logprobs = [
                {"token": w, "logprob": 0.0, "bytes": list(w.encode()), "top_logprobs": []} for w in words
            ]
        return Answer(said, "stop", None, len(echo(ask).split(" ")), len(words), logprobs)


class Server:
    """One running server; `client` speaks to it as any user would."""

    def __init__(self, data: Path, engine: Any, *, store: str | None = None, **settings: Any) -> None:
        data.mkdir(exist_ok=True)
        self.engine = engine
        self.store = Store(store or f"sqlite:///{data / 'platform.db'}", settings.get("now", time.time))
        self.store.write_now(lambda tx: add_model(tx, "tiny", data / "tiny"))
        self.here = Context(data, self.store, Blobs(data / "blobs"), engine, **settings)
        self.application = app.make(self.here, auth.Door(self.store))
        # The protocol is named, for asyncio turns Nagle's delay off only where it is: 40 ms per answer.
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen()
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.client = OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)
        config = uvicorn.Config(self.application, log_config=None, timeout_graceful_shutdown=1)
        self.uvicorn = uvicorn.Server(config)

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=self.uvicorn.run, kwargs={"sockets": [self.socket]})
        thread.start()  # the socket listens already: the first request waits until the server takes it
        try:
            yield self
        finally:
            self.uvicorn.should_exit = True
            thread.join()
            self.client.close()
            self.store.close()

    def ended(self, run: Any) -> Any:
        """The run when it is over."""
        pause = threading.Event()
        while run.status not in ENDED:
            pause.wait(0.005)
            run = self.client.evals.runs.retrieve(run.id, eval_id=run.eval_id)
        return run

    def items(self, run: Any, **filters: Any) -> list[Any]:
        return list(self.client.evals.runs.output_items.list(run.id, eval_id=run.eval_id, **filters))


def add_model(tx: Tx, id: str, folder: Path) -> None:
    kept = models.ModelRow(id, folder, id, "base")
    tx.put(models.model_record(id, SHARED, 1, "reconciler", kept, {"source": {"folder": str(folder)}}))


SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string"}, "expected": {"type": "string"}},
    "required": ["word", "expected"],
}
EQUAL = {
    "type": "string_check",
    "name": "same word",
    "input": "{{sample.output_text}}",
    "reference": "{{item.expected}}",
    "operation": "eq",
}


def make_eval(server: Server, *criteria: dict[str, Any], schema: dict[str, Any] = SCHEMA) -> Any:
    return server.client.evals.create(
        name="words",
        data_source_config={"type": "custom", "item_schema": schema, "include_sample_schema": True},
        testing_criteria=list(criteria or (EQUAL,)),  # type: ignore[arg-type]
    )


def words(count: int, right: Callable[[int], bool] = lambda index: True) -> list[dict[str, Any]]:
    return [
        {"item": {"word": f"w{index}", "expected": f"w{index}" if right(index) else "another"}}
        for index in range(count)
    ]


def completions(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "type": "completions",
        "model": "tiny",
        "source": {"type": "file_content", "content": rows},
        "input_messages": {"type": "template", "template": [{"role": "user", "content": "{{item.word}}"}]},
        **more,
    }


def run_of(server: Server, eval_id: str, rows: list[dict[str, Any]], **more: Any) -> Any:
    return server.client.evals.runs.create(eval_id, data_source=completions(rows, **more))  # type: ignore[arg-type]


def sometimes(ask: Ask) -> str:
    """Right for about two thirds of the seeds."""
    return "wrong" if (ask.seed or 0) % 3 == 0 else echo(ask)


def main(data: Path, sticks_at: int) -> None:
    engine = FakeEngine(sometimes)
    engine.log, engine.sticks_at = data / "asked.jsonl", sticks_at
    server = Server(data, engine)
    print(server.socket.getsockname()[1], flush=True)
    threading.Thread(target=lambda: engine.stuck.wait() and print("blocked", flush=True), daemon=True).start()
    server.uvicorn.run(sockets=[server.socket])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
