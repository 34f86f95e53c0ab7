"""Embeddings through the official SDK, and the text similarity that compares them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_base import EQUAL, FakeEngine, Server, direction, make_eval, run_of
from openai import AsyncOpenAI, BadRequestError, NotFoundError

COSINE = {
    "type": "text_similarity",
    "name": "near",
    "input": "{{sample.output_text}}",
    "reference": "{{item.expected}}",
    "evaluation_metric": "cosine",
    "pass_threshold": 0.5,
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", FakeEngine(), embedding_model="tiny").running() as running:
        yield running


def test_texts_become_vectors_in_order(server: Server) -> None:
    embeddings = server.client.embeddings

    decoded = embeddings.create(model="tiny", input=["ab", "ba"])  # base64 on the wire
    plain = embeddings.create(model="tiny", input="cab", encoding_format="float")

    assert [direction("a"), direction("b")] == [list(each.embedding) for each in decoded.data]
    assert [0, 1] == [each.index for each in decoded.data]
    assert [direction("c")] == [each.embedding for each in plain.data]
    assert ("tiny", 4, 4) == (decoded.model, decoded.usage.prompt_tokens, decoded.usage.total_tokens)


def test_tokens_are_texts_too(server: Server) -> None:
    server.client.embeddings.create(model="tiny", input=[1, 2])
    server.client.embeddings.create(model="tiny", input=[[1, 2], [3]])

    assert [[[1, 2]], [[1, 2], [3]]] == server.engine.embedded


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "too long"}, "input"),
        ({"dimensions": 3}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"model": ""}, "model"),
    ],
)
def test_what_cannot_be_embedded_is_refused(server: Server, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        server.client.embeddings.create(**{"model": "tiny", "input": "a", **wrong})

    assert param == refused.value.param


def test_a_model_that_does_not_exist_is_a_404(server: Server) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        server.client.embeddings.create(model="nobody", input="a")


def test_the_asynchronous_sdk_embeds_too(server: Server) -> None:
    async def embed() -> list[float]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return list(
                (await client.embeddings.create(model="tiny", input="a", dimensions=8)).data[0].embedding
            )

    assert direction("a") == asyncio.run(embed())


def test_an_eval_compares_embeddings_in_batches(server: Server) -> None:
    said = ["apple", "bread", "apple", "too long", ""]
    rows = [{"item": {"word": word, "expected": "avocado"}} for word in said]

    run = server.ended(run_of(server, make_eval(server, COSINE, EQUAL).id, rows))
    items = server.items(run)

    scores = [item.results[0].score for item in items]
    assert [1.0, 0.0, 1.0, 0.0, 0.0] == scores
    assert "could not be embedded" in items[3].to_dict()["results"][0]["error"]
    assert "completed" == run.status
    assert (1, 2) == (run.result_counts.errored, run.per_testing_criteria_results[0].passed)
    assert ["apple", "avocado", "bread", "too long"] == server.engine.embedded[0]
    usage = {use.model_name: use.prompt_tokens for use in run.per_model_usage}
    assert {"tiny"} == set(usage)


def test_without_a_model_that_embeds_there_is_no_cosine(tmp_path: Path) -> None:
    with (
        Server(tmp_path / "other", FakeEngine()).running() as other,
        pytest.raises(BadRequestError, match="tiny-chat"),
    ):
        make_eval(other, COSINE)
