"""The grader endpoints, through the official SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_base import EQUAL, FakeEngine, Server, echo, make_eval
from openai import BadRequestError, NotFoundError

from reconciler.selfhosted.engine import Ask

SCORE = {
    "type": "score_model",
    "name": "judge",
    "model": "tiny",
    "input": [{"role": "user", "content": "Rate {{sample.output_text}}"}],
    "range": [0, 10],
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    def says(ask: Ask) -> str:
        return json.dumps({"steps": [], "result": 7}) if ask.response_format else echo(ask)

    with Server(tmp_path / "data", FakeEngine(says)).running() as running:
        yield running


def run(server: Server, grader: dict[str, Any], **more: Any) -> Any:
    graders = server.client.fine_tuning.alpha.graders
    return graders.run(grader=grader, **{"model_sample": "right", "item": {"expected": "right"}, **more})  # type: ignore[arg-type]


def test_a_grader_is_run_on_one_sample(server: Server) -> None:
    ran = run(server, EQUAL)

    assert (1.0, "same word", "string_check") == (ran.reward, ran.metadata.name, ran.metadata.type)
    assert not any(value for value in ran.metadata.errors.to_dict().values())
    assert ({}, {}) == (ran.sub_rewards, ran.api_model_grader_token_usage_per_model)


def test_multi_adds_up_its_members_and_their_tokens(server: Server) -> None:
    multi = {
        "type": "multi",
        "name": "both",
        "graders": {"same": EQUAL, "judge": SCORE},
        "calculate_output": "same + judge / 10",
    }

    ran = run(server, multi)

    assert 1.7 == pytest.approx(ran.reward)
    assert {"same": 1.0, "judge": 7.0} == ran.sub_rewards
    assert {"tiny"} == set(ran.api_model_grader_token_usage_per_model)


def test_the_samples_json_can_be_graded(server: Server) -> None:
    grader = {**EQUAL, "input": "{{sample.output_json.word}}"}

    ran = run(server, grader, model_sample='{"word": "right"}')
    unparsed = run(server, grader)

    assert (1.0, 0.0) == (ran.reward, unparsed.reward)
    assert unparsed.metadata.errors.sample_parse_error


def test_a_valid_grader_comes_back_and_an_invalid_one_is_explained(server: Server) -> None:
    graders = server.client.fine_tuning.alpha.graders

    valid: Any = graders.validate(grader=EQUAL)  # type: ignore[arg-type]
    with pytest.raises(BadRequestError, match="operation"):
        graders.validate(grader={**EQUAL, "operation": "near"})  # type: ignore[arg-type]
    with pytest.raises(BadRequestError, match="type must be one of"):
        graders.validate(grader={**SCORE, "type": "label_model"})  # type: ignore[arg-type]

    assert EQUAL == valid.to_dict()["grader"]


def test_python_that_cannot_be_read_is_refused_before_it_grades(server: Server) -> None:
    broken = {"type": "python", "name": "broken", "source": "def grade(sample, item):\n    return 1.0 +"}
    multi = {"type": "multi", "name": "both", "graders": {"it": broken}, "calculate_output": "it"}

    for grader in (broken, multi):
        with pytest.raises(BadRequestError, match="syntax"):
            server.client.fine_tuning.alpha.graders.validate(grader=grader)  # type: ignore[arg-type]
    with pytest.raises(BadRequestError, match=r"testing_criteria\[1\].*syntax"):
        make_eval(server, EQUAL, broken)

    assert [] == list(server.client.evals.list())


def test_without_isolation_python_is_refused_unless_the_operator_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no bubblewrap
    grader = {"type": "python", "name": "p", "source": "def grade(sample, item):\n    return 0.25"}

    with Server(tmp_path / "safe", FakeEngine()).running() as safe:
        with pytest.raises(BadRequestError, match="--unsafe-graders"):
            safe.client.fine_tuning.alpha.graders.validate(grader=grader)  # type: ignore[arg-type]
        with pytest.raises(BadRequestError, match="--unsafe-graders"):
            make_eval(safe, grader)
    with Server(tmp_path / "unsafe", FakeEngine(), unsafe_graders=True).running() as unsafe:
        ran = run(unsafe, grader)

    assert 0.25 == ran.reward


def test_a_judge_that_does_not_exist_is_a_404(server: Server) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        run(server, {**SCORE, "model": "nobody"})
