"""Every estimator against a reference that somebody else wrote, on thousands of random tables."""

import gc
import math
import random
import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from reconciler.stats import binomial, flips, means, multiplicity, proportions
from reconciler.stats.betting import Running, capital
from reconciler.stats.flips import Flips
from reconciler.stats.means import Mean
from reconciler.stats.proportions import Calibration, Corrected, CorrectedDifference, Share

CONFIDENCES = (0.8, 0.9, 0.95, 0.99)


def tables(count: int, most: int = 300) -> list[tuple[int, int]]:
    """Random (passed, n), with nothing, everything and one item among them."""
    chosen = random.Random(7)
    found = [(0, 1), (1, 1), (0, most), (most, most)]
    while len(found) < count:
        n = chosen.randint(1, most)
        found.append((chosen.randint(0, n), n))
    return found


def flipped(count: int, most: int = 200) -> list[tuple[int, int, int]]:
    """Random (gained, lost, n), with ties, one item, and all of one side among them."""
    chosen = random.Random(8)
    found = [(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, most), (most, 0, most), (0, most, most), (5, 5, 10)]
    while len(found) < count:
        n = chosen.randint(1, most)
        gained = chosen.randint(0, n)
        found.append((gained, chosen.randint(0, n - gained), n))
    return found


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_the_interval_of_a_share_is_clopper_and_pearsons(confidence: float) -> None:
    passed, n = np.array(tables(3000)).T
    low, high = proportion_confint(passed, n, 1 - confidence, "beta")

    ours = [Share(x, m).interval(confidence) for x, m in zip(passed, n, strict=True)]

    np.testing.assert_allclose(ours, np.stack([low, high], 1), atol=1e-9)


def test_the_p_values_of_a_share_are_the_binomial_tails() -> None:
    lines = np.random.default_rng(1).uniform(0.01, 0.99, 3000)
    passed, n = np.array(tables(3000)).T

    above = [Share(x, m).above(line) for x, m, line in zip(passed, n, lines, strict=True)]
    below = [Share(x, m).below(line) for x, m, line in zip(passed, n, lines, strict=True)]

    np.testing.assert_allclose(above, stats.binom.sf(passed - 1, n, lines), atol=1e-9)
    np.testing.assert_allclose(below, stats.binom.cdf(passed, n, lines), atol=1e-9)


def test_the_binomial_without_scipy_is_the_binomial() -> None:
    rates = np.random.default_rng(2).uniform(0, 1, 3000)
    passed, n = np.array(tables(3000, 2000)).T

    ours = [binomial.at_least(int(x), int(m), float(r)) for x, m, r in zip(passed, n, rates, strict=True)]

    np.testing.assert_allclose(ours, stats.binom.sf(passed - 1, n, rates), rtol=1e-8, atol=1e-12)


def test_no_items_prove_nothing() -> None:
    assert (0.0, 1.0) == Share(0, 0).interval(0.95)
    assert (1.0, 1.0) == (Share(0, 0).above(0.5), Share(0, 0).below(0.5))
    assert (-1.0, 1.0) == Flips(0, 0, 0).interval(0.95)
    assert (1.0, 1.0) == (Flips(0, 0, 0).above(0.0), Flips(0, 0, 0).below(0.0))
    assert (0.0, 1.0) == Mean([], (0.0, 1.0)).interval(0.95)
    assert (1.0, 1.0) == (Mean([], (0.0, 1.0)).above(0.5), Running([], (0.0, 1.0)).above(0.5))


@pytest.mark.parametrize("n", [1, 10, 100, 1000])
def test_no_failure_in_n_items_rules_out_about_three_over_n(n: int) -> None:
    most = proportions.most_unseen(n, 0.05)

    assert most == pytest.approx(clopper_end(n, 0.90))
    assert n < 30 or most == pytest.approx(3 / n, rel=0.03)
    assert n == proportions.least_items(most - 1e-12, 0.05) - 1 or n == proportions.least_items(most, 0.05)


def clopper_end(n: int, confidence: float) -> float:
    return float(proportion_confint(0, n, 1 - confidence, "beta")[1])


def test_mcnemar_is_exact() -> None:
    for gained, lost, n in flipped(1500):
        table = [[n - gained - lost, lost], [gained, 0]]

        expected = reference_mcnemar(table, exact=True).pvalue if gained + lost else 1.0

        assert flips.mcnemar(gained, lost) == pytest.approx(expected, abs=1e-9)


def test_at_no_difference_the_score_is_mcnemars() -> None:
    for gained, lost, n in flipped(1500):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chi = reference_mcnemar([[0, lost], [gained, 0]], exact=False, correction=False).statistic

        expected = 0.0 if gained == lost else chi

        assert flips.score(gained, lost, n, 0.0) ** 2 == pytest.approx(expected, abs=1e-6)


def test_the_interval_of_a_paired_difference_ends_where_the_likelihood_says() -> None:
    """Tango's closed form against a score statistic whose nuisance is found by maximising numerically."""
    z = float(stats.norm.isf(0.025))
    for gained, lost, n in flipped(250, 120):
        low, high = Flips(gained, lost, n).interval(0.95)
        for end, sign in ((low, 1), (high, -1)):
            if -0.999 < end < 0.999:
                assert numeric_score(gained, lost, n, end) == pytest.approx(sign * z, abs=2e-3)


def numeric_score(gained: int, lost: int, n: int, delta: float) -> float:
    def unlikely(q: float) -> float:
        cells = np.array([q + delta, q, 1 - 2 * q - delta])
        return -float(np.sum([c * math.log(max(p, 1e-300)) for c, p in
                              zip((gained, lost, n - gained - lost), cells, strict=True) if c]))  # fmt: skip

    least, most = max(0.0, -delta), (1 - delta) / 2
    q = optimize.minimize_scalar(unlikely, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
    return float((gained - lost - n * delta) / math.sqrt(n * (2 * q + delta - delta**2)))


def test_nothing_is_better_unless_the_exact_test_agrees() -> None:
    for gained, lost, n in flipped(2000):
        exact = float(stats.binom.sf(gained - 1, gained + lost, 0.5))

        assert Flips(gained, lost, n).above(0.0) >= exact - 1e-9
        assert Flips(gained, lost, n).above(0.02) >= exact - 1e-9


def test_the_real_error_of_a_paired_gate_stays_near_the_promised_one() -> None:
    """Summed over every table, at every rate of disagreement: at most 4 % where 2.5 % is promised."""
    worst = {}
    for n, line in ((40, 0.0), (60, -0.05), (100, -0.02), (100, 0.02)):
        gained, lost = np.array([(g, x) for g in range(n + 1) for x in range(n + 1 - g)]).T
        wrong = np.array([flips.surprise(int(g), int(x), n, line) <= 0.025
                          for g, x in zip(gained, lost, strict=True)])  # fmt: skip
        sizes = []
        for disagreement in np.linspace(abs(line), 1, 40):
            rates = [(disagreement + line) / 2, (disagreement - line) / 2, 1 - disagreement]
            sizes.append(
                stats.multinomial.pmf(np.stack([gained, lost, n - gained - lost], 1)[wrong], n, rates).sum()
            )
        worst[n, line] = max(sizes)

    assert worst[40, 0.0] <= 0.025
    assert max(worst.values()) <= 0.04


def test_holm_rejects_what_statsmodels_rejects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "collect", lambda: 0)  # statsmodels collects garbage after every call
    chosen = np.random.default_rng(3)
    for _ in range(2000):
        ps = chosen.beta(0.3, 2, chosen.integers(1, 8))

        rejected = [p <= level for p, level in zip(ps, multiplicity.holm(ps, 0.05), strict=True)]

        assert multipletests(ps, 0.05, "holm")[0].tolist() == rejected
        assert any(rejected) == (multiplicity.adjusted(ps) <= 0.05)


@pytest.mark.parametrize("seed", range(12))
def test_the_bootstrap_is_scipys_bca_or_students_t_where_that_is_wider(seed: int) -> None:
    chosen = np.random.default_rng(seed)
    values = (chosen.beta(0.5, 1.5, 60) if seed % 2 else chosen.normal(0.5, 0.1, 60)).clip(0, 1)
    bca = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=chosen
    ).confidence_interval
    t = stats.ttest_1samp(values, 0).confidence_interval(0.95)

    low, high = Mean(values.tolist(), (0.0, 1.0)).interval(0.95)

    close = 0.06 * (t.high - t.low)
    assert low == pytest.approx(min(bca.low, t.low), abs=close)
    assert high == pytest.approx(max(bca.high, t.high), abs=close)


def test_an_interval_and_a_p_value_of_a_mean_tell_the_same() -> None:
    for seed in range(20):
        values = np.random.default_rng(seed).beta(1, 3, 50).tolist()
        mean = Mean(values, (0.0, 1.0))
        low, high = mean.interval(0.95)

        assert mean.above(low) == pytest.approx(0.025, abs=0.002)
        assert mean.below(high) == pytest.approx(0.025, abs=0.002)


def test_a_mean_is_judged_the_same_every_time() -> None:
    values = np.random.default_rng(5).normal(0.1, 1, 40).tolist()

    first, second = (Mean(values, (-1.0, 1.0), paired=True) for _ in range(2))

    assert (first.interval(0.95), first.above(0.0)) == (second.interval(0.95), second.above(0.0))


@pytest.mark.parametrize("n", range(2, 11))
def test_sign_flips_are_the_permutation_test(n: int) -> None:
    values = np.random.default_rng(n).normal(0.4, 1, n).round(1)
    expected = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", alternative="greater", n_resamples=np.inf
    ).pvalue

    assert means.sign_flips(values, 1) == pytest.approx(expected, abs=1e-9)


def test_random_sign_flips_are_close_to_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(6).normal(0.5, 1, 13)
    exact = means.sign_flips(values, 1)

    monkeypatch.setattr(means, "FEWEST", 5)

    assert means.sign_flips(values, 1) == pytest.approx(exact, abs=0.01)


def test_the_error_of_clustered_means_is_statsmodels() -> None:
    for seed in range(30):
        chosen = np.random.default_rng(seed)
        clusters = chosen.integers(0, 15, 80)
        values = chosen.normal(0, 1, 80) + chosen.normal(0, 1, 15)[clusters]
        fitted = sm.OLS(values, np.ones(80)).fit(cov_type="cluster", cov_kwds={"groups": clusters})

        assert Mean(values.tolist(), (-9, 9), clusters.tolist()).error == pytest.approx(float(fitted.bse[0]))


def test_clusters_of_one_change_nothing_and_copies_count_once() -> None:
    alone = [float(x) for x in np.random.default_rng(4).random(60) < 0.8]

    same = proportions.clustered(alone, range(60))
    copied = proportions.clustered(alone * 5, list(range(60)) * 5)

    assert (sum(alone), 60) == (pytest.approx(same.passed), pytest.approx(same.n))
    assert copied.n == pytest.approx(60, rel=0.05)
    assert proportions.clustered([1.0] * 300, list(range(60)) * 5).n == 60


def test_a_judge_that_never_errs_changes_nothing() -> None:
    sure = Calibration(10**9, 10**9, 10**9, 10**9)
    for passed, n in tables(500):
        expected = proportion_confint(passed, n, 0.05, "agresti_coull")

        assert Corrected(Share(passed, n), sure).value == pytest.approx(passed / n, abs=1e-6)
        assert Corrected(Share(passed, n), sure).interval(0.95) == pytest.approx(expected, abs=1e-4)


def test_the_truth_behind_a_judge_is_inside_as_often_as_promised() -> None:
    chosen, n, hits, inside, paired = np.random.default_rng(9), 150, 3000, 0, 0
    truth, sees_good, sees_bad = 0.8, 0.95, 0.85
    for _ in range(hits):
        judge = Calibration(60, int(chosen.binomial(60, sees_good)), 60, int(chosen.binomial(60, sees_bad)))
        apparent = truth * sees_good + (1 - truth) * (1 - sees_bad)
        low, high = Corrected(Share(int(chosen.binomial(n, apparent)), n), judge).interval(0.95)
        inside += low <= truth <= high
    for _ in range(200):
        judge = Calibration(60, int(chosen.binomial(60, sees_good)), 60, int(chosen.binomial(60, sees_bad)))
        gained, lost, _ = chosen.multinomial(n, [0.16, 0.08, 0.76])
        low, high = CorrectedDifference(Flips(int(gained), int(lost), n), judge).interval(0.95)
        paired += low <= 0.08 / 0.8 <= high

    assert inside / hits >= 0.94
    assert paired / 200 >= 0.95


def test_capital_is_what_the_bets_would_have_paid() -> None:
    from reconciler.stats.betting import STAKES

    values, line = np.random.default_rng(10).random(40), 0.4
    held = [1.0] * len(STAKES)
    most = 1.0
    for value in values:
        held = [each * (1 + stake * (value / line - 1)) for each, stake in zip(held, STAKES, strict=True)]
        most = max(most, sum(held) / len(held))

    assert float(capital(values, line)) == pytest.approx(math.log(most))


def test_the_ends_of_a_running_interval_are_where_its_p_values_cross() -> None:
    for seed in range(10):
        running = Running(np.random.default_rng(seed).beta(2, 1, 80).tolist(), (0.0, 1.0))
        low, high = running.interval(0.95)

        assert running.above(low) == pytest.approx(0.025, abs=1e-3)
        assert running.below(high) == pytest.approx(0.025, abs=1e-3)


def test_a_grown_eval_only_adds_to_what_the_bets_have_shown() -> None:
    values = np.random.default_rng(11).beta(3, 1, 200).tolist()

    ps = [Running(values[:n], (0.0, 1.0)).above(0.6) for n in range(1, 201, 20)]

    assert sorted(ps, reverse=True) == ps


@pytest.mark.parametrize(
    "estimate, line",
    [(Share(90, 100), 0.85), (Share(0, 100), 0.01), (Flips(14, 6, 100), 0.0), (Flips(5, 5, 100), -0.02)],
)
def test_that_many_more_items_would_have_told(estimate: Share | Flips, line: float) -> None:
    more = estimate.more(line, 0.025)
    factor = (estimate.n + more) / estimate.n
    grown = type(estimate)(*(round(getattr(estimate, f) * factor) for f in type(estimate).__dataclass_fields__
                             if f != "method"))  # fmt: skip

    assert more > 0
    assert min(grown.above(line), grown.below(line)) <= 0.027
