"""Preference tuning: what a good pair is, how it becomes tokens, and that it trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import training_base
from test_training import run

from reconciler.selfhosted.training import formats, job, lines
from reconciler.selfhosted.training.rows import Problem


def pair(i: int, names: tuple[str, str] = ("preferred_output", "non_preferred_output")) -> dict[str, Any]:
    """The same answer, politely and not."""
    *prompt, answer = training_base.row(i)["messages"]
    polite = {"role": "assistant", "content": f"{answer['content']}, please"}
    return {"input": {"messages": prompt}, names[0]: [polite], names[1]: [answer]}


BY_SPEC = ("preferred_completion", "non_preferred_completion")


@pytest.mark.parametrize("names", [("preferred_output", "non_preferred_output"), BY_SPEC])
def test_both_spellings_of_a_pair_are_good(names: tuple[str, str]) -> None:
    formats.check_preference(pair(0, names))


ASSISTANT = [{"role": "assistant", "content": "yes"}]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"input": None}, "has no input with messages"),
        ({"input": {"messages": []}}, "its messages are not a list with at least one message"),
        ({"preferred_output": []}, "its preferred_output is not a list of exactly one message"),
        ({"preferred_output": ASSISTANT * 2}, "its preferred_output is not a list of exactly one message"),
        ({"non_preferred_output": None}, "its non_preferred_output is not a list of exactly one message"),
        (
            {"preferred_output": [{"role": "user", "content": "yes"}]},
            "its preferred_output is not a message of the assistant",
        ),
        (
            {"preferred_output": [{"role": "assistant"}]},
            "in its preferred_output message 1 has no content",
        ),
        (
            {"preferred_output": ASSISTANT, "non_preferred_output": ASSISTANT},
            "prefers an answer to itself; there is nothing to learn from it",
        ),
        (
            {"messages": ASSISTANT},
            "is a chat row; the method dpo needs input, preferred_output and non_preferred_output",
        ),
    ],
)
def test_a_bad_pair_gets_a_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Problem) as raised:
        formats.check_preference(pair(0) | change)

    assert sentence == str(raised.value)


@pytest.mark.parametrize(
    "template", [training_base.MARKED, training_base.UNMARKED], ids=["marked", "unmarked"]
)
def test_a_pair_is_one_prompt_and_two_answers(template: str) -> None:
    from reconciler.selfhosted.training.encode import Encoder
    from reconciler.selfhosted.training.preference import pair as tokens

    tokenizer = training_base.tokenizer(template)
    row = pair(0)
    row["input"]["messages"].insert(1, {"role": "assistant", "content": "Ready.", "weight": 1})

    prompt, chosen, rejected = (tokenizer.decode(ids) for ids in tokens(Encoder(tokenizer, 128), row))

    assert prompt.endswith("There is a door, and it is red.<|end|><|assistant|>")
    assert "<|assistant|>Ready.<|end|>" in prompt
    assert ("red door, please<|end|>", "red door<|end|>") == (chosen, rejected)


def dpo_job(shelf: Path, folder: Path, tuning: dict[str, Any], **asked: Any) -> Path:
    folder.mkdir()
    hyperparameters = {"n_epochs": 3, "batch_size": 8, "beta": 0.2} | asked
    wanted = {
        "id": "ftjob-1",
        "model": {"path": str(shelf / "base")},
        "training_file": str(shelf / "training.jsonl"),
        "validation_file": str(shelf / "validation.jsonl"),
        "method": {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}},
        "seed": 7,
        "tuning": tuning,
        "threads": 1,
        "save_every_s": 0,
    }
    (folder / "job.json").write_text(json.dumps(wanted))
    return folder


def test_beta_is_between_0_and_2(tmp_path: Path) -> None:
    folder = dpo_job(tmp_path, tmp_path / "job", {"type": "full"}, beta=2.5)

    with pytest.raises(Exception, match="beta"):
        job.read(folder / "job.json")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shelf = tmp_path_factory.mktemp("shelf")
    training_base.base_model(shelf / "base", attention_dropout=0.1)
    training_base.write_rows(shelf / "training.jsonl", [pair(i) for i in range(32)])
    training_base.write_rows(shelf / "validation.jsonl", [pair(i, BY_SPEC) for i in range(32, 40)])
    return shelf


@pytest.mark.train
@pytest.mark.parametrize("tuning", [{"type": "full"}, {"type": "lora", "rank": 4}], ids=["full", "lora"])
def test_what_is_preferred_becomes_likelier_than_what_is_not(
    shelf: Path, tmp_path: Path, tuning: dict[str, Any]
) -> None:
    whole = dpo_job(shelf, tmp_path / "whole", tuning)

    result = run(whole)

    assert {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1.0, "beta": 0.2} == (
        result["hyperparameters"]
    )
    last = next(event["data"] for event in lines.read(whole / "events.jsonl") if event["key"] == "step-12")
    assert last["full_valid_reward_accuracy"] > 0.5
    assert last["full_valid_reward_margin"] > 0
    names = {file.name for file in (whole / "model").iterdir()}
    assert "ref" not in names  # the reference was computed, not kept
