"""A judge measured on answers that people judged: what it says is corrected, and what it could not say is no help."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from reconciler import gates
from reconciler.evidence import ItemResult, Measured, Rule
from reconciler.gates import Verdict
from reconciler.judge import Judge, counted
from reconciler.stats.proportions import Calibration

SHARP = Judge(100, 95, 0, 100, 90, 0)
RULES = [
    Rule("pass_rate", "at_least", 0.7),
    Rule("fail_rate", "at_most", 0.3),
    Rule("pass_rate", "improves_by", 0.05),
    Rule("pass_rate", "not_worse_than", 0.1),
]


def of(passed: int, n: int, judge: Judge | None = None) -> Measured:
    return Measured(
        {str(i): ItemResult(float(i < passed), float(i < passed)) for i in range(n)}, n, judge=judge
    )


def item(truth: Any, passed: bool, status: str | None = None) -> dict[str, Any]:
    return {
        "datasource_item": {"good": truth},
        "status": status or ("pass" if passed else "fail"),
        "results": [{"name": "judge", "passed": passed}, {"name": "other", "passed": True}],
    }


def test_a_judge_is_counted_by_the_truth_that_people_wrote() -> None:
    items = [item(True, True)] * 5 + [item(True, False)] * 2 + [item(False, False)] * 4 + [item(False, True)]

    assert Judge(7, 5, 0, 5, 4, 0) == counted(items, 12, "judge", "good")
    assert Judge(7, 7, 0, 5, 0, 0) == counted(items, 12, "other", "good")
    assert Judge(7, 5, 0, 5, 4, 0) == counted(items, 12, None, "good")


def test_what_it_could_not_grade_and_what_has_no_truth_is_counted_apart() -> None:
    items = [item(True, True, "error"), item(False, False, "error"), item("yes", True), item(True, True)]

    assert Judge(2, 1, 1, 1, 0, 1, 6) == counted(items, 9, "judge", "good")
    assert Judge(2, 1, 1, 1, 0, 1, 6) == counted(
        [*items, {**items[0], "datasource_item": None}], 9, None, "good"
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.metric}-{rule.bound}")
def test_counts_from_answers_are_worth_what_counts_by_hand_are(rule: Rule) -> None:
    baseline = of(100, 200)

    measured = gates.judge(rule, of(180, 200, SHARP), baseline, 0.95)
    by_hand = gates.judge(
        rule._replace(calibration=Calibration(100, 95, 100, 90)), of(180, 200), baseline, 0.95
    )

    assert by_hand == measured
    assert "its judge passes 95 of 100 good and fails 90 of 100 bad answers" in measured.sentence


@given(
    passed=st.integers(0, 200),
    before=st.integers(0, 200),
    lost=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    rule=st.sampled_from(RULES),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_no_grade_of_what_was_not_graded_would_have_helped_the_candidate_less(
    passed: int, before: int, lost: tuple[int, int], rule: Rule, data: st.DataObject
) -> None:
    judge = Judge(100, 90 - lost[0], lost[0], 100, 85 - lost[1], lost[1])
    as_it_was = Calibration(
        100,
        90 - lost[0] + data.draw(st.integers(0, lost[0])),
        100,
        85 - lost[1] + data.draw(st.integers(0, lost[1])),
    )

    found = gates.judge(rule, of(passed, 200, judge), of(before, 200), 0.95)
    truth = gates.judge(rule._replace(calibration=as_it_was), of(passed, 200), of(before, 200), 0.95)

    assert found.verdict is not Verdict.PASS or truth.verdict is Verdict.PASS
    assert found.verdict is not Verdict.FAIL or truth.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    "judge, why",
    [
        (Judge(50, 50, 0, 50, 40, 6), "6% of the calibration's answers got no grade or have no label"),
        (Judge(50, 50, 0, 40, 40, 0, 10), "10% of the calibration's answers got no grade or have no label"),
        (Judge(0, 0, 0, 0, 0, 0), "all of the calibration's answers got no grade"),
        (Judge(50, 50, 0, 0, 0, 0), "people call none of the calibration's answers bad"),
        (Judge(0, 0, 0, 50, 50, 0), "people call none of the calibration's answers good"),
        (
            Judge(50, 25, 0, 50, 25, 0),
            "passes 25 of 50 good answers and fails 25 of 50 bad ones, which is no better",
        ),
        (Judge(50, 24, 2, 50, 24, 2), "which is no better than guessing"),
    ],
)
def test_a_judge_that_shows_nothing_decides_nothing(judge: Judge, why: str) -> None:
    found = gates.judge(RULES[0], of(200, 200, judge), None, 0.95)

    assert Verdict.INCONCLUSIVE is found.verdict
    assert why in found.sentence


def test_a_judge_that_is_too_kind_takes_a_pass_away() -> None:
    kind = Judge(100, 100, 0, 100, 60, 0)

    assert Verdict.PASS is gates.judge(RULES[0], of(170, 200), None, 0.95).verdict
    assert Verdict.PASS is not gates.judge(RULES[0], of(170, 200, kind), None, 0.95).verdict
