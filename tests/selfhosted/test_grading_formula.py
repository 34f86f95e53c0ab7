"""The formula of a multi grader is arithmetic over floats, and nothing can make it more than that."""

import math

import pytest

from reconciler.selfhosted.grading import formula
from reconciler.selfhosted.grading.formula import FormulaError

SCORES = {"a": 0.5, "b": 2.0, "min_score": 1.0}


def value(text: str) -> float:
    return formula.evaluate(formula.parse(text), SCORES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1.0),
        (".5 + 1.", 1.5),
        ("1e3", 1000.0),
        ("a", 0.5),
        ("0.5 * a + 0.5 * b", 1.25),
        ("1 - 2 - 3", -4.0),
        ("8 / 2 / 2", 2.0),
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("-2 ^ 2", -4.0),
        ("2 ^ -1", 0.5),
        ("--a", 0.5),
        ("+a - -b", 2.5),
        ("min(a, b, 0.1)", 0.1),
        ("max(a)", 0.5),
        ("min_score + min(1, 2)", 2.0),
        ("abs(a - b)", 1.5),
        ("floor(1.7) + ceil(1.2)", 3.0),
        ("exp(0) + sqrt(4) + log(1)", 3.0),
        ("log(exp(2))", 2.0),
        ("max(0, min(1, a * b))", 1.0),
    ],
)
def test_a_formula_has_the_value_of_its_arithmetic(text: str, expected: float) -> None:
    assert expected == pytest.approx(value(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", "divides by zero"),
        ("a / (b - 2)", "divides by zero"),
        ("log(0)", "has none"),
        ("sqrt(-1)", "has none"),
        ("(-8) ^ 0.5", "has none"),
        ("0 ^ -1", "has none"),
        ("exp(1000)", "too large"),
        ("10 ^ 10 ^ 10", "too large"),
        ("1e400", "not a finite number"),
        ("1e308 * 10", "not a finite number"),
        ("1e400 - 1e400", "not a finite number"),
        ("c", "names c"),
    ],
)
def test_what_has_no_finite_value_is_a_formula_error(text: str, said: str) -> None:
    with pytest.raises(FormulaError, match=said):
        value(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "1 +",
        "(1",
        "1)",
        "0.5 * a +  0.5 * b)",
        "1 2",
        "a b",
        "* 1",
        "1 ** 2",
        "1 // 2",
        "a % b",
        "min()",
        "abs(1, 2)",
        "pow(1, 2)",
        "a.b",
        "a[0]",
        "'a'",
        "a = 1",
        "a; b",
        "lambda: 1",
        "a if b else a",
        "__import__('os')",
        "x(1)",
        "1, 2",
        "1_000",
        "0x10",
        "ⅷ",
        "(" * 100_000,
        "(" * 60 + "1" + ")" * 60,
        "-" * 300 + "1",
        "+".join(["1"] * 1_000),
    ],
)
def test_what_is_not_a_formula_is_a_formula_error(text: str) -> None:
    with pytest.raises(FormulaError):
        formula.parse(text)


def test_the_longest_formula_that_parses_also_evaluates() -> None:
    assert 200.0 == value("+".join(["1"] * 200))
    assert 1.0 == value("^".join(["1"] * 35))
    assert {"a"} == formula.names(formula.parse("*".join(["a"] * 200)))
    assert math.isclose(0.5, value("(" * 39 + "a" + ")" * 39))
