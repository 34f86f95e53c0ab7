"""A grader's definition is read whole before it grades: every problem is a sentence."""

from typing import Any

import pytest

from reconciler.selfhosted.grading import check

MESSAGE = {"role": "user", "content": "{{item.x}}"}
STRING = {"type": "string_check", "name": "s", "input": "a", "reference": "b", "operation": "eq"}
TEXT = {
    "type": "text_similarity",
    "name": "t",
    "input": "a",
    "reference": "b",
    "evaluation_metric": "bleu",
    "pass_threshold": 0.5,
}
SCORE = {"type": "score_model", "name": "m", "model": "judge", "input": [MESSAGE]}
LABEL = {
    "type": "label_model",
    "name": "l",
    "model": "judge",
    "input": [MESSAGE],
    "labels": ["a", "b"],
    "passing_labels": ["a"],
}
PYTHON = {"type": "python", "name": "p", "source": "def grade(sample, item):\n    return 1.0"}
MULTI = {"type": "multi", "name": "x", "graders": {"s": STRING, "t": TEXT}, "calculate_output": "s + t"}
SAMPLING = {"seed": 1, "top_p": 0.5, "temperature": 2, "max_completions_tokens": 9, "reasoning_effort": "low"}


def problems(grader: Any, *, allow_multi: bool = True, require_threshold: bool = True) -> list[str]:
    return check(grader, allow_multi=allow_multi, require_threshold=require_threshold)


@pytest.mark.parametrize(
    "grader",
    [
        STRING,
        STRING | {"operation": "neq", "id": "s-1", "pass_threshold": 1},
        TEXT,
        SCORE,
        SCORE | {"range": [1, 5.5], "pass_threshold": 3, "sampling_params": SAMPLING},
        SCORE | {"input": [MESSAGE | {"type": "message", "content": [{"type": "input_text", "text": "a"}]}]},
        LABEL,
        PYTHON,
        PYTHON | {"image_tag": "2025-05-08"},
        MULTI,
        MULTI | {"graders": STRING, "calculate_output": "s"},
        MULTI | {"graders": [STRING, TEXT]},
        MULTI | {"graders": {"p": PYTHON, "m": SCORE, "l": LABEL}, "calculate_output": "min(p, m, l)"},
    ],
)
def test_what_the_contract_allows_has_no_problem(grader: dict[str, Any]) -> None:
    assert [] == problems(grader)


@pytest.mark.parametrize(
    ("grader", "said"),
    [
        ("a string", "a grader is an object with a type, not a string"),
        ({}, "type is None"),
        ({"type": "endpoint", "name": "e"}, "type is 'endpoint'; a grader here is one of string_check"),
        ({"type": ["python"]}, "type is ['python']"),
        (STRING | {"name": ""}, "name is a string; it must be a string that is not empty"),
        (STRING | {"operation": "equals"}, "operation is 'equals'; it is one of eq, ne, neq, like, ilike"),
        (STRING | {"input": 3}, "input is a number; it must be a string"),
        (STRING | {"input": "{{ label }}"}, "input: {{ label }}: a variable starts with item. or sample."),
        (STRING | {"refrence": "x"}, "string_check has no field refrence; did you mean reference"),
        (TEXT | {"evaluation_metric": "rouge"}, "evaluation_metric is 'rouge'; it is one of fuzzy_match"),
        (TEXT | {"evaluation_metric": "cosine"}, "evaluation_metric cosine needs embeddings"),
        (TEXT | {"pass_threshold": None}, "text_similarity needs pass_threshold in an eval"),
        (TEXT | {"pass_threshold": "0.5"}, "pass_threshold is a string; it must be a finite number"),
        (TEXT | {"pass_threshold": float("nan")}, "pass_threshold is a number; it must be a finite number"),
        (TEXT | {"pass_threshold": 10**400}, "pass_threshold is a number; it must be a finite number"),
        (SCORE | {"model": ""}, "model is a string; it must be the name of a model"),
        (SCORE | {"input": "text"}, "input must be a list of messages that is not empty"),
        (SCORE | {"input": ["text"]}, "input[0] is a string; a message is an object with role and content"),
        (SCORE | {"input": [{"role": "robot", "content": "a"}]}, "input[0].role is 'robot'"),
        (SCORE | {"input": [{"role": "user"}]}, "input[0].content must be a string or parts"),
        (SCORE | {"input": [{"role": "user", "content": [{"type": "text"}]}]}, "parts of type input_text"),
        (SCORE | {"range": [1, 0]}, "range is [1, 0]; the first number must be the smaller one"),
        (SCORE | {"range": [0]}, "range must be two finite numbers"),
        (SCORE | {"sampling_params": {"top_p": 2}}, "sampling_params.top_p is 2"),
        (SCORE | {"sampling_params": {"top_k": 2}}, "sampling_params has no top_k"),
        (LABEL | {"labels": []}, "labels must be a list of strings that is not empty"),
        (LABEL | {"passing_labels": ["c"]}, "passing_labels has 'c', which is not one of labels"),
        (PYTHON | {"source": "x = 1"}, "source must define grade(sample, item)"),
        (PYTHON | {"source": "#" * 256_000}, "source has 256000 bytes; it must have less than 256000"),
        (MULTI | {"graders": {}}, "graders must be a map of names to graders that is not empty"),
        (MULTI | {"graders": {"s": "eq"}}, "graders must be a map of names to graders; one of them"),
        (MULTI | {"graders": {"s": STRING, "x": MULTI}}, "graders.x: type is 'multi'"),
        (MULTI | {"graders": {"s": STRING, "t": {"type": "python"}}}, "graders.t: python needs source"),
        (MULTI | {"calculate_output": "s + u"}, "calculate_output names u; the graders are s, t"),
        (MULTI | {"calculate_output": "s +"}, "calculate_output: the formula ends too early"),
        (MULTI | {"calculate_output": 1}, "calculate_output is a number; it must be a formula"),
    ],
)
def test_what_it_does_not_allow_is_said_in_a_sentence(grader: Any, said: str) -> None:
    found = problems(grader)

    assert any(said in sentence for sentence in found), found


@pytest.mark.parametrize("grader", [STRING, TEXT, SCORE, LABEL, PYTHON, MULTI])
def test_every_missing_field_is_named_at_once(grader: dict[str, Any]) -> None:
    needed = [field for field in grader if field not in ("type", "pass_threshold")]

    found = problems({"type": grader["type"]}, require_threshold=False)

    assert sorted(f"{grader['type']} needs {field}" for field in needed) == sorted(found)


def test_evals_have_no_multi_grader() -> None:
    (found,) = problems(MULTI, allow_multi=False)

    known = "string_check, text_similarity, score_model, label_model, python"
    assert f"type is 'multi'; a grader here is one of {known}" == found
