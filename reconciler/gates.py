"""
Judging: measured results in, verdicts out. Pure.

With `confidence` 0.95 a gate has two ways to be wrong, each with a probability of at most
(1 - confidence) / 2 = 2.5 %: to pass a candidate whose truth is on the wrong side of the gate's line,
and to fail one whose truth is on the right side. Between them it is inconclusive, and that promotes
nothing. What this holds for:

* promotion: all gates have to pass, so one bad metric stops a candidate with that certainty, however
  many gates there are; several `primary` gates, of which one suffices, and several candidates, of which
  the first that passes wins, share the 2.5 % by Holm's method;
* refusal: the fails of one candidate's gates share 2.5 %, by Holm's method too, so that a rule with many
  gates does not fail good candidates more often;
* looking again: the same results always get the same verdict. With `anytime` it holds for growing evals too.

It does not hold for what is trained until it passes: every new candidate is a new chance of 2.5 %, and items
that a candidate was tuned on prove nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from reconciler.evidence import Case, Finding, Measured, Rule, weigh
from reconciler.stats.multiplicity import adjusted, holm

UNITS = {"p95_latency_ms": "{:.0f} ms", "cost_per_1k_items": "${:.4g}"}


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Judgement:
    """A verdict with the numbers it rests on. `low` and `high` bound `estimate` at `confidence`."""

    verdict: Verdict
    rule: Rule
    estimate: float
    low: float
    high: float
    n: int
    sentence: str
    gained: int = 0  # items the candidate passes and the baseline does not
    lost: int = 0
    p: float = 1.0  # one-sided, of the truth being on the wrong side of the line
    confidence: float = math.nan  # after what other gates and candidates cost
    method: str = ""


@dataclass(frozen=True)
class Trial:
    """One candidate before all gates."""

    candidate: str
    judgements: tuple[Judgement, ...]

    @property
    def verdict(self) -> Verdict:
        """Every gate has to pass, but of several primary ones one does, if none shows the candidate worse."""
        primary = [j for j in self.judgements if j.rule.primary]
        verdicts = [j.verdict for j in self.judgements if not j.rule.primary]
        if any(j.high < 0 for j in primary):
            verdicts.append(Verdict.FAIL)
        elif primary:
            verdicts.append(_best([j.verdict for j in primary]))
        return worst(verdicts)

    @property
    def stopped_by(self) -> Judgement | None:
        """The first gate that keeps it from passing."""
        ranked = sorted(self.judgements, key=lambda j: (j.verdict is not self.verdict, j.rule.primary))
        return None if self.verdict is Verdict.PASS else ranked[0]


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """All gates together: fail over inconclusive over pass. Pure."""
    order = (Verdict.FAIL, Verdict.INCONCLUSIVE)
    return next((verdict for verdict in order if verdict in verdicts), Verdict.PASS)


def judge(rule: Rule, candidate: Measured, baseline: Measured | None, confidence: float) -> Judgement:
    """One gate's verdict, taken alone. Pure."""
    level = (1 - confidence) / 2
    return _judgement(weigh(Case(rule, candidate, baseline)), level, level)


def trials(cases: Mapping[str, Sequence[Case]], confidence: float) -> list[Trial]:
    """Every candidate before all its gates, in order. Pure."""
    level = (1 - confidence) / 2
    findings = {candidate: [weigh(case) for case in mine] for candidate, mine in cases.items()}
    shares = holm([_doubt(mine) for mine in findings.values()], level)
    return [
        Trial(
            candidate,
            tuple(map(_judgement, mine, _levels(mine, share), holm([f.fails for f in mine], level))),
        )
        for (candidate, mine), share in zip(findings.items(), shares, strict=True)
    ]


def _doubt(findings: Sequence[Finding]) -> float:
    """The smallest level at which all of it passes."""
    primary = [finding.passes for finding in findings if finding.rule.primary]
    return max([f.passes for f in findings if not f.rule.primary] + ([adjusted(primary)] if primary else []))


def _levels(findings: Sequence[Finding], level: float) -> list[float]:
    primary = iter(holm([finding.passes for finding in findings if finding.rule.primary], level))
    return [next(primary) if finding.rule.primary else level for finding in findings]


def _judgement(finding: Finding, passes_at: float, fails_at: float) -> Judgement:
    rule, estimate = finding.rule, finding.estimate
    if estimate is None:
        unknown = math.nan
        return Judgement(Verdict.INCONCLUSIVE, rule, unknown, unknown, unknown, finding.n, finding.why)
    verdict = (
        Verdict.PASS
        if finding.passes <= passes_at
        else Verdict.FAIL
        if finding.fails <= fails_at
        else Verdict.INCONCLUSIVE
    )
    confidence = 1 - 2 * (fails_at if verdict is Verdict.FAIL else passes_at)
    low, high = estimate.interval(confidence)
    unit = " points" if rule.compares and rule.metric != "mean_score" else ""
    said = (
        f"{rule.metric} {_show(estimate.value, rule)}{unit} [{_show(low, rule)}, {_show(high, rule)}], n={finding.n}; "
        f"wanted {wanted(rule)}"
    )
    if rule.compares:
        said += f"; p={finding.passes:.2g}"
    if finding.gained or finding.lost:
        said += f"; {finding.gained} items gained, {finding.lost} lost"
    if judge := rule.calibration:
        said += f"; its judge passes {judge.good_passed} of {judge.good} good and fails "
        said += f"{judge.bad_failed} of {judge.bad} bad answers"
    if verdict is Verdict.INCONCLUSIVE:
        level = passes_at if finding.passes < finding.fails else fails_at
        more = estimate.more(rule.line, level)
        said += (
            f"; about {more} more items would tell"
            if more
            else "; too close to the line to say how many items would tell"
        )
    return Judgement(
        verdict, rule, estimate.value, low, high, finding.n, said, finding.gained, finding.lost,
        finding.passes, confidence, estimate.method,
    )  # fmt: skip


def _best(verdicts: Sequence[Verdict]) -> Verdict:
    order = (Verdict.PASS, Verdict.INCONCLUSIVE)
    return next((verdict for verdict in order if verdict in verdicts), Verdict.FAIL)


def wanted(rule: Rule) -> str:
    """What a gate asks, in words."""
    words = {
        "at_least": "at least",
        "at_most": "at most",
        "improves_by": "better by more than",
        "not_worse_than": "not worse by more than",
    }
    if rule.metric in UNITS:
        return f"{words[rule.bound]} {_show(rule.value, rule)}"
    by = f"{100 * rule.value:g} points" if rule.compares else f"{rule.value:.1%}"
    return f"{words[rule.bound]} {f'{rule.value:g}' if rule.metric == 'mean_score' else by}"


def _show(value: float, rule: Rule) -> str:
    if rule.metric in UNITS:
        return UNITS[rule.metric].format(value) if math.isfinite(value) else "unknown"
    if rule.metric == "mean_score":
        return f"{value:+.3f}" if rule.compares else f"{value:.3f}"
    return f"{100 * value:+.1f}" if rule.compares else f"{value:.1%}"
