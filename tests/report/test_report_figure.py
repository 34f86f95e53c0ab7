"""Where things are drawn."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.evidence import Rule
from reconciler.gates import Judgement, Verdict
from reconciler.report import figure
from reconciler.report.figure import Scale

NUMBERS = st.floats(-1e6, 1e6)
RULES = [
    Rule("pass_rate", "at_least", 0.8),
    Rule("fail_rate", "at_most", 0.01),
    Rule("pass_rate", "not_worse_than", 0.02),
    Rule("mean_score", "improves_by", 0.1),
    Rule("p95_latency_ms", "at_most", 800),
    Rule("cost_per_1k_items", "at_most", 0.5),
]


def judgement(rule: Rule, low: float, value: float, high: float) -> Judgement:
    return Judgement(Verdict.FAIL, rule, value, low, high, 10, "said")


def drawn(told: str, class_: str) -> dict[str, str]:
    """The attributes of the one element of a class."""
    [found] = re.findall(rf'<\w+ ([^>]*class="{class_}")', told)
    return dict(re.findall(r'([\w-]+)="([^"]*)"', found))


@given(st.sampled_from(RULES), st.lists(st.one_of(NUMBERS, st.just(math.inf)), min_size=3, max_size=3))
def test_everything_is_drawn_inside(rule: Rule, values: list[float]) -> None:
    low, value, high = sorted(values)

    told = figure.interval(judgement(rule, low, value, high))

    assert [] == [at for at in re.findall(r'"(-?[\d.]+|nan|inf)%"', told) if not 0 <= float(at) <= 100]


def test_what_was_never_measured_draws_the_gate_alone() -> None:
    told = figure.interval(judgement(RULES[2], math.nan, math.nan, math.nan))

    assert "circle" not in told
    assert "unknown, interval unknown to unknown; the gate" in told


@pytest.mark.parametrize("rule, left, wide", [(RULES[0], 78.8, 19.2), (RULES[1], 2.0, 0.96)])
def test_the_side_that_passes_is_shaded(rule: Rule, left: float, wide: float) -> None:
    shade = drawn(figure.interval(judgement(rule, 0.2, 0.3, 0.4)), "good")

    assert (f"{left:.2f}%", f"{wide:.2f}%") == (shade["x"], shade["width"])


def test_a_point_stands_at_its_value_and_a_line_at_its_gate() -> None:
    told = figure.interval(judgement(RULES[0], 0.25, 0.5, 0.75))

    assert ("50.00%", "78.80%") == (drawn(told, "point")["cx"], drawn(told, "gate")["x1"])


@given(st.tuples(NUMBERS, NUMBERS).filter(lambda ends: abs(ends[0] - ends[1]) > 1e-6))
def test_a_scale_has_two_to_six_round_ticks_inside(ends: tuple[float, float]) -> None:
    scale = Scale(*sorted(ends))

    found = figure.ticks(scale)

    room = 1e-6 * (scale.high - scale.low)
    assert 2 <= len(found) <= 6
    assert all(scale.low - room <= tick <= scale.high + room for tick in found)


@pytest.mark.parametrize(
    "rule, value, said",
    [
        (RULES[0], 0.671, "67.1 %"),
        (RULES[2], -0.0412, "-4.12 points"),
        (RULES[3], 0.25, "+0.25"),
        (RULES[4], 1972.4, "1,972 ms"),
        (RULES[5], 0.4567, "$0.457"),
        (RULES[0], math.nan, "unknown"),
        (RULES[4], math.inf, "no bound"),
    ],
)
def test_a_number_has_the_unit_of_its_gate(rule: Rule, value: float, said: str) -> None:
    assert said == figure.number(value, rule)
