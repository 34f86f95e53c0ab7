"""Gates on latency and on cost: quantiles by counting, prices by name, and nothing unknown in favour."""

import math
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pydantic import ValidationError
from scipy import stats

from reconciler import gates
from reconciler.evidence import Rule, measured
from reconciler.gates import Verdict
from reconciler.prices import Price, known, price
from reconciler.rule import PromotionRuleSpec, told
from reconciler.stats.quantiles import Quantile

QUICK = Rule("p95_latency_ms", "at_most", 800)
CHEAP = Rule("cost_per_1k_items", "at_most", 0.5)


def items(latencies: list[float | None], tokens: int = 100) -> list[dict[str, Any]]:
    return [
        {
            "datasource_item_id": index,
            "status": "pass",
            "results": [{"name": "exact", "passed": True, "score": 1.0}],
            "sample": {"usage": {"prompt_tokens": tokens, "completion_tokens": tokens}},
            "reconciler": {} if latency is None else {"latency_ms": latency},
        }
        for index, latency in enumerate(latencies)
    ]


def judged(rule: Rule, latencies: list[float | None], price: Price | None = None) -> gates.Judgement:
    return gates.judge(rule, measured(items(latencies), len(latencies), None, price=price), None, 0.95)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=120),
    st.integers(0, 50),
    st.sampled_from([0.5, 0.9, 0.95]),
)
def test_a_quantile_is_judged_by_the_binomial_of_what_lies_under_the_line(
    values: list[int], line: int, q: float
) -> None:
    estimate, n = Quantile(values, q), len(values)

    under, at_most = sum(v < line for v in values), sum(v <= line for v in values)

    assert stats.binom.sf(under - 1, n, q) == pytest.approx(estimate.below(line), abs=1e-9)
    assert stats.binom.cdf(at_most, n, q) == pytest.approx(estimate.above(line), abs=1e-9)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200), st.integers(0, 50))
def test_a_line_outside_the_interval_is_what_the_p_value_excludes(values: list[int], line: int) -> None:
    estimate = Quantile(values, 0.95)

    low, high = estimate.interval(0.95)

    assert (line > high) == (estimate.below(line) <= 0.025) or line == high
    assert (line < low) == (estimate.above(line) <= 0.025) or line == low
    assert low <= estimate.value <= high


@pytest.mark.parametrize(
    "latencies, verdict",
    [
        ([100.0] * 200, Verdict.PASS),
        ([100.0] * 60, Verdict.INCONCLUSIVE),  # 0.95 ** 60 is 4.6 %
        ([900.0] * 200, Verdict.FAIL),
        ([100.0] * 197 + [None] * 3, Verdict.PASS),
        ([100.0] * 191 + [None] * 9, Verdict.INCONCLUSIVE),  # what has no latency is the slowest
    ],
)
def test_a_model_is_quick_when_enough_answers_were(latencies: list[float | None], verdict: Verdict) -> None:
    assert verdict is judged(QUICK, latencies).verdict


def test_without_latencies_nothing_is_comparable() -> None:
    judgement = judged(QUICK, [None] * 200)

    assert Verdict.INCONCLUSIVE is judgement.verdict
    assert "100% of the items have no latency" in judgement.sentence


def test_the_cost_of_answers_is_tokens_times_price() -> None:
    judgement = judged(CHEAP, [1.0] * 200, Price(1.0, 3.0))

    assert Verdict.PASS is judgement.verdict
    assert 1000 * (100 * 1.0 + 100 * 3.0) / 1e6 == pytest.approx(judgement.estimate)
    assert judgement.sentence.startswith("cost_per_1k_items $0.4 [")
    assert Verdict.FAIL is judged(CHEAP, [1.0] * 200, Price(2.0, 3.5)).verdict


def test_what_has_no_price_is_not_cheap() -> None:
    judgement = judged(CHEAP, [1.0] * 200, None)

    assert Verdict.INCONCLUSIVE is judgement.verdict
    assert "have no price; add the model's to the rule's prices" in judgement.sentence


@pytest.mark.parametrize(
    "model, name",
    [
        ("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"),
        ("ft:gpt-4.1-mini-2025-04-14:org::abc", "ft:gpt-4.1-mini"),
        ("gpt-4o", "gpt-4o"),
    ],
)
def test_the_longest_name_that_fits_has_the_price(model: str, name: str) -> None:
    assert known()[name] == price(model, {})


def test_a_rules_own_price_comes_first() -> None:
    own = {"gpt-4o": Price(1, 2), "tiny": Price(0, 0)}

    assert Price(1, 2) == price("gpt-4o-2024-11-20", own)
    assert price("tinier", own) is None


def test_latency_and_cost_are_measured_on_the_first_eval_unless_said() -> None:
    spec = PromotionRuleSpec.model_validate(
        {
            "channel": "a",
            "candidates": ["Model/a"],
            "gates": [{"eval": "Eval/right", "at_least": 0.8}, {"metric": "p95_latency_ms", "at_most": 800}],
        }
    )

    assert ["Eval/right", "Eval/right"] == [gate.eval for gate in spec.gates]


def test_a_latency_is_bounded_from_above_only() -> None:
    with pytest.raises(ValidationError, match="goes with at_most"):
        PromotionRuleSpec.model_validate(
            {
                "channel": "a",
                "candidates": ["Model/a"],
                "gates": [{"eval": "Eval/right", "metric": "p95_latency_ms", "at_least": 8}],
            }
        )


def test_an_end_that_nobody_knows_is_no_number() -> None:
    judgement = judged(QUICK, [100.0] * 60)

    assert math.inf == judgement.high
    assert told(judgement)["high"] is None
    assert "[100 ms, unknown]" in judgement.sentence
