"""
The eval runner against a model that answers at once: 1,000 items in at most a second, 20,000 in flat memory.

The floor is measured in the same run: encoding the same items and committing them in the same chunks.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reconciler.selfhosted import grading
from reconciler.selfhosted.context import Engine
from reconciler.selfhosted.engine import Answer, Ask, Embedding, EngineError, Text
from reconciler.selfhosted.evaluation import runbook
from reconciler.selfhosted.evaluation.runner import CHUNK, Runner
from reconciler.selfhosted.registry import models
from reconciler.selfhosted.serving.sampling import Sampler
from reconciler.selfhosted.storage.blobs import Blobs
from reconciler.selfhosted.storage.store import SHARED, Record, Store, Tx

PROJECT, EVAL, RUN, FILE = "default", "eval_bench", "evalrun_bench", "file-bench"


class Instant:
    """Repeats the question."""

    async def start(self) -> None: ...

    async def load(self, model: str) -> None: ...

    async def generate(self, asks: Sequence[Ask]) -> list[Answer | EngineError]:
        return [Answer(str(ask.messages[-1]["content"]), "stop", None, 9, 9, None) for ask in asks]

    async def stream(self, ask: Ask) -> AsyncIterator[str | Answer]:
        yield ""

    async def embed(self, model: str, texts: Sequence[Text]) -> list[Embedding]:
        return []

    async def close(self) -> None: ...


def rows(count: int, first: int = 0) -> bytes:
    item = {"ticket": "The parcel K4821 has not come, and it was for a birthday. " * 4, "expected": "K4821"}
    return b"".join(
        json.dumps({"item": {**item, "id": n}}).encode() + b"\n" for n in range(first, first + count)
    )


def prepare(tx: Tx, name: str = "tiny") -> None:
    if name == "tiny":
        model = models.ModelRow("tiny", Path("tiny"), "tiny", "base")
        tx.insert(models.model_record("tiny", SHARED, 1, "reconciler", model))
    criterion = {"type": "string_check", "name": "has", "id": "has-1", "operation": "like"}
    criterion |= {"input": "{{sample.output_text}}", "reference": "{{item.expected}}"}
    schema = {"type": "object", "properties": {"ticket": {"type": "string"}}, "required": ["ticket"]}
    config = {"type": "custom", "schema": {"properties": {"item": schema}}}
    body: dict[str, Any] = {"id": EVAL, "data_source_config": config, "testing_criteria": [criterion]}
    tx.insert(Record(runbook.EVAL, EVAL, PROJECT, body, 1))
    template = [{"role": "user", "content": "Triage {{item.id}}: {{item.ticket}}"}]
    run = {
        "id": RUN,
        "status": "queued",
        "model": name,
        "result_counts": {"total": 0, "errored": 0, "failed": 0, "passed": 0},
        "per_model_usage": None,
        "per_testing_criteria_results": None,
        "data_source": {
            "type": "completions",
            "model": name,
            "source": {"type": "file_id", "id": FILE},
            "input_messages": {"type": "template", "template": template},
        },
    }
    private = runbook.fresh({name: name})
    tx.insert(Record(runbook.RUN, RUN, PROJECT, run, 1, parent=EVAL, status="queued", private=private))


async def measure(
    folder: Path,
    count: int,
    name: str = "tiny",
    engine: Engine | None = None,
    upstreams: Any = (),
    first: int = 0,
) -> tuple[float, dict[str, Any]]:
    """Seconds from the claim to the end of the run, and the run."""
    store, blobs = Store(f"sqlite:///{folder / 'bench.db'}"), Blobs(folder / "blobs")
    await blobs.store(FILE, rows(count, first))
    await store.write(partial(prepare, name=name))
    sampler = Sampler(engine or Instant())
    runner = Runner(store, blobs, sampler, grading.Sandbox(), worker="bench", upstreams=upstreams)
    started = time.perf_counter()
    await runner.start()
    while True:
        row = await store.read(lambda tx: tx.get(PROJECT, runbook.RUN, RUN))
        assert row is not None
        if row.status not in runbook.UNFINISHED:
            break
        await asyncio.sleep(0.002)
    took = time.perf_counter() - started
    await runner.close()
    store.close()
    return took, row.wire()


def floor(folder: Path, count: int) -> float:
    """Seconds to encode as many items and to commit them durably, a chunk at a time."""
    body = {"item": json.loads(rows(1))["item"], "sample": {"output": "x" * 300}, "results": [{"score": 1.0}]}
    database = sqlite3.connect(folder / "floor.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("CREATE TABLE items (n INTEGER PRIMARY KEY, body BLOB)")
    started = time.perf_counter()
    for start in range(0, count, CHUNK):
        database.execute("BEGIN IMMEDIATE")
        encoded = [(n, json.dumps(body)) for n in range(start, min(start + CHUNK, count))]
        database.executemany("INSERT INTO items VALUES (?, ?)", encoded)
        database.execute("COMMIT")
    took = time.perf_counter() - started
    database.close()
    return took


def bench(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        least = floor(Path(name), count)
        took, run = asyncio.run(measure(Path(name), count))
    assert {"total": count, "errored": 0, "failed": 0, "passed": count} == run["result_counts"], run
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"items": count, "seconds": took, "floor_seconds": least, "ratio": took / least, "peak_mib": peak}


def main(smoke: bool = False) -> None:
    for count in (200,) if smoke else (1000, 20_000):
        print(json.dumps(bench(count)), flush=True)


if __name__ == "__main__":
    main()
