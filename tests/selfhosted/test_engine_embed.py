"""Embeddings as the engine process makes them, against the plain library."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.selfhosted import tiny
from reconciler.selfhosted.engine import Ask, Engine, EngineError

MODEL = str(Path(tiny.__file__).parent)
TEXTS = ["the lamp is blue", "the lamp is red", "refund my order, it is late", "x"] * 20


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engine(runner: asyncio.Runner) -> Iterator[Engine]:
    engine = Engine(threads=2)
    yield engine
    runner.run(engine.close())


def test_a_text_is_the_mean_of_its_last_hidden_states(runner, engine):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(MODEL), AutoModelForCausalLM.from_pretrained(MODEL)
    tokens = tokenizer(TEXTS[2], add_special_tokens=False, return_tensors="pt").input_ids
    with torch.inference_mode():
        mean = model.model(tokens).last_hidden_state[0].float().mean(dim=0)
    expected = (mean / mean.norm()).tolist()

    made = runner.run(engine.embed(MODEL, TEXTS))  # beside texts of other lengths
    [as_tokens] = runner.run(engine.embed(MODEL, [tokens[0].tolist()]))

    assert len(TEXTS) == len(made)
    assert expected == pytest.approx(made[2].vector, abs=1e-4)
    assert expected == pytest.approx(as_tokens.vector, abs=1e-4)
    assert tokens.shape[1] == made[2].tokens
    near, far = (sum(a * b for a, b in zip(made[0].vector, made[n].vector, strict=True)) for n in (1, 2))
    assert near > far


def test_the_same_list_gives_the_same_vectors_whatever_else_goes_on(runner, engine):
    ask = Ask(MODEL, [{"role": "user", "content": "hello"}], temperature=1000, seed=1, max_tokens=60)

    async def beside() -> object:
        _, made = await asyncio.gather(engine.generate([ask] * 20), engine.embed(MODEL, TEXTS))
        return made

    assert runner.run(engine.embed(MODEL, TEXTS)) == runner.run(beside())


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "invalid_request"), ([10**6], "invalid_request"), ("word " * 5000, "context_length_exceeded")],
)
def test_a_text_that_cannot_be_embedded_is_named(runner, engine, text, code):
    with pytest.raises(EngineError, match=r"input\[1\]") as refused:
        runner.run(engine.embed(MODEL, ["fine", text]))

    assert code == refused.value.code


def test_an_embedding_survives_the_death_of_the_process(runner, engine):
    before = runner.run(engine.embed(MODEL, TEXTS[:4]))
    os.kill(engine.pid, signal.SIGKILL)

    assert before == runner.run(engine.embed(MODEL, TEXTS[:4]))
    assert [] == runner.run(engine.embed(MODEL, []))
