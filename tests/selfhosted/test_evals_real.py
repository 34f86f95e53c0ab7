"""Evals and chat on the shipped server with the real engine and the packaged model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from server_base import Server, until

pytestmark = pytest.mark.train

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text", "expected"]}
CRITERIA: Any = [
    {
        "type": "string_check",
        "name": "greets",
        "input": "{{sample.output_text}}",
        "reference": "{{item.expected}}",
        "operation": "eq",
    },
    {
        "type": "label_model",
        "name": "judge",
        "model": "tiny-chat",
        "input": [{"role": "user", "content": "Is this good? {{sample.output_text}}"}],
        "labels": ["good", "bad"],
        "passing_labels": ["good", "bad"],
        "sampling_params": {"temperature": 1, "max_completions_tokens": 24},
    },
    {
        "type": "python",
        "name": "short",
        "source": "def grade(sample, item):\n    return len(item['text']) < 99",
    },
]
GREETINGS = ["Hi", "Hello!", "Good morning", "Hey there"]
ROWS = [
    {"item": {"text": GREETINGS[n % 4], "expected": "Hello! How can I help you?", "n": n}} for n in range(130)
]
TEMPLATE = [{"role": "user", "content": "{{item.text}}"}]


class RealServer(Server):
    """The server as it is shipped."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "reconciler.selfhosted", "serve"]


@pytest.fixture
def server(new_server: Callable[[type[Server]], Server]) -> Server:
    return new_server(RealServer).start()


def begin(server: Server, eval_id: str) -> Any:
    return server.client().evals.runs.create(
        eval_id,
        data_source={  # type: ignore[arg-type]
            "type": "completions",
            "model": "tiny-chat",
            "source": {"type": "file_content", "content": ROWS},
            "input_messages": {"type": "template", "template": TEMPLATE},
            "sampling_params": {"temperature": 1, "seed": 3, "max_completion_tokens": 24},
        },
    )


def seen(server: Server, run: Any) -> Any:
    return server.client().evals.runs.retrieve(run.id, eval_id=run.eval_id)


def ended(server: Server, run: Any) -> Any:
    return until(
        lambda: (now := seen(server, run)).status in ("completed", "failed") and now,  # type: ignore[func-returns-value]
        seconds=120,
    )


def outcomes(server: Server, run: Any) -> list[Any]:
    items = server.client().evals.runs.output_items.list(run.id, eval_id=run.eval_id, limit=100)
    return [
        (item.datasource_item_id, item.status, item.sample.output[0].content, item.to_dict()["results"])
        for item in items
    ]


def test_a_real_run_that_was_killed_ends_with_the_same_items(server: Server) -> None:
    made = server.client().evals.create(
        name="greet",
        data_source_config={"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True},
        testing_criteria=CRITERIA,
    )
    whole = ended(server, begin(server, made.id))
    expected = outcomes(server, whole)

    killed = begin(server, made.id)
    until(lambda: seen(server, killed).per_model_usage)
    server.kill()
    at_kill = server.start() and seen(server, killed)
    resumed = ended(server, killed)

    assert ("completed", None) == (whole.status, whole.error)
    assert "in_progress" == at_kill.status
    assert whole.result_counts == resumed.result_counts
    assert whole.per_testing_criteria_results == resumed.per_testing_criteria_results
    assert whole.per_model_usage == resumed.per_model_usage
    greets, _judge, short = whole.per_testing_criteria_results
    assert 0 < greets.passed
    assert len(ROWS) == short.passed
    assert expected == outcomes(server, resumed)


def test_the_packaged_model_says_the_same_streamed_and_whole(server: Server) -> None:
    chat = server.client().chat.completions
    asked: Any = {
        "model": "tiny-chat",
        "messages": [{"role": "user", "content": "Repeat: the red box 7"}],
        "seed": 5,
        "max_tokens": 24,
    }

    whole = chat.create(**asked)
    chunks = list(chat.create(**asked, stream=True, stream_options={"include_usage": True}))

    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert whole.choices[0].message.content == text
    assert text != ""
    assert whole.usage == chunks[-1].usage
