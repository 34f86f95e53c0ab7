"""
What a gate can tell on so many items, before anybody pays for measuring them. Pure, and without numpy.

Items are taken to be independent; where they come in clusters, less can be told.
"""

from collections.abc import Callable
from typing import NamedTuple

from reconciler.evidence import Rule
from reconciler.stats import power
from reconciler.stats.proportions import least_items


class Expectation(NamedTuple):
    """What the author of a gate expects; `effect` and `rate` in the metric's unit, None where not said."""

    effect: float | None = None  # by how much the candidate is better than the baseline
    rate: float | None = None  # what the candidate reaches
    disagreement: float = 0.2  # the share of items that only one of the two passes
    spread: float = 0.3  # the standard deviation of scores, or of their differences


def foresee(rule: Rule, n: int, level: float, expected: Expectation) -> str:
    """One sentence: the smallest truth the gate can detect, and how likely it is to pass. `level` is one-sided."""
    level = power.anytime(level) if rule.anytime else level
    if rule.metric == "p95_latency_ms":
        return _quick(rule, n, level)
    if rule.metric == "cost_per_1k_items":
        return f"n={n}: passes when the upper end of what they cost stays under ${rule.value:.4g}"
    return (_compared if rule.compares else _alone)(rule, n, level, expected)


def _quick(rule: Rule, n: int, level: float) -> str:
    """What an upper bound on the 95th percentile takes: so many of n answers under it."""
    least = power.detectable(lambda share: power.of_share(n, 0.95, share, level), 0.95, 1.0)
    if least is None:
        return f"n={n}: cannot pass, it takes {least_items(0.05, level)} items"
    return f"n={n}: passes {power.USUAL:.0%} of the time if {least:.1%} of answers take less than {rule.value:g} ms"


def detectable(rule: Rule, n: int, level: float, expected: Expectation) -> float | None:
    """
    The smallest improvement over the baseline that a comparing gate passes most of the time, in its metric's
    unit; None where no improvement does. `level` is one-sided.
    """
    return _least(rule, n, power.anytime(level) if rule.anytime else level, expected)


def _least(rule: Rule, n: int, level: float, expected: Expectation) -> float | None:
    farthest = rule.line + 10 * expected.spread if rule.metric == "mean_score" else 1.0
    return power.detectable(_chance(rule, n, level, expected), rule.line, farthest)


def _chance(rule: Rule, n: int, level: float, expected: Expectation) -> Callable[[float], float]:
    """How likely a comparing gate is to pass, by how much the candidate is really better."""
    if rule.metric == "mean_score":
        return lambda effect: power.of_mean(n, rule.line, effect, expected.spread, level)
    return lambda effect: power.of_flips(n, rule.line, effect, expected.disagreement, level)


def _compared(rule: Rule, n: int, level: float, expected: Expectation) -> str:
    if rule.metric == "mean_score":
        assumed = f"if differences spread by {expected.spread:g}"
    else:
        assumed = f"if they differ on {expected.disagreement:.0%}"
    chance, least = _chance(rule, n, level, expected), _least(rule, n, level, expected)
    shows = f"detects {_points(rule, least)}" if least is not None else "detects nothing"
    chances = f"passes {chance(0.0):.0%} if equal"
    if expected.effect is not None:
        chances += f", {chance(expected.effect):.0%} if better by {_points(rule, expected.effect)}"
    return f"n={n}, {assumed}: {shows}, {chances}"


def _alone(rule: Rule, n: int, level: float, expected: Expectation) -> str:
    up = rule.bound == "at_least"
    if rule.metric == "mean_score":
        sign = 1 if up else -1

        def chance(rate: float) -> float:
            return power.of_mean(n, sign * rule.value, sign * rate, expected.spread, level)

        farthest = rule.value + sign * 10 * expected.spread
    else:

        def chance(rate: float) -> float:
            line, truth = (rule.value, rate) if up else (1 - rule.value, 1 - rate)
            return power.of_share(n, line, truth, level)

        farthest = 1.0 if up else 0.0
        if chance(farthest) < 1:
            rare = 1 - rule.value if up else rule.value
            return f"n={n}: cannot pass, it takes {least_items(rare, level)} items without a single miss"
    least = power.detectable(chance, rule.value, farthest)
    assert least is not None  # the farthest truth always passes
    said = f"n={n}: needs a true {_shown(rule, least)} to pass {power.USUAL:.0%} of the time"
    if expected.rate is not None:
        said += f", passes {chance(expected.rate):.0%} at {_shown(rule, expected.rate)}"
    return f"{said}, {chance(rule.value):.0%} at {_shown(rule, rule.value)}"


def _points(rule: Rule, value: float) -> str:
    if rule.metric == "mean_score":
        return f"{value:+.3f}"
    return f"{100 * value:+.1f} points"


def _shown(rule: Rule, value: float) -> str:
    return f"{value:.3f}" if rule.metric == "mean_score" else f"{value:.1%}"
