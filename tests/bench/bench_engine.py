"""
The engine against its floor, `generate` of Transformers one request at a time.

`python -m tests.bench engine`: both answer the same short prompts with the packaged base model,
greedily, in the same run; the ratio counts.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from reconciler.selfhosted import tiny
from reconciler.selfhosted.engine import Ask, Engine

MODEL = str(Path(tiny.__file__).parent)
CLIENTS, REQUESTS, LONGEST = 32, 320, 32
WANTED = 5.0  # times as many answers a second as one by one


def asks() -> list[Ask]:
    return [
        Ask(
            model=MODEL,
            messages=[
                {"role": "user", "content": f"Repeat: order number {i}{'0' * (i % 7)} has not arrived yet"}
            ],
            temperature=0,
            max_tokens=LONGEST,
        )
        for i in range(REQUESTS)
    ]


def one_by_one(wanted: Sequence[Ask]) -> float:
    """Answers a second of `generate`, one after another."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(MODEL).eval()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    begin = time.perf_counter()
    for ask in wanted:
        prompt = tokenizer.apply_chat_template(
            list(ask.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        model.generate(**prompt, max_new_tokens=LONGEST, do_sample=False)
    return len(wanted) / (time.perf_counter() - begin)


async def together(wanted: Sequence[Ask]) -> tuple[float, float]:
    """Answers a second of the engine: for `CLIENTS` clients who wait for theirs, and as one unit."""
    engine = Engine(threads=2)
    await engine.generate(wanted[:CLIENTS])
    left = list(wanted)

    async def client() -> None:
        while left:
            await engine.answer(left.pop())

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    clients = len(wanted) / (time.perf_counter() - begin)
    begin = time.perf_counter()
    await engine.generate(wanted)
    unit = len(wanted) / (time.perf_counter() - begin)
    await engine.close()
    return clients, unit


def main(smoke: bool) -> None:
    clients, unit = asyncio.run(together(asks()[: 32 if smoke else REQUESTS]))
    alone = one_by_one(asks()[: 4 if smoke else 64])
    print(f"generate, one by one     {alone:8.1f} answers/s")
    print(f"engine, {CLIENTS} clients       {clients:8.1f} answers/s   {clients / alone:5.1f} times")
    print(f"engine, one unit of {REQUESTS}  {unit:8.1f} answers/s   {unit / alone:5.1f} times")
    print(f"wanted ≥ {WANTED:.0f} times with {CLIENTS} clients")
