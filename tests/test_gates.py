"""What a verdict is, and what can never change it in the candidate's favour."""

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import gates
from reconciler.evidence import Case, ItemResult, Measured, Rule, measured, weigh
from reconciler.gates import Verdict
from reconciler.stats.proportions import Calibration

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
BOUNDS = [
    Rule("pass_rate", "at_least", 0.6), Rule("fail_rate", "at_most", 0.3), Rule("mean_score", "at_least", 0.6),
    Rule("pass_rate", "improves_by", 0.0), Rule("pass_rate", "not_worse_than", 0.1),
    Rule("mean_score", "improves_by", 0.05), Rule("mean_score", "not_worse_than", 0.1),
    Rule("pass_rate", "improves_by", 0.0, anytime=True), Rule("mean_score", "at_least", 0.5, anytime=True),
]  # fmt: skip


def run(passed: list[bool | None], scores: list[float | None] | None = None) -> Measured:
    scores = scores or [None if p is None else float(p) for p in passed]
    items = {str(i): ItemResult(p, s) for i, (p, s) in enumerate(zip(passed, scores, strict=True))}
    return Measured(items, len(items))


def of(passed: int, n: int) -> Measured:
    return run([i < passed for i in range(n)])


@pytest.mark.parametrize("passed, verdict", [(70, FAIL), (80, INCONCLUSIVE), (85, INCONCLUSIVE), (95, PASS)])
def test_a_gate_passes_and_fails_only_with_its_whole_interval(passed: int, verdict: Verdict) -> None:
    judgement = gates.judge(Rule("pass_rate", "at_least", 0.8), of(passed, 100), None, 0.95)

    assert verdict == judgement.verdict
    assert (verdict is PASS) == (judgement.low > 0.8)
    assert (verdict is FAIL) == (judgement.high < 0.8)


def test_an_inconclusive_verdict_says_how_many_items_would_tell() -> None:
    judgement = gates.judge(Rule("fail_rate", "at_most", 0.01), of(100, 100), None, 0.90)

    assert INCONCLUSIVE == judgement.verdict
    assert (
        "fail_rate 0.0% [0.0%, 3.0%], n=100; wanted at most 1.0%; about 199 more items would tell"
        == judgement.sentence
    )


def test_a_comparison_says_what_was_gained_and_lost() -> None:
    candidate, baseline = run([True] * 60 + [False] * 40), run([False] * 40 + [True] * 30 + [False] * 30)

    judgement = gates.judge(Rule("pass_rate", "improves_by", 0.1), candidate, baseline, 0.95)

    assert (PASS, 40, 10) == (judgement.verdict, judgement.gained, judgement.lost)
    assert judgement.sentence.startswith("pass_rate +30.0 points [+16.9, +42.1], ")
    assert judgement.sentence.endswith(
        "n=100; wanted better by more than 10 points; p=0.0017; 40 items gained, 10 lost"
    )


@pytest.mark.parametrize("rule", BOUNDS)
@pytest.mark.parametrize("n", [0, 1])
def test_next_to_nothing_promotes_nothing(rule: Rule, n: int) -> None:
    worst = run([False] * n)

    assert INCONCLUSIVE == gates.judge(rule, run([True] * n), worst, 0.95).verdict


@pytest.mark.parametrize("n", [3, 20, 200])
@pytest.mark.parametrize("passes", [True, False])
def test_models_that_answer_alike_are_never_better_than_each_other(n: int, passes: bool) -> None:
    for rule in BOUNDS:
        if rule.bound == "improves_by":
            assert PASS is not gates.judge(rule, run([passes] * n), run([passes] * n), 0.95).verdict


def test_items_that_always_score_the_same_still_leave_room_for_one_that_was_not_seen() -> None:
    few, many = (
        gates.judge(Rule("mean_score", "at_least", 0.9), run([True] * n), None, 0.95) for n in (10, 60)
    )

    assert (INCONCLUSIVE, PASS) == (few.verdict, many.verdict)
    assert few.low == pytest.approx(0.025 ** (1 / 10))


results = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.floats(0, 1), st.floats(0, 1)), min_size=20, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(
    results, st.sampled_from(BOUNDS), st.integers(0, 19), st.sampled_from(["error", "missing", "unpaired"])
)
def test_what_went_wrong_never_counts_for_the_candidate(
    rows: list[tuple[bool, bool, float, float]], rule: Rule, at: int, how: str
) -> None:
    rule = rule._replace(most_errors=0.5)
    candidate, baseline = (
        run([r[0] for r in rows], [r[2] for r in rows]),
        run([r[1] for r in rows], [r[3] for r in rows]),
    )
    if how == "unpaired":
        less = candidate, Measured({k: v for k, v in baseline.items.items() if k != str(at)}, baseline.total)
    else:
        spoilt = {str(at): ItemResult(None, None)} if how == "error" else {}
        kept = {k: v for k, v in candidate.items.items() if k != str(at)}
        less = Measured(kept | spoilt, candidate.total), baseline

    whole, spoilt_ = (weigh(Case(rule, *runs)) for runs in ((candidate, baseline), less))

    assert whole.estimate is not None and spoilt_.estimate is not None
    side = -1 if rule.bound == "at_most" else 1
    assert side * spoilt_.estimate.value <= side * whole.estimate.value + 1e-9
    if rule.metric != "mean_score" and not rule.anytime:
        assert spoilt_.passes >= whole.passes - 1e-9


@pytest.mark.parametrize("bad, comparable", [(5, True), (6, False)])
def test_beyond_the_declared_share_of_errors_nothing_is_comparable(bad: int, comparable: bool) -> None:
    candidate = run([None] * bad + [True] * (100 - bad))

    judgement = gates.judge(Rule("pass_rate", "at_least", 0.5), candidate, None, 0.95)

    assert (PASS if comparable else INCONCLUSIVE) == judgement.verdict
    assert comparable != (
        "not comparable: 6% of the items errored or are missing, at most 5% may" == judgement.sentence
    )


def test_the_errors_of_both_runs_are_counted_together() -> None:
    candidate, baseline = run([None] * 4 + [True] * 96), run([True] * 96 + [None] * 4)

    judgement = gates.judge(Rule("pass_rate", "not_worse_than", 0.5), candidate, baseline, 0.95)

    assert "not comparable: 8% of the items errored or are missing, at most 5% may" == judgement.sentence


def test_an_errored_item_is_the_worst_score_whichever_way_is_worse() -> None:
    scores: list[float | None] = [None, *([2.0] * 39)]
    spoilt = Measured(run([None if s is None else True for s in scores], scores).items, 40, (0.0, 10.0))

    high = gates.judge(Rule("mean_score", "at_least", 1.0), spoilt, None, 0.95)
    low = gates.judge(Rule("mean_score", "at_most", 3.0), spoilt, None, 0.95)

    assert pytest.approx([39 * 2 / 40, (39 * 2 + 10) / 40]) == [high.estimate, low.estimate]


def test_the_order_of_items_changes_nothing() -> None:
    candidate, baseline = of(60, 100), run([i % 2 == 0 for i in range(100)])
    turned = Measured(dict(reversed(candidate.items.items())), 100)

    for rule in BOUNDS:
        assert gates.judge(rule, candidate, baseline, 0.95) == gates.judge(rule, turned, baseline, 0.95)


def test_samples_of_one_item_are_one_item() -> None:
    def item(at: int, passed: bool) -> dict[str, object]:
        return {"datasource_item_id": at, "status": "pass" if passed else "fail",
                "results": [{"name": "g", "passed": passed, "score": float(passed)}]}  # fmt: skip

    items = [item(at, sample < 2) for at in range(50) for sample in range(3)]

    found = measured(items, 150, None)

    assert 50 == found.total
    assert ItemResult(2 / 3, pytest.approx(2 / 3)) == found.items["0"]
    assert 50 == gates.judge(Rule("pass_rate", "at_least", 0.5), found, None, 0.95).n


@pytest.mark.parametrize("second", ["error", "missing"])
def test_a_sample_that_is_lacking_is_a_miss_of_the_candidate_and_a_hit_of_the_baseline(second: str) -> None:
    def samples(status: str) -> Measured:
        items = [{"datasource_item_id": at, "status": each,
                  "results": [{"name": "g", "passed": each == "pass", "score": float(each == "pass")}]}
                 for at in range(40) for each in (["pass"] if at % 2 else ["pass", status])
                 if each != "missing"]  # fmt: skip
        return measured(
            items + [dict(item) for item in items if int(str(item["datasource_item_id"])) % 2], 80, None
        )

    spoilt, whole = samples(second), samples("fail")
    rule = Rule("pass_rate", "not_worse_than", 0.5, most_errors=0.3)

    as_candidate, as_baseline = gates.judge(rule, spoilt, whole, 0.95), gates.judge(rule, whole, spoilt, 0.95)

    assert ItemResult(1.0, 1.0, lacking=0.5) == spoilt.items["0"]
    assert 0.0 == pytest.approx(as_candidate.estimate)
    assert -0.25 == pytest.approx(as_baseline.estimate)
    too_many = gates.judge(Rule("pass_rate", "at_least", 0.5, most_errors=0.2), spoilt, None, 0.95)
    assert "not comparable: 25% of the items errored or are missing" in too_many.sentence


def test_an_item_knows_its_cluster() -> None:
    items = [{"datasource_item_id": at, "datasource_item": {"doc": at // 2}, "status": "pass",
              "results": [{"name": "g", "passed": True, "score": 1.0}]} for at in range(4)]  # fmt: skip

    assert ["0", "0", "1", "1"] == [r.cluster for r in measured(items, 4, None, "doc").items.values()]


def test_items_of_few_clusters_prove_little() -> None:
    candidate, baseline = of(90, 100), of(60, 100)
    grouped = Measured({i: r._replace(cluster=int(i) // 25) for i, r in candidate.items.items()}, 100)

    alone, together = (
        gates.judge(Rule("pass_rate", "improves_by", 0.0), run_, baseline, 0.95)
        for run_ in (candidate, grouped)
    )

    assert (PASS, INCONCLUSIVE) == (alone.verdict, together.verdict)


def test_a_lenient_judge_is_seen_through() -> None:
    lenient = Calibration(good=50, good_passed=50, bad=50, bad_failed=30)
    rule = Rule("pass_rate", "at_least", 0.8)

    said, meant = (
        gates.judge(r, of(180, 200), None, 0.95) for r in (rule, rule._replace(calibration=lenient))
    )

    assert (PASS, INCONCLUSIVE) == (said.verdict, meant.verdict)
    assert pytest.approx(0.9 - 0.1 * 0.4 / 0.6, abs=1e-9) == meant.estimate


BETTER, EQUAL, WORSE = of(70, 100), of(50, 100), of(30, 100)
SUPERIOR = Rule("pass_rate", "improves_by", 0.0)
GUARD = Rule("pass_rate", "not_worse_than", 0.05)


def trial(*cases: tuple[Rule, Measured]) -> gates.Trial:
    return gates.trials({"c": [Case(rule, candidate, EQUAL) for rule, candidate in cases]}, 0.95)[0]


def test_of_several_primary_gates_one_suffices_and_the_others_do_no_harm() -> None:
    primary = SUPERIOR._replace(primary=True)

    assert PASS == trial((primary, BETTER), (primary, EQUAL)).verdict
    assert INCONCLUSIVE == trial((primary, EQUAL), (primary, EQUAL)).verdict
    assert FAIL == trial((primary, BETTER), (primary, WORSE)).verdict
    assert INCONCLUSIVE == trial((SUPERIOR, BETTER), (SUPERIOR, EQUAL)).verdict


def test_a_guard_stops_what_a_primary_gate_would_promote() -> None:
    stopped = trial((SUPERIOR._replace(primary=True), BETTER), (GUARD, WORSE))

    assert FAIL == stopped.verdict
    assert stopped.judgements[1] == stopped.stopped_by


def test_a_candidate_in_company_needs_a_smaller_p_value() -> None:
    rule = Rule("pass_rate", "at_least", 0.8)
    close = of(176, 200)  # p 0.0021: less than a twelfth of 2.5 %, not less than a thirteenth

    def verdicts(others: int) -> set[Verdict]:
        cases = {"close": [Case(rule, close, None)]} | {
            f"c{i}": [Case(rule, of(160, 200), None)] for i in range(others)
        }
        return {gates.trials(cases, 0.95)[0].verdict}

    assert ({PASS}, {PASS}, {INCONCLUSIVE}) == (verdicts(0), verdicts(10), verdicts(12))


def test_many_gates_do_not_fail_a_candidate_more_often() -> None:
    close = of(147, 200)  # alone it fails
    rule = Rule("pass_rate", "at_least", 0.8)

    alone = trial((rule, close))
    among = trial((rule, close), *[(rule, of(160, 200))] * 4)

    assert (FAIL, INCONCLUSIVE) == (alone.verdict, among.verdict)


@given(st.lists(st.sampled_from(Verdict), max_size=5))
def test_one_gate_that_fails_fails_all_and_nothing_open_passes(verdicts: list[Verdict]) -> None:
    expected = FAIL if FAIL in verdicts else INCONCLUSIVE if INCONCLUSIVE in verdicts else PASS

    assert expected == gates.worst(verdicts)


def test_what_is_not_comparable_has_no_numbers() -> None:
    judgement = gates.judge(BOUNDS[0], run([]), None, 0.95)

    assert all(math.isnan(x) for x in (judgement.estimate, judgement.low, judgement.high))


def test_a_plan_that_judges_nothing_imports_no_scipy() -> None:
    code = "import sys, reconciler.kinds.promotionrule; print({'scipy', 'numpy'} & sys.modules.keys())"

    assert (
        "set()\n"
        == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )
