"""Which tokens carry the loss."""

from __future__ import annotations

from typing import Any

import pytest
import training_base

from reconciler.selfhosted.training.failures import Failure

SYSTEM = {"role": "system", "content": "Be  brief. "}
ASK = {"role": "user", "content": "A red hat?"}
SAY = {"role": "assistant", "content": " Yes, red.\n"}
TALK = [SYSTEM, ASK, SAY, ASK, {"role": "assistant", "content": "No"}]
TEMPLATES = {"marked": training_base.MARKED, "unmarked": training_base.UNMARKED}


def encoded(row: dict[str, Any], template: str, max_length: int = 200) -> Any:
    from reconciler.selfhosted.training.encode import Encoder

    return Encoder(training_base.tokenizer(template), max_length).encode([(1, row)], "training_file")


def learnt(row: dict[str, Any], template: str, max_length: int = 200) -> list[str]:
    """What each example teaches, as text."""
    decode = training_base.tokenizer(template).decode
    examples = encoded(row, template, max_length).dataset
    return [decode([token for token in example["labels"] if token != -100]) for example in examples]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_only_what_the_assistant_said_is_learnt_with_its_end(template: str) -> None:
    assert [" Yes, red.\n<|end|>No<|end|>"] == learnt({"messages": TALK}, template)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_turn_of_weight_0_is_read_and_not_learnt(template: str) -> None:
    weighted = [SYSTEM, ASK, SAY | {"weight": 0}, ASK, {"role": "assistant", "content": "No", "weight": 1}]

    assert ["No<|end|>"] == learnt({"messages": weighted}, template)
    assert (
        encoded({"messages": TALK}, template).dataset[0]["input_ids"]
        == encoded({"messages": weighted}, template).dataset[0]["input_ids"]
    )


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_tool_calls_are_learnt_and_tools_and_their_answers_are_read(template: str) -> None:
    function = {"name": "find", "arguments": '{"thing":   "hat"}'}
    row = {
        "messages": [
            ASK,
            {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "1", "content": "red"},
            SAY,
        ],
        "tools": [{"type": "function", "function": {"name": "find", "parameters": {}}}],
    }

    assert ['<call>find {"thing": "hat"}<|end|> Yes, red.\n<|end|>'] == learnt(row, template)
    ids = encoded(row, template).dataset[0]["input_ids"]
    assert '"parameters": {}' in training_base.tokenizer(template).decode(ids)


def test_a_template_that_rewrites_the_past_makes_an_example_of_each_turn() -> None:
    thinking = training_base.UNMARKED.replace(
        "{{ m.content }}{% for", "{% if loop.last %}<think>{% endif %}{{ m.content }}{% for"
    )

    assert ["<think> Yes, red.\n<|end|>", "<think>No<|end|>"] == learnt({"messages": TALK}, thinking)


def test_a_row_that_is_too_long_loses_its_end() -> None:
    whole = encoded({"messages": TALK}, training_base.MARKED)
    cut = encoded({"messages": TALK}, training_base.MARKED, max_length=whole.longest - 3)

    assert (0, 1) == (whole.truncated, cut.truncated)
    assert whole.dataset[0]["input_ids"][:-3] == cut.dataset[0]["input_ids"]


def test_a_row_with_nothing_to_learn_is_left_out_and_a_file_of_them_refused() -> None:
    from reconciler.selfhosted.training.encode import Encoder

    silent = {"messages": [ASK, SAY | {"weight": 0}]}
    encoder = Encoder(training_base.tokenizer(), 200)

    both = encoder.encode([(1, silent), (2, {"messages": TALK})], "training_file")
    assert (1, 1) == (both.silent, len(both.dataset))
    with pytest.raises(Failure, match="has an assistant turn to learn"):
        encoder.encode([(1, silent)], "training_file")


def test_a_row_that_the_template_refuses_is_named_and_not_quoted() -> None:
    refusing = "{{ raise_exception('hunter2') }}"

    with pytest.raises(Failure) as caught:
        encoded({"messages": TALK}, refusing)

    assert "invalid_training_file" == caught.value.code
    assert caught.value.message.startswith("row 1: the chat template of the base model refuses")
    assert "hunter2" not in caught.value.message
