"""What a plan says of a gate before anything is measured, and what a rule refuses to ask."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from reconciler.evidence import Rule
from reconciler.foresight import Expectation, foresee
from reconciler.kinds.promotionrule import PromotionRuleSpec
from reconciler.kinds.promotionrule import foresee as foresee_rule

LEVEL = 0.025


def spec(*gates: dict[str, object], **more: object) -> PromotionRuleSpec:
    body = {"channel": "c", "candidates": ["Model/a"], "baseline": "Model/b", "gates": list(gates)}
    return PromotionRuleSpec.model_validate(body | more)


@pytest.mark.parametrize("rule, n, expected, sentence", [
    (Rule("pass_rate", "at_least", 0.8), 240, Expectation(),
     "n=240: needs a true 87.0% to pass 80% of the time, 2% at 80.0%"),
    (Rule("pass_rate", "at_least", 0.8), 240, Expectation(rate=0.9),
     "n=240: needs a true 87.0% to pass 80% of the time, passes 99% at 90.0%, 2% at 80.0%"),
    (Rule("fail_rate", "at_most", 0.01), 100, Expectation(),
     "n=100: cannot pass, it takes 368 items without a single miss"),
    (Rule("fail_rate", "at_most", 0.05), 400, Expectation(),
     "n=400: needs a true 2.3% to pass 80% of the time, 2% at 5.0%"),
    (Rule("pass_rate", "improves_by", 0.1), 240, Expectation(effect=0.2),
     "n=240, if they differ on 20%: detects +17.0 points, passes 0% if equal, 99% if better by +20.0 points"),
    (Rule("pass_rate", "not_worse_than", 0.02), 200, Expectation(disagreement=0.1),
     "n=200, if they differ on 10%: detects +4.2 points, passes 13% if equal"),
    (Rule("mean_score", "not_worse_than", 0.02), 400, Expectation(spread=0.2),
     "n=400, if differences spread by 0.2: detects +0.008, passes 52% if equal"),
    (Rule("mean_score", "at_most", 3.0), 100, Expectation(spread=1.0),
     "n=100: needs a true 2.720 to pass 80% of the time, 3% at 3.000"),
])  # fmt: skip
def test_a_gate_says_what_it_can_tell(rule: Rule, n: int, expected: Expectation, sentence: str) -> None:
    assert sentence == foresee(rule, n, LEVEL, expected)


def test_a_rule_foresees_each_gate_at_the_level_it_will_be_held_against() -> None:
    gate = {"eval": "Eval/e", "improves_by": 0.0}

    alone, primary = (
        spec(gate),
        spec(gate | {"primary": True}, gate | {"primary": True}, candidates=["Model/a", "Model/c"]),
    )

    assert [
        "gates[0] e pass_rate better by more than 0 points: "
        "n=200, if they differ on 20%: detects +9.1 points, passes 2% if equal"
    ] == foresee_rule(alone, {"Eval/e": 200})
    assert all(
        "detects +10.7 points, passes 0% if equal" in line for line in foresee_rule(primary, {"Eval/e": 200})
    )


def test_what_holds_at_any_time_takes_more() -> None:
    gate = {"eval": "Eval/e", "improves_by": 0.0}

    assert "detects +11.8 points" in foresee_rule(spec(gate, anytime=True), {"Eval/e": 200})[0]


@pytest.mark.parametrize("gate, more, sentence", [
    ({"at_least": 1.0}, {}, "at_least lies between 0 and 1: a finite number of items never shows 1"),
    ({"metric": "fail_rate", "at_most": 0.0}, {}, "at_most lies between 0 and 1"),
    ({"at_least": 0.5, "primary": True}, {}, "primary marks what has to improve; it goes with improves_by"),
    ({"at_least": 0.5, "calibration": {"good": 10, "good_passed": 5, "bad": 10, "bad_failed": 5}}, {},
     "no better than guessing"),
    ({"at_least": 0.5, "calibration": {"good": 10, "good_passed": 11, "bad": 10, "bad_failed": 5}}, {},
     "good_passed is a part of good"),
    ({"at_least": 0.5, "calibration": {"good": 10, "good_passed": 9, "bad": 10, "bad_failed": 9}}, {"anytime": True},
     "anytime and a calibration do not go together"),
    ({"at_least": 0.5}, {"confidence": 0.9999999999999999}, "less than or equal to 0.999999"),
])  # fmt: skip
def test_a_rule_that_no_result_could_satisfy_is_refused(
    gate: dict[str, object], more: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValidationError, match=sentence):
        spec({"eval": "Eval/e"} | gate, **more)


def test_what_is_expected_is_no_part_of_what_is_asked() -> None:
    from reconciler import fingerprint

    plain, hopeful = (
        {"eval": "Eval/e", "improves_by": 0.1} | extra for extra in ({}, {"expect": {"effect": 0.2}})
    )
    content = [
        fingerprint.content(spec(gate), {}, lambda _, address: str(address)) for gate in (plain, hopeful)
    ]

    assert content[0] == content[1]


def test_foreseeing_imports_neither_scipy_nor_numpy() -> None:
    code = (
        "import sys; from reconciler.foresight import *; from reconciler.evidence import Rule;"
        "foresee(Rule('pass_rate', 'improves_by', 0.1), 200, 0.025, Expectation());"
        "foresee(Rule('pass_rate', 'at_least', 0.8), 200, 0.025, Expectation());"
        "print({'scipy', 'numpy'} & sys.modules.keys())"
    )

    assert (
        "set()\n"
        == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )
