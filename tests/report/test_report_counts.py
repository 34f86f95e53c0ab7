"""The numbers that readers look around in."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_base import example, item, run
from statsmodels.stats.proportion import proportion_confint

from reconciler.report import counts
from reconciler.report.values import CANDIDATE, Item, Report


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_wilson_interval_is_what_statsmodels_says(share: tuple[int, int]) -> None:
    low, high = proportion_confint(*share, 0.05, "wilson")

    assert pytest.approx((low, high), abs=1e-12) == counts.wilson(*share)


def test_no_items_say_nothing() -> None:
    assert (0.0, 1.0) == counts.wilson(0, 0)
    assert math.isnan(counts.rate(0, 0).value)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_smallest_value_that_covers_its_share(values: list[float], share: float) -> None:
    found = counts.percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values) + 1e-9


def test_an_errored_or_missing_item_never_counts_as_passed(report: Report) -> None:
    candidate = report.runs[1]

    found = counts.overall(candidate)

    assert (4, 6, 1) == (found.passed, found.n, found.errored)
    assert [("exact", 4, 6, 1), ("close", 4, 6, 1)] == [
        (name, rate.passed, rate.n, rate.errored) for name, rate in counts.by_grader(candidate)
    ]


def test_items_are_sliced_by_fields_with_few_values_and_by_members_of_json_text() -> None:
    items = [
        Item(str(i), "pass" if i % 2 else "fail",
             {"text": f"unique {i}", "expected": f'{{"kind": "{"ab"[i % 2]}", "n": {i}}}', "same": 1}, "", ())
        for i in range(10)
    ]  # fmt: skip
    measured = run("Model/base", CANDIDATE, items)

    assert ["expected.kind"] == counts.sliceable([measured])
    assert [("a", 0, 5), ("b", 5, 5)] == [
        (s.value, s.rate.passed, s.rate.n) for s in counts.slices(measured, "expected.kind")
    ]


def test_hostile_fields_are_never_sliced() -> None:
    deep = "{" * 100_000
    items = [
        Item(str(i), "pass", {"deep": deep, "list": [i % 2], "long": "ab"[i % 2] * 500}, "", ())
        for i in range(8)
    ]

    assert [] == counts.sliceable([run("Model/base", CANDIDATE, items)])


def test_flips_pair_items_by_id_and_show_what_was_lost_first() -> None:
    baseline, candidate = example().runs

    found = counts.flips(baseline, candidate)

    assert [("0", False), ("1", True), ("2", True), ("4", True)] == [(f.after.id, f.gained) for f in found]


def test_an_item_that_only_one_run_has_is_no_flip() -> None:
    before, after = run("a", CANDIDATE, [item(0, True, "x")]), run("b", CANDIDATE, [item(1, False, "x")])

    assert [] == counts.flips(before, after)
