"""What each grader says about an answer, and how it says that it could not tell."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.selfhosted import grading
from reconciler.selfhosted.grading import Grade, JudgeAnswer, JudgeFailed, Sandbox, sample_of
from reconciler.selfhosted.grading.grades import FLAGS
from reconciler.selfhosted.grading.similarity import METRICS, similarity

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@dataclass
class Says:
    """A judge that always says the same, and remembers what it was asked."""

    text: str = ""
    refusal: str | None = None
    broken: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def ask(
        self, model: str, messages: list[dict[str, Any]], response_format: Any, sampling: dict[str, Any]
    ) -> JudgeAnswer:
        self.asked.append({"model": model, "messages": messages, "format": response_format} | sampling)
        if self.broken:
            raise JudgeFailed(self.broken)
        return JudgeAnswer(self.text, USAGE, self.refusal)


def graded(
    grader: Mapping[str, Any], item: Mapping[str, Any], answer: str, judge: Says | None = None
) -> Grade:
    assert [] == grading.check(grader, allow_multi=True, require_threshold=False)

    async def once() -> Grade:
        sandbox = Sandbox()
        try:
            return await grading.grade(
                grader, item, sample_of(answer), judge=judge or Says(), sandbox=sandbox
            )
        finally:
            await sandbox.close()

    return asyncio.run(once())


def raised(grade: Grade) -> list[str]:
    return [flag for flag in FLAGS if grade.metadata["errors"][flag]]


def string_check(operation: str = "eq", **more: Any) -> dict[str, Any]:
    return {
        "type": "string_check",
        "name": "check",
        "input": "{{sample.output_text}}",
        "reference": "{{item.label}}",
        "operation": operation,
    } | more


def score_model(**more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": "score {{sample.output_text}}"}
    return {"type": "score_model", "name": "score", "model": "judge", "input": [message]} | more


LABEL_MODEL = {
    "type": "label_model",
    "name": "label",
    "model": "judge",
    "input": [{"role": "user", "content": "label {{item.label}}"}],
    "labels": ["good", "fair", "bad"],
    "passing_labels": ["good", "fair"],
}


@pytest.mark.parametrize(
    ("operation", "answer", "label", "score"),
    [
        ("eq", "Paris", "Paris", 1.0),
        ("eq", "Paris ", "Paris", 0.0),
        ("eq", "paris", "Paris", 0.0),
        ("ne", "Rome", "Paris", 1.0),
        ("ne", "Paris", "Paris", 0.0),
        ("neq", "Rome", "Paris", 1.0),
        ("like", "It is Paris.", "Paris", 1.0),
        ("like", "It is paris.", "Paris", 0.0),
        ("like", "Par", "Paris", 0.0),
        ("ilike", "It is PARIS.", "Paris", 1.0),
        ("ilike", "It is Rome.", "Paris", 0.0),
    ],
)
def test_string_check_compares_two_rendered_texts(
    operation: str, answer: str, label: str, score: float
) -> None:
    grade = graded(string_check(operation), {"label": label}, answer)

    assert (score, score == 1.0, None) == (grade.score, grade.passed, grade.error)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_runs_from_0_for_nothing_in_common_to_high_for_the_same(metric: str) -> None:
    text = "the quick brown fox jumps over the lazy dog"

    assert 0.99 < similarity(metric, text, text) <= 1.0
    assert 0.0 == pytest.approx(similarity(metric, "zzzz qqqq", text), abs=0.2)
    assert 0.0 <= similarity(metric, "", "") <= 1.0
    assert similarity(metric, "zzz zzz", text) < similarity(metric, text[:30], text) < 1.0


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("fuzzy_match", 2 * 20 / (24 + 21)),  # twice the common characters over all characters
        ("bleu", (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25),
        ("gleu", (4 + 3 + 2 + 1) / (5 + 4 + 3 + 2)),
        ("meteor", 1 - 0.5 * (1 / 5) ** 3),  # all five match, the last by its stem, in one chunk
        ("rouge_1", 4 / 5),
        ("rouge_2", 3 / 4),
        ("rouge_3", 2 / 3),
        ("rouge_4", 1 / 2),
        ("rouge_5", 0 / 1),
        ("rouge_l", 4 / 5),
    ],
)
def test_a_metric_has_the_value_that_its_definition_gives_by_hand(metric: str, expected: float) -> None:
    score = similarity(metric, "the old cat sits running", "the old cat sits runs")

    assert expected == pytest.approx(score, abs=1e-9)


def test_text_similarity_passes_from_its_threshold_on() -> None:
    grader = {
        "type": "text_similarity",
        "name": "alike",
        "input": "{{sample.output_text}}",
        "reference": "abcd",
        "evaluation_metric": "fuzzy_match",
        "pass_threshold": 0.75,
    }

    assert (0.75, True) == (graded(grader, {}, "abxd").score, graded(grader, {}, "abxd").passed)
    assert not graded(grader, {}, "axxd").passed
    assert ["other_error"] == raised(graded(grader, {}, "x" * 100_001))


@pytest.mark.parametrize(
    ("said", "score", "flags"),
    [
        ('{"steps": [], "result": 0.7}', 0.7, []),
        ('{"result": 9}', 1.0, []),
        ('{"result": -9}', 0.0, []),
        ('{"result": "0.9"}', 0.0, ["model_grader_parse_error"]),
        ('{"result": true}', 0.0, ["model_grader_parse_error"]),
        ('{"result": NaN}', 0.0, ["model_grader_parse_error"]),
        ('{"result": Infinity}', 0.0, ["model_grader_parse_error"]),
        ('{"result": 1' + "0" * 400 + "}", 0.0, ["model_grader_parse_error"]),
        ('{"score": 1}', 0.0, ["model_grader_parse_error"]),
        ("[0.9]", 0.0, ["model_grader_parse_error"]),
        ("0.9", 0.0, ["model_grader_parse_error"]),
        ("very good", 0.0, ["model_grader_parse_error"]),
        ("[" * 100_000, 0.0, ["model_grader_parse_error"]),
    ],
)
def test_score_model_clips_numbers_and_scores_anything_else_0(
    said: str, score: float, flags: list[str]
) -> None:
    grade = graded(score_model(), {}, "an answer", Says(said))

    assert (score, flags) == (grade.score, raised(grade))
    assert grade.passed == (score >= 0.5 and not flags)
    assert {"judge": USAGE} == grade.usage


def test_score_model_asks_for_structured_output_in_the_words_of_chat_completions() -> None:
    judge = Says('{"steps": [], "result": 4}')
    params = {"max_completions_tokens": 50, "seed": 7, "temperature": None}

    grade = graded(score_model(range=[1, 5], sampling_params=params), {}, "hello", judge)

    assert (4.0, True) == (grade.score, grade.passed)
    asked = judge.asked[0]
    schema = asked.pop("format")["json_schema"]["schema"]
    assert ["steps", "result"] == schema["required"]
    assert {
        "model": "judge",
        "messages": [{"role": "user", "content": "score hello"}],
        "seed": 7,
        "max_completion_tokens": 50,
    } == asked
    assert (USAGE, "judge") == (grade.metadata["token_usage"], grade.metadata["sampled_model_name"])


@pytest.mark.parametrize(
    ("said", "score", "flags"),
    [
        ('{"label": "good"}', 1.0, []),
        ('{"label": "fair", "steps": []}', 1.0, []),
        ('{"label": "bad"}', 0.0, []),
        ('{"label": "Good"}', 0.0, ["model_grader_parse_error"]),
        ('{"label": ["good"]}', 0.0, ["model_grader_parse_error"]),
        ("good", 0.0, ["model_grader_parse_error"]),
    ],
)
def test_label_model_passes_on_passing_labels_only(said: str, score: float, flags: list[str]) -> None:
    grade = graded(LABEL_MODEL, {"label": "x"}, "", Says(said))

    assert (score, score == 1.0, flags) == (grade.score, grade.passed, raised(grade))


@pytest.mark.parametrize("grader", [score_model(), LABEL_MODEL])
def test_a_judge_that_fails_or_refuses_gives_no_score(grader: dict[str, Any]) -> None:
    failed = graded(grader, {"label": ""}, "", Says(broken="503 from the judge"))
    refused = graded(grader, {"label": ""}, "", Says(refusal="no"))

    assert (0.0, False, ["model_grader_server_error"]) == (failed.score, failed.passed, raised(failed))
    assert "503 from the judge" == failed.metadata["errors"]["model_grader_server_error_details"]
    assert (0.0, False, ["model_grader_refusal_error"]) == (refused.score, refused.passed, raised(refused))


MULTI = {
    "type": "multi",
    "name": "both",
    "graders": {"exact": string_check(), "judged": score_model()},
    "calculate_output": "0.25 * exact + 0.75 * judged",
}


def test_multi_combines_its_members_by_its_formula() -> None:
    grade = graded(MULTI, {"label": "hi"}, "hi", Says('{"result": 0.4}'))

    assert (pytest.approx(0.55), True) == (grade.score, grade.passed)
    assert {"exact": 1.0, "judged": 0.4} == grade.sub_rewards == grade.metadata["scores"]
    assert {"judge": USAGE} == grade.usage


def test_multi_accepts_the_single_grader_of_the_schema_and_the_list_of_its_example() -> None:
    one = MULTI | {"graders": string_check(), "calculate_output": "check"}
    many = MULTI | {"graders": [string_check()], "calculate_output": "check / 2"}

    assert (1.0, 0.5) == (
        graded(one, {"label": "a"}, "a").score,
        graded(many, {"label": "a"}, "a").score,
    )


def test_a_member_that_fails_counts_0_and_its_error_stays() -> None:
    grade = graded(MULTI, {"label": "hi"}, "hi", Says("nonsense"))

    assert (0.25, False, ["model_grader_parse_error"]) == (grade.score, grade.passed, raised(grade))
    assert grade.error is not None and grade.error.startswith("judged: ")


def test_a_formula_without_a_finite_value_is_a_formula_error() -> None:
    grade = graded(MULTI | {"calculate_output": "1 / (exact - exact)"}, {"label": "a"}, "a", Says("{}"))

    assert (0.0, False) == (grade.score, grade.passed)
    assert "formula_parse_error" in raised(grade)


@pytest.mark.parametrize(
    ("reference", "answer", "flag"),
    [
        ("{{item.absent}}", "a", "invalid_variable_error"),
        ("{{sample.absent}}", "a", "invalid_variable_error"),
        ("{{sample.output_json.kind}}", "not json", "sample_parse_error"),
        ("{{sample.output_json.kind}}", '{"sort": 1}', "sample_parse_error"),
        ("{{sample.output_tools[0].function.name}}", "no call", "sample_parse_error"),
    ],
)
def test_a_variable_that_leads_nowhere_says_whose_fault_it_is(reference: str, answer: str, flag: str) -> None:
    grade = graded(string_check("ne", reference=reference), {}, answer)

    assert (0.0, False, [flag]) == (grade.score, grade.passed, raised(grade))
    assert grade.error is not None and reference.strip("{}") in grade.error


def test_metadata_is_the_object_of_the_contract() -> None:
    grade = graded(string_check(), {"label": "a"}, "a")

    assert 14 == len(grade.metadata["errors"])
    assert ("check", "string_check") == (grade.metadata["name"], grade.metadata["type"])
    assert grade.metadata["execution_time"] >= 0
    assert json.loads(json.dumps(grade.metadata)) == grade.metadata
