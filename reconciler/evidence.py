"""
Evidence: what measured results say about one gate, before anybody says how sure one has to be. Pure.

Items are paired by id. What is missing or errored counts against the candidate: as the worst result of
its own, as the best of the baseline's. With more of that than `most_errors` nothing is comparable.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from reconciler.judge import Judge
from reconciler.prices import Price
from reconciler.stats import Estimate, Interval
from reconciler.stats.betting import Running
from reconciler.stats.flips import Flips
from reconciler.stats.means import Mean
from reconciler.stats.proportions import Calibration, Corrected, CorrectedDifference, Share, clustered
from reconciler.stats.quantiles import Quantile

COMPARING = ("improves_by", "not_worse_than")
LACKS = {
    "p95_latency_ms": "have no latency, which this platform may not tell",
    "cost_per_1k_items": "have no price; add the model's to the rule's prices or the project's",
}
BOUNDS = ("at_least", "at_most", *COMPARING)


class ItemResult(NamedTuple):
    """
    One graded item; with repeats, the mean of those that were graded. Both numbers are None when none was.

    `passed` is the share of its samples that passed, `score` is in the grader's own unit. Items of one
    `cluster` are not independent of each other. `lacking` is the share of its samples that errored or are
    missing, when some were graded.
    """

    passed: float | None
    score: float | None
    cluster: Hashable = None
    latency_ms: float | None = None  # None when the platform does not say
    usd: float | None = None  # None when nobody knows the price
    lacking: float = 0.0


@dataclass(frozen=True)
class Measured:
    """All items of one run, by item id; `total` is how many there should be, `span` what a score can be."""

    items: Mapping[str, ItemResult]
    total: int
    span: Interval = (0.0, 1.0)
    judge: Judge | None = None  # that graded them, where that was measured too


def measured(
    items: Iterable[Mapping[str, Any]],
    total: int,
    criterion: str | None,
    cluster: str | None = None,
    span: tuple[float, float] = (0.0, 1.0),
    price: Price | None = None,
    samples: int = 1,
    judge: Judge | None = None,
) -> Measured:
    """
    Output items as results: of one criterion, or of all together. Pure.

    `samples` of every item are expected, in one run or in several, and averaged; `total` counts them all.
    `cluster` names the item's field that says which items belong together.
    """
    found: dict[str, list[ItemResult]] = {}
    for item in items:
        graded = [r for r in item["results"] if criterion is None or r.get("name") == criterion]
        errored = (
            bool((item.get("sample") or {}).get("error"))
            or item["status"] not in ("pass", "fail")
            or not graded
        )
        scores = [r["score"] for r in graded if r.get("score") is not None]
        passed = None if errored else all(r["passed"] for r in graded)
        score = None if errored or not scores else sum(scores) / len(scores)
        group = (item.get("datasource_item") or {}).get(cluster) if cluster else None
        latency = (item.get("reconciler") or {}).get("latency_ms")
        usage = (item.get("sample") or {}).get("usage")
        usd = price.of(usage) if price and usage else None
        result = ItemResult(passed, score, None if group is None else str(group), latency, usd)
        found.setdefault(str(item["datasource_item_id"]), []).append(result)
    repeats = max([samples, *map(len, found.values())])
    together = {item: _together(results, repeats) for item, results in found.items()}
    return Measured(together, math.ceil(total / repeats), span, judge)


def _together(results: Sequence[ItemResult], samples: int) -> ItemResult:
    """The samples of one item as one result."""
    graded = [result for result in results if result.passed is not None]
    if samples == 1 or not graded:
        return results[0]
    whole = results if len(results) == samples else []
    times = [result.latency_ms for result in whole if result.latency_ms is not None]
    return ItemResult(
        _mean([result.passed for result in graded]),
        _mean([result.score for result in graded]),
        results[0].cluster,
        max(times) if times and len(times) == samples else None,
        _mean([result.usd for result in whole]),
        1 - len(graded) / samples,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one is unknown."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


class Rule(NamedTuple):
    """What a gate asks: one bound on one metric. `bound` is one of BOUNDS."""

    metric: str  # pass_rate | fail_rate | mean_score | p95_latency_ms | cost_per_1k_items
    bound: str
    value: float
    primary: bool = False  # of several such, one has to pass
    most_errors: float = 0.05  # a larger share of errored or missing items is not comparable
    anytime: bool = False
    calibration: Calibration | None = None  # of the judge that passed the items

    @property
    def compares(self) -> bool:
        return self.bound in COMPARING

    @property
    def line(self) -> float:
        return -self.value if self.bound == "not_worse_than" else self.value


class Case(NamedTuple):
    """One gate and the runs it is to be judged by; a baseline where it compares."""

    rule: Rule
    candidate: Measured
    baseline: Measured | None


@dataclass(frozen=True)
class Finding:
    """What a case shows, before anybody says how sure one has to be. `why` where it shows nothing."""

    rule: Rule
    n: int
    estimate: Estimate | None = None
    gained: int = 0
    lost: int = 0
    why: str = ""
    passes: float = 1.0  # p-value of the truth being on the wrong side of the line
    fails: float = 1.0  # and on the right side


def weigh(case: Case) -> Finding:
    """
    What a case shows, with the p-values that decide it.

    Where the judge could not grade some answers of its calibration, they decide against the candidate:
    both p-values are the largest that any grade of theirs would give.
    """
    rule, judge = case.rule, case.candidate.judge
    if judge is None:
        return _weigh(case)
    if flaw := judge.flaw(rule.most_errors):
        return Finding(rule, case.candidate.total, why=flaw)
    found = [_weigh(case._replace(rule=rule._replace(calibration=each))) for each in judge.possible]
    worst = max(found, key=lambda finding: finding.passes)
    return replace(worst, fails=max(finding.fails for finding in found))


def _weigh(case: Case) -> Finding:
    rule, candidate, baseline = case
    sides = [candidate, baseline] if rule.compares and baseline else [candidate]
    ids = sorted({i for side in sides for i in side.items}, key=lambda i: (len(i), i))
    n = max(len(ids), *(side.total for side in sides), 0)
    ids += [f"missing {index}" for index in range(n - len(ids))]
    lacking = sum(max(_lacking(rule, side.items.get(i)) for side in sides) for i in ids)
    if lacking > rule.most_errors * n or not n:
        share = f"{lacking / n:.0%} of the items" if n else "all 0 items"
        what = LACKS.get(rule.metric, "errored or are missing")
        why = f"not comparable: {share} {what}, at most {rule.most_errors:.0%} may"
        return Finding(rule, n, why=why)
    clusters = _clusters(ids, sides)
    if rule.compares:
        assert baseline is not None  # the manifest was refused otherwise
        finding = _compare(rule, ids, candidate, baseline, clusters)
    else:
        finding = Finding(rule, n, _absolute(rule, ids, candidate, clusters))
    estimate = finding.estimate
    assert estimate is not None
    over, under = estimate.above(rule.line), estimate.below(rule.line)
    passes, fails = (under, over) if rule.bound == "at_most" else (over, under)
    return Finding(rule, n, estimate, finding.gained, finding.lost, "", passes, fails)


def _value(rule: Rule, item: ItemResult | None) -> float | None:
    if item is None:
        return None
    match rule.metric:
        case "mean_score":
            return item.score
        case "p95_latency_ms":
            return item.latency_ms
        case "cost_per_1k_items":
            return None if item.usd is None else 1000 * item.usd
    return item.passed


def _lacking(rule: Rule, item: ItemResult | None) -> float:
    """The share of an item that nobody knows."""
    return 1.0 if item is None or _value(rule, item) is None else item.lacking


def _values(rule: Rule, ids: Sequence[str], side: Measured, instead: float) -> list[float]:
    """Every item's value, with `instead` for what of it is lacking."""
    return [_filled(rule, side.items.get(i), instead) for i in ids]


def _filled(rule: Rule, item: ItemResult | None, instead: float) -> float:
    value = _value(rule, item)
    if item is None or value is None:
        return instead
    return value if not item.lacking else value * (1 - item.lacking) + instead * item.lacking


def _span(rule: Rule, sides: Sequence[Measured]) -> Interval:
    """What a value can be: what was said, and what was seen."""
    if rule.metric != "mean_score":
        return 0.0, 1.0
    seen = [item.score for side in sides for item in side.items.values() if item.score is not None]
    return min([*seen, *(side.span[0] for side in sides)]), max([*seen, *(side.span[1] for side in sides)])


def _clusters(ids: Sequence[str], sides: Sequence[Measured]) -> list[Hashable] | None:
    """Which items belong together; None when all stand alone."""
    named = [
        next(
            (item.cluster for side in sides if (item := side.items.get(i)) and item.cluster is not None), None
        )
        for i in ids
    ]
    found: list[Hashable] = [("alone", i) if c is None else c for i, c in zip(ids, named, strict=True)]
    return found if len(set(found)) < len(found) else None


def _absolute(rule: Rule, ids: Sequence[str], side: Measured, clusters: list[Hashable] | None) -> Estimate:
    if rule.metric == "p95_latency_ms":
        return Quantile(_values(rule, ids, side, math.inf), 0.95)
    if rule.metric == "cost_per_1k_items":
        dearest = max(value for i in ids if (value := _value(rule, side.items.get(i))) is not None)
        return Mean(_values(rule, ids, side, dearest), (0.0, dearest), clusters)
    span, judge = _span(rule, [side]), rule.calibration
    worst = span[1] if rule.metric == "mean_score" and rule.bound == "at_most" else span[0]
    values = _values(rule, ids, side, worst)
    if rule.metric == "fail_rate":
        values, judge = [1 - value for value in values], judge.turned if judge else None
    if rule.anytime:
        return Running(values, span, clusters)
    if rule.metric == "mean_score":
        return Mean(values, span, clusters)
    if clusters is None and all(value in (0, 1) for value in values):
        share = Share(sum(values), len(values))
    else:
        share = clustered(values, clusters or range(len(values)))
    return Corrected(share, judge) if judge else share


def _compare(
    rule: Rule, ids: Sequence[str], candidate: Measured, baseline: Measured, clusters: list[Hashable] | None
) -> Finding:
    low, high = _span(rule, (candidate, baseline))
    ours, theirs = _values(rule, ids, candidate, low), _values(rule, ids, baseline, high)
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    gained, lost = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    span = low - high, high - low
    estimate: Estimate
    if rule.anytime:
        estimate = Running(differences, span, clusters)
    elif rule.metric == "pass_rate" and clusters is None and all(d in (-1, 0, 1) for d in differences):
        estimate = Flips(gained, lost, len(ids))
    else:
        estimate = Mean(differences, span, clusters, paired=True)
    if rule.calibration:
        estimate = CorrectedDifference(estimate, rule.calibration)
    flips = rule.metric == "pass_rate"
    return Finding(rule, len(ids), estimate, gained if flips else 0, lost if flips else 0)
