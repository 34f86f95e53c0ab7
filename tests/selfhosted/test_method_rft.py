"""Reinforcement: what a good row is, what `auto` means, and rewards that train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import training_base
from test_training import run

from reconciler.selfhosted.training import auto, formats, lines
from reconciler.selfhosted.training.job import ReinforcementHyperparameters
from reconciler.selfhosted.training.rows import Problem

# A word, and a stroke more for the colour: graders of two kinds, one of them a stranger's program.
GRADER = {
    "type": "multi",
    "name": "reward",
    "calculate_output": "0.5 * colour + 0.5 * short",
    "graders": {
        "colour": {
            "type": "string_check",
            "name": "colour",
            "operation": "like",
            "input": "{{ sample.output_text }}",
            "reference": "{{ item.colour }}",
        },
        "short": {
            "type": "python",
            "name": "short",
            "source": "def grade(sample, item):\n    return max(0.0, 1 - len(sample['output_text']) / 40)\n",
        },
    },
}


def graded(i: int) -> dict[str, Any]:
    messages = training_base.row(i)["messages"]
    return {"messages": messages[:-1], "colour": messages[-1]["content"].split()[0]}


def test_a_prompt_with_anything_beside_it_is_good() -> None:
    formats.check_reinforcement({**graded(0), "whatever": {"deep": [1]}})


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ([], "is not a JSON object"),
        (
            {"item": {}},
            "has no messages; the method reinforcement needs a prompt that ends with the user",
        ),
        ({"messages": []}, "its messages are not a list with at least one message"),
        (
            training_base.row(0),
            "does not end with a message of the user; the answer is for the model to write",
        ),
    ],
)
def test_a_bad_row_gets_a_sentence(row: Any, sentence: str) -> None:
    with pytest.raises(Problem) as raised:
        formats.check_reinforcement(row)

    assert sentence == str(raised.value)


def hyper(**asked: Any) -> ReinforcementHyperparameters:
    return ReinforcementHyperparameters(**asked)


def test_auto_is_eight_answers_six_validations_and_one_sample_of_each() -> None:
    assert (8, 10, 1) == auto.layout(hyper(), 60)
    assert (16, 5, 3) == auto.layout(hyper(compute_multiplier=2, eval_interval=5, eval_samples=3), 60)
    assert 2 == auto.layout(hyper(compute_multiplier=0.01), 60).group
    assert 64 == auto.layout(hyper(compute_multiplier=10), 60).group


def test_every_epoch_asks_other_rows_in_whole_batches() -> None:
    plan = auto.plan(hyper(n_epochs=2, batch_size=4), 10, 4, 10, 1000, whole_batches=True)

    asked = auto.order(10, plan, seed=1)

    assert (2, 16) == (plan.steps_per_epoch, len(asked))
    assert 8 == len(set(asked[:8])) == len(set(asked[8:]))
    assert asked[:8] != asked[8:]
    assert asked == auto.order(10, plan, seed=1)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shelf = tmp_path_factory.mktemp("shelf")
    base = training_base.base_model(shelf / "base")
    (base / "generation_config.json").write_text(json.dumps({"max_new_tokens": 8, "eos_token_id": 0}))
    training_base.write_rows(shelf / "training.jsonl", [graded(i) for i in range(16)])
    training_base.write_rows(shelf / "validation.jsonl", [graded(i) for i in range(16, 20)])
    return shelf


def rft_job(shelf: Path, folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    hyperparameters = {"n_epochs": 4, "batch_size": 8, "eval_interval": 2, "compute_multiplier": 0.5}
    reinforcement = {"grader": GRADER, "hyperparameters": hyperparameters}
    wanted = {
        "id": "ftjob-1",
        "model": {"path": str(shelf / "base")},
        "training_file": str(shelf / "training.jsonl"),
        "validation_file": str(shelf / "validation.jsonl"),
        "method": {"type": "reinforcement", "reinforcement": reinforcement},
        "seed": 7,
        "tuning": {"type": "lora", "rank": 4},
        "threads": 1,
        "save_every_s": 0,
    }
    (folder / "job.json").write_text(json.dumps(wanted | changes))
    return folder


def test_without_a_validation_file_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    error = run(rft_job(tmp_path, tmp_path / "job", validation_file=None))["error"]

    assert ("missing_validation_file", "validation_file") == (error["code"], error["param"])


@pytest.fixture(scope="module")
def whole(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job that nobody interrupted."""
    folder = rft_job(shelf, tmp_path_factory.mktemp("whole") / "job")
    assert "succeeded" == run(folder)["status"]
    return folder


@pytest.mark.train
def test_what_auto_was_is_told_with_the_result(whole: Path) -> None:
    result = json.loads((whole / "result.json").read_text())

    assert result["trained_tokens"] > 0
    assert {
        "n_epochs": 4,
        "batch_size": 8,
        "learning_rate_multiplier": 1.0,
        "reasoning_effort": "default",
        "compute_multiplier": 0.5,
        "eval_interval": 2,
        "eval_samples": 1,
    } == result["hyperparameters"]


@pytest.mark.train
def test_the_story_is_told_in_rewards_and_the_best_three_models_are_kept(whole: Path) -> None:
    folder = whole

    events = {event["key"]: event for event in lines.read(folder / "events.jsonl")}
    last = events["step-8"]["data"]
    assert {"train_reward_mean", "valid_reward_mean", "graders"} == last["scores"].keys()
    assert ["colour", "short"] == [each["name"] for each in last["scores"]["graders"]]
    assert last["scores"]["valid_reward_mean"] == last["full_valid_mean_reward"]
    assert events["step-8"]["message"].startswith("Step 8/8: training reward=")
    listed = lines.read(folder / "checkpoints.jsonl")
    assert [2, 4, 6, 8] == [each["step_number"] for each in listed]
    ranked = sorted(listed, key=lambda each: (each["metrics"]["full_valid_mean_reward"], each["step_number"]))
    kept = {f"step-{each['step_number']}" for each in ranked[1:]}
    assert kept == {path.name for path in (folder / "models").iterdir()}
    assert (folder / "model" / "adapter_model.safetensors").exists()


@pytest.mark.train
def test_a_response_format_holds_from_the_first_sample_and_a_model_may_be_the_judge(
    shelf: Path, tmp_path: Path
) -> None:
    schema = {"type": "object", "properties": {"c": {"enum": ["red", "blue"]}}, "required": ["c"]}
    form = {
        "type": "json_schema",
        "json_schema": {"name": "c", "schema": schema | {"additionalProperties": False}},
    }
    judged = {"type": "score_model", "name": "judged", "model": "judge", "range": [0, 1]}
    judged["input"] = [{"role": "user", "content": "{{ item.colour }}? {{ sample.output_text }}"}]
    judged["sampling_params"] = {"max_completion_tokens": 4}
    formed = {"type": "python", "name": "formed", "source": FORMED}
    grader = {"type": "multi", "name": "reward", "calculate_output": "formed + 0 * judged"}
    reinforcement = {
        "grader": grader | {"graders": {"formed": formed, "judged": judged}},
        "hyperparameters": {"n_epochs": 1, "batch_size": 8, "compute_multiplier": 0.25},
        "response_format": form,
    }
    base = training_base.base_model(tmp_path / "base")
    (base / "generation_config.json").write_text(json.dumps({"max_new_tokens": 64, "eos_token_id": 0}))
    folder = rft_job(
        shelf,
        tmp_path / "job",
        model={"path": str(base)},
        judges={"judge": str(base)},
        method={"type": "reinforcement", "reinforcement": reinforcement},
    )

    run(folder)

    events = {event["key"]: event for event in lines.read(folder / "events.jsonl")}
    first = events["step-1"]["data"]
    assert 1.0 == first["train_mean_reward"]
    # A model that never learned to judge gives no verdict, and that is said of every answer.
    assert 16 == first["errors"]["model_grader_parse_error"]
    assert first["model_graders_token_usage"]["judge"]["completion_tokens"] > 0


FORMED = """
import json
def grade(sample, item):
    return float(json.loads(sample["output_text"])["c"] in ("red", "blue"))
"""
