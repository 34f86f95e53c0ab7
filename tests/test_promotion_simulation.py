"""
How often a gate is wrong, counted on thousands of simulated promotions.

Where a whole verdict takes milliseconds, the witness that decides it is asked instead, and a sample of
whole verdicts shows that it does. Of several witnesses (clusters, scores) one bounds the verdict.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from reconciler import gates
from reconciler.evidence import Case, ItemResult, Measured, Rule
from reconciler.gates import Verdict
from reconciler.stats import betting, flips, means, power
from reconciler.stats.multiplicity import adjusted, holm

GATES = 20_000
LEVEL = 0.025  # what confidence 0.95 promises of each of the two errors
SUPERIOR, NOT_WORSE = Rule("pass_rate", "improves_by", 0.0), Rule("pass_rate", "not_worse_than", 0.02)


def most(level: float, gates: int = GATES) -> float:
    """What a share of `level` may look like, counted on so many gates; beyond is one chance in 2,000."""
    return level + 3.3 * math.sqrt(level * (1 - level) / gates)


def measured(passed: Any, clusters: Any = None) -> Measured:
    groups = [None] * len(passed) if clusters is None else list(clusters)
    items = {
        str(i): ItemResult(bool(p), float(p), g) for i, (p, g) in enumerate(zip(passed, groups, strict=True))
    }
    return Measured(items, len(items))


def two_runs(gained: int, lost: int, n: int) -> tuple[Measured, Measured]:
    """A candidate and a baseline that differ on so many items."""
    both = (n - gained - lost) // 2
    ours = [True] * gained + [False] * lost + [True] * both + [False] * (n - gained - lost - both)
    theirs = [False] * gained + [True] * lost + ours[gained + lost :]
    return measured(ours), measured(theirs)


surprise = cache(flips.surprise)


def share(n: int, effect: float, disagreement: float, promotes: Callable[[int, int, int], bool]) -> float:
    """How often a gate promotes a candidate with this true difference."""
    rates = [(disagreement + effect) / 2, (disagreement - effect) / 2, 1 - disagreement]
    drawn = np.random.default_rng(1).multinomial(n, rates, GATES)
    tables, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
    promoted = [promotes(int(gained), int(lost), n) for gained, lost in tables]
    return float(counts[promoted].sum() / GATES)


def passes(rule: Rule) -> Callable[[int, int, int], bool]:
    return lambda gained, lost, n: surprise(gained, lost, n, rule.line) <= LEVEL


def fails(rule: Rule) -> Callable[[int, int, int], bool]:
    return lambda gained, lost, n: surprise(lost, gained, n, -rule.line) <= LEVEL


def test_the_witness_asked_here_decides_the_verdict() -> None:
    chosen = np.random.default_rng(9)
    for rule in (SUPERIOR, NOT_WORSE):
        for _ in range(100):
            n = int(chosen.integers(1, 200))
            gained, lost, _ = map(int, chosen.multinomial(n, chosen.dirichlet([1, 1, 3])))

            verdict = gates.judge(rule, *two_runs(gained, lost, n), 0.95).verdict

            assert passes(rule)(gained, lost, n) == (verdict is Verdict.PASS)
            assert fails(rule)(gained, lost, n) == (verdict is Verdict.FAIL)


def mean_not_worse(gained: int, lost: int, n: int) -> bool:
    """A usual gate: the mean is not worse than the baseline's minus two points."""
    return (gained - lost) / n >= -0.02


def unless_significantly_worse(gained: int, lost: int, n: int) -> bool:
    """Another: block only if the candidate is significantly worse, by McNemar's test at 5 %."""
    return not (gained < lost and (gained - lost) ** 2 / (gained + lost) > 3.841)


def test_the_usual_gates_pass_a_worse_model_and_this_one_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    truths = (-0.10, -0.05, -0.02, 0.0, 0.05, 0.10)
    rows = {
        "mean not worse than baseline - 2 points": mean_not_worse,
        "block only if significantly worse": unless_significantly_worse,
        "not_worse_than: 0.02": passes(NOT_WORSE),
        "improves_by: 0": passes(SUPERIOR),
    }
    table = {
        (name, n): {truth: share(n, truth, 0.2, gate) for truth in truths}
        for n in (100, 1000)
        for name, gate in rows.items()
    }
    with capsys.disabled():
        print("\n\npromoted, of 20,000; the models differ on 20 % of the items\n")
        print("| gate | n | " + " | ".join(f"{100 * truth:+.0f} points" for truth in truths) + " |")
        print("|---|---" + "|---:" * len(truths) + "|")
        for (name, n), found in table.items():
            print(f"| {name} | {n} | " + " | ".join(f"{rate:.1%}" for rate in found.values()) + " |")

    assert table["mean not worse than baseline - 2 points", 100][-0.05] == pytest.approx(0.29, abs=0.02)
    assert table["block only if significantly worse", 100][-0.05] == pytest.approx(0.77, abs=0.03)
    assert table["not_worse_than: 0.02", 100][-0.05] <= 0.02
    assert table["not_worse_than: 0.02", 100][-0.02] <= most(0.0275)  # the score test's own excess is in it
    assert table["improves_by: 0", 1000][0.0] <= most(LEVEL)
    assert table["improves_by: 0", 1000][0.05] > 0.9


@pytest.mark.parametrize("n", [10, 30, 100, 300])
@pytest.mark.parametrize("disagreement", [0.02, 0.2, 0.6])
def test_equal_models_are_promoted_as_better_at_most_so_often(n: int, disagreement: float) -> None:
    assert share(n, 0.0, disagreement, passes(SUPERIOR)) <= most(LEVEL)


@pytest.mark.parametrize("n", [10, 30, 100, 300])
def test_a_model_on_the_line_is_failed_at_most_so_often(n: int) -> None:
    assert share(n, 0.0, 0.2, fails(SUPERIOR)) <= most(LEVEL)


@pytest.mark.parametrize("rule, effect, disagreement, n", [
    (SUPERIOR, 0.10, 0.2, 100), (SUPERIOR, 0.05, 0.2, 300), (SUPERIOR, 0.15, 0.4, 120),
    (Rule("pass_rate", "improves_by", 0.1), 0.17, 0.2, 240), (NOT_WORSE, 0.0, 0.1, 300),
    (NOT_WORSE, 0.03, 0.2, 400),
])  # fmt: skip
def test_the_power_is_what_the_plan_says(rule: Rule, effect: float, disagreement: float, n: int) -> None:
    foreseen = power.of_flips(n, rule.line, effect, disagreement, LEVEL)

    assert share(n, effect, disagreement, passes(rule)) == pytest.approx(foreseen, abs=0.015)


def test_the_smallest_detectable_effect_is_detected_four_times_in_five() -> None:
    effect = power.detectable(lambda e: power.of_flips(200, 0.0, e, 0.2, LEVEL), 0.0, 1.0)

    assert effect is not None
    assert share(200, effect, 0.2, passes(SUPERIOR)) == pytest.approx(0.8, abs=0.02)


def test_the_power_of_a_share_is_what_the_plan_says() -> None:
    rule, drawn = Rule("pass_rate", "at_least", 0.8), np.random.default_rng(2).binomial(240, 0.87, GATES)
    passed, counts = np.unique(drawn, return_counts=True)
    verdicts = [gates.judge(rule, measured([i < x for i in range(240)]), None, 0.95).verdict for x in passed]
    promoted = counts[[v is Verdict.PASS for v in verdicts]].sum() / GATES

    assert promoted == pytest.approx(power.of_share(240, 0.8, 0.87, LEVEL), abs=0.015)


def test_the_power_of_a_mean_is_what_the_plan_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(means, "DRAWS", 999)
    chosen, n, many = np.random.default_rng(3), 60, 1500
    drawn = chosen.normal(0.12, 0.3, (many, n)).clip(-1, 1)
    passed = [means.Mean(values, (-1.0, 1.0), paired=True).above(0.0) <= LEVEL for values in drawn.tolist()]

    assert np.mean(passed) == pytest.approx(power.of_mean(n, 0.0, 0.12, 0.3, LEVEL), abs=0.03)


def test_scores_of_equal_models_are_promoted_as_better_at_most_so_often() -> None:
    """Skewed, bounded scores; sign flips are one of the witnesses, so their share bounds the gate's."""
    chosen, n = np.random.default_rng(4), 12
    easy = chosen.beta(4, 1, (GATES, n, 1))
    drawn = (easy + chosen.gamma(0.5, 0.2, (GATES, n, 2))).clip(0, 1)
    differences = drawn[..., 0] - drawn[..., 1]
    ps = [means.sign_flips(values, 1) for values in differences]
    whole = [means.Mean(v, (-1.0, 1.0), paired=True).above(0.0) for v in differences[:50].tolist()]

    assert np.mean(np.array(ps) <= LEVEL) <= most(LEVEL)
    assert all(gate >= flip for gate, flip in zip(whole, ps, strict=False))


def test_looking_after_every_item_promotes_equal_models_at_most_so_often(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen, n, looks = np.random.default_rng(5), 200, range(20, 201, 20)
    drawn = chosen.choice(np.array([1, -1, 0], np.int8), (GATES, n), p=[0.1, 0.1, 0.8])
    logs = np.concatenate([betting.capital((part + 1) / 2, 0.5) for part in np.split(drawn, 40)])
    any_time = np.mean(np.exp(-logs) <= LEVEL)
    gained, lost = np.cumsum(drawn == 1, 1), np.cumsum(drawn == -1, 1)
    peeked = np.zeros(GATES, bool)
    for look in looks:
        for index in np.flatnonzero(gained[:, look - 1] > lost[:, look - 1]):
            peeked[index] |= (
                surprise(int(gained[index, look - 1]), int(lost[index, look - 1]), look, 0.0) <= LEVEL
            )
    with capsys.disabled():
        print(f"\npeeking at equal models: {any_time:.1%} promoted with anytime, looking after each of {n} items; "
              f"{np.mean(peeked):.1%} without, looking {len(looks)} times")  # fmt: skip

    assert any_time <= most(LEVEL)
    assert np.mean(peeked) > 1.8 * LEVEL  # what anytime is for


def test_the_power_of_anytime_is_about_what_the_plan_says() -> None:
    n, effect, disagreement = 300, 0.1, 0.2
    rates = [(disagreement + effect) / 2, (disagreement - effect) / 2, 1 - disagreement]
    drawn = np.random.default_rng(10).choice(np.array([1, -1, 0], np.int8), (2000, n), p=rates)
    passed = np.mean(np.exp(-betting.capital((drawn + 1) / 2, 0.5)) <= LEVEL)

    assert passed == pytest.approx(
        power.of_flips(n, 0.0, effect, disagreement, power.anytime(LEVEL)), abs=0.03
    )


def test_one_of_five_correlated_metrics_promotes_equal_models_at_most_so_often() -> None:
    level, n = LEVEL, 100
    chosen = np.random.default_rng(6)
    promoted, naive, shown = 0, 0, 0
    for _ in range(20):
        shared = chosen.normal(0, 1, (GATES // 20, 2, n, 1))
        passed = 0.8 * shared + 0.6 * chosen.normal(0, 1, (GATES // 20, 2, n, 5)) < 0.7
        gained = (passed[:, 0] & ~passed[:, 1]).sum(1)
        lost = (passed[:, 1] & ~passed[:, 0]).sum(1)
        for index, (up, down) in enumerate(zip(gained.tolist(), lost.tolist(), strict=True)):
            ps = [surprise(g, x, n, 0.0) for g, x in zip(up, down, strict=True)]
            promoted += adjusted(ps) <= level
            naive += min(ps) <= level
            if index < 3:
                rule = SUPERIOR._replace(primary=True)
                cases = [Case(rule, *map(measured, passed[index, :, :, metric])) for metric in range(5)]
                trial = gates.trials({"candidate": cases}, 0.95)[0]
                assert (adjusted(ps) <= level) == (trial.verdict is Verdict.PASS)
                shown += 1

    assert shown == 60
    assert promoted / GATES <= most(level)
    assert naive / GATES > 2 * level  # what Holm is for


def test_clustered_items_promote_equal_models_at_most_so_often(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten documents of ten questions each, where a model knows a document or does not."""
    chosen, documents, questions = np.random.default_rng(7), 10, 10
    knows = chosen.normal(0, 1.5, (GATES, 2, documents, 1)) + chosen.normal(
        0, 1, (GATES, 2, documents, questions)
    )
    passed = knows > 0
    differences = passed[:, 0].astype(int) - passed[:, 1]
    ps = np.array([means.sign_flips(sums, 1) for sums in differences.sum(2)])
    naive = [surprise(int((d > 0).sum()), int((d < 0).sum()), d.size, 0.0) <= LEVEL for d in differences]
    groups = np.repeat(np.arange(documents), questions)
    whole = [
        gates.judge(SUPERIOR, *(measured(side.ravel(), groups) for side in passed[index]), 0.95).p
        for index in range(40)
    ]
    with capsys.disabled():
        print(f"\nclusters of equal models: at most {np.mean(ps <= LEVEL):.1%} promoted, "
              f"{np.mean(naive):.1%} were items taken to be independent")  # fmt: skip

    assert np.mean(ps <= LEVEL) <= most(LEVEL)
    assert all(gate >= flip for gate, flip in zip(whole, ps, strict=False))
    assert np.mean(naive) > 2 * LEVEL  # what clusters are for


def test_the_choice_among_four_candidates_is_paid_for() -> None:
    """Equal candidates against one baseline, so their chances hang together."""
    chosen, n = np.random.default_rng(8), 100
    promoted = naive = 0
    for _ in range(10):
        passed = chosen.normal(0, 1, (GATES // 10, 1, n)) + chosen.normal(0, 0.5, (GATES // 10, 5, n)) > -0.5
        gained = (passed[:, 1:] & ~passed[:, :1]).sum(2)
        lost = (passed[:, :1] & ~passed[:, 1:]).sum(2)
        for up, down in zip(gained.tolist(), lost.tolist(), strict=True):
            ps = [surprise(g, x, n, 0.0) for g, x in zip(up, down, strict=True)]
            promoted += any(p <= level for p, level in zip(ps, holm(ps, LEVEL), strict=True))
            naive += min(ps) <= LEVEL

    assert promoted / GATES <= most(LEVEL)
    assert naive / GATES > 1.5 * LEVEL
