"""What a promotion rule says, and how its gates are asked. Pure."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from reconciler import foresight, gates
from reconciler.evidence import BOUNDS, Case, Measured, Rule
from reconciler.gates import Judgement, Trial, Verdict
from reconciler.resource import COSMETIC, Ref, ResourceSpec, Spec
from reconciler.stats import proportions
from reconciler.subject import MODELS, Pair, Subject

GRADER = Ref("Grader", or_text=True)
INCUMBENT = "incumbent"
Baseline = Annotated[str, Ref(*MODELS, words=(INCUMBENT,))] | Pair


class Expected(Spec):
    """What the author expects; only for what a plan says about chances, never for a verdict."""

    effect: float | None = Field(None, description="by how much the candidate is better than the baseline")
    rate: float | None = Field(None, description="what the candidate reaches on an absolute gate")
    disagreement: float = Field(0.2, gt=0, le=1, description="share of items that only one of the two passes")
    spread: float = Field(0.3, gt=0, description="standard deviation of scores, or of paired differences")


class Calibration(Spec):
    """How the judge of this gate did on items whose truth people know; corrects what it says."""

    good: int = Field(gt=0, description="items that are good")
    good_passed: int = Field(ge=0, description="of these, how many the judge passed")
    bad: int = Field(gt=0, description="items that are bad")
    bad_failed: int = Field(ge=0, description="of these, how many the judge failed")

    @model_validator(mode="after")
    def _better_than_guessing(self) -> "Calibration":
        if self.good_passed > self.good or self.bad_failed > self.bad:
            raise ValueError("good_passed is a part of good, bad_failed a part of bad")
        if self.values.sharpness <= 0:
            raise ValueError("this judge is no better than guessing; no number of items makes up for that")
        return self

    @property
    def values(self) -> proportions.Calibration:
        return proportions.Calibration(self.good, self.good_passed, self.bad, self.bad_failed)


class Gate(Spec):
    eval: Annotated[str, Ref("Eval")]
    metric: Literal["pass_rate", "fail_rate", "mean_score", "p95_latency_ms", "cost_per_1k_items"] = (
        "pass_rate"
    )
    grader: Annotated[str | None, GRADER] = Field(
        None,
        description="judge this grader of the eval alone (Grader/name, or an inline one's name); all if unset",
    )
    at_least: float | None = Field(None, description="the lower end of the interval must reach it")
    at_most: float | None = Field(None, description="the upper end of the interval must stay under it")
    improves_by: float | None = Field(
        None, ge=0, description="better than the baseline by more than this, paired"
    )
    not_worse_than: float | None = Field(
        None, gt=0, description="not worse than the baseline by more than this, paired"
    )
    primary: bool = Field(
        False,
        description="of several primary gates one has to pass, at a level that pays for the choice (Holm)",
    )
    calibration: Calibration | None = Field(None, description="of the judge that passes this gate's items")
    expect: Annotated[Expected, COSMETIC] = Expected()

    @model_validator(mode="after")
    def _one_bound(self) -> "Gate":
        bounds = [bound for bound in BOUNDS if getattr(self, bound) is not None]
        if len(bounds) != 1:
            raise ValueError(f"a gate has exactly one of {', '.join(BOUNDS)}; this one has {len(bounds)}")
        if bounds[0] in ("improves_by", "not_worse_than") and self.metric == "fail_rate":
            raise ValueError(f"{bounds[0]} compares a pass_rate or a mean_score; turn the fail_rate around")
        if self.primary and bounds[0] != "improves_by":
            raise ValueError("primary marks what has to improve; it goes with improves_by")
        if self.metric in gates.UNITS:
            if bounds[0] != "at_most" or self.at_most is None or self.at_most <= 0:
                raise ValueError(f"{self.metric} goes with at_most, and something above 0")
            if self.grader or self.calibration:
                raise ValueError(
                    f"{self.metric} is of whole answers; it goes with no grader and no calibration"
                )
            return self
        if self.metric == "mean_score" and self.calibration:
            raise ValueError("a calibration corrects a pass_rate or a fail_rate, not a mean_score")
        if self.metric != "mean_score" and not self.compares and not 0 < self.rule().value < 1:
            raise ValueError(
                f"{bounds[0]} lies between 0 and 1: a finite number of items never shows {self.rule().value:g}"
            )
        return self

    def rule(self, most_errors: float = 0.05, anytime: bool = False) -> Rule:
        bound = next(bound for bound in BOUNDS if getattr(self, bound) is not None)
        judge = self.calibration.values if self.calibration else None
        return Rule(self.metric, bound, getattr(self, bound), self.primary, most_errors, anytime, judge)

    @property
    def compares(self) -> bool:
        return self.rule().compares


class CanarySpec(Spec):
    """How a new model is tried on a few users before it gets all of them."""

    share: float = Field(
        gt=0, lt=1, description="of users, by a hash of `user`; who names none gets the stable one"
    )
    soak: str = Field(pattern=r"^[0-9]+(s|m|h|d)$", description="how long, e.g. 1h")
    rerun: list[Annotated[str, Ref("Eval")]] | None = Field(
        None, description="evals that are measured again on it then; those of all gates if unset"
    )

    @property
    def seconds(self) -> int:
        return int(self.soak[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[self.soak[-1]]


class PriceSpec(Spec):
    """USD per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class PromotionRuleSpec(ResourceSpec):
    channel: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$", description="the name applications call"
    )
    candidates: list[Subject] = Field(
        min_length=1,
        description="the first that passes wins; each a model, or {model, prompt} to try it with a prompt of its own",
    )
    baseline: Baseline | None = Field(
        None,
        description="what improves_by and not_worse_than compare with: a subject, or `incumbent`, "
        "which is what the channel leads to when the rule is judged",
    )
    gates: list[Gate] = Field(min_length=1)
    prices: dict[str, PriceSpec] = Field(
        default_factory=dict, description="USD per million tokens, by the beginning of a model's name"
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="two-sided; half of the rest is the chance to promote wrongly"
    )
    max_error_share: float = Field(
        0.05, ge=0, lt=1, description="with more errored or missing items nothing is comparable"
    )
    anytime: bool = Field(
        False,
        description="verdicts hold however often the evals grow and are looked at; takes nearly twice the items",
    )
    approval: Annotated[Literal["automatic", "manual"], COSMETIC] = "automatic"
    approved_fingerprint: Annotated[str | None, COSMETIC] = Field(
        None, description="what a person approves, as the plan says it; or use `reconciler approve`"
    )
    approved_by: Annotated[str | None, COSMETIC] = Field(None, description="who does, for the record")
    on_drift: Annotated[Literal["report", "restore"], COSMETIC] = Field(
        "report", description="what to do about a release file that somebody edited"
    )
    rollback: Annotated[Literal["automatic", "manual"], COSMETIC] = Field(
        "manual", description="whether the release before comes back when what stands fails its gates later"
    )
    canary: Annotated[CanarySpec | None, COSMETIC] = None
    description: Annotated[str, COSMETIC] = ""

    @model_validator(mode="before")
    @classmethod
    def _on_the_first_eval(cls, body: Any) -> Any:
        """Latency and cost are measured where the answers are, unless the gate says on what."""
        listed = body.get("gates") if isinstance(body, Mapping) else None
        if not isinstance(listed, list) or not all(isinstance(gate, Mapping) for gate in listed):
            return body
        first = next((gate["eval"] for gate in listed if "eval" in gate), None)
        if first is None:
            return body
        named = [{"eval": first, **gate} if gate.get("metric") in gates.UNITS else gate for gate in listed]
        return {**body, "gates": named}

    @model_validator(mode="after")
    def _comparable(self) -> "PromotionRuleSpec":
        if self.baseline is None and any(gate.compares for gate in self.gates):
            raise ValueError("improves_by and not_worse_than need a baseline")
        if self.anytime and any(gate.metric in gates.UNITS for gate in self.gates):
            raise ValueError("anytime does not go with latency or cost; drop one of them")
        if self.anytime and any(gate.calibration for gate in self.gates):
            raise ValueError("anytime and a calibration do not go together; drop one of them")
        return self

    @model_validator(mode="after")
    def _decisive(self) -> "PromotionRuleSpec":
        gated = {gate.eval.removeprefix("Eval/") for gate in self.gates}
        for each in (self.canary.rerun if self.canary else None) or []:
            if each.removeprefix("Eval/") not in gated:
                raise ValueError(
                    f"canary.rerun: no gate is on {each}, so measuring it again would decide nothing"
                )
        return self

    def reruns(self, gate: Gate) -> bool:
        """Whether a canary is measured again for this gate."""
        listed = self.canary.rerun if self.canary else None
        return listed is None or gate.eval.removeprefix("Eval/") in [e.removeprefix("Eval/") for e in listed]

    @property
    def names(self) -> list[str]:
        """Of the candidates."""
        return [str(candidate) for candidate in self.candidates]

    @property
    def against(self) -> str | None:
        """The name of the baseline."""
        return str(self.baseline) if self.baseline else None

    @property
    def rules(self) -> list[Rule]:
        return [gate.rule(self.max_error_share, self.anytime) for gate in self.gates]


Results = Mapping[tuple[str, int], Measured]  # by subject and gate


def trials(spec: PromotionRuleSpec, results: Results, itself: str | None = None) -> list[Trial]:
    """
    Every candidate before every gate, in order. Pure.

    A gate that compares has nothing to say without a baseline's results, or about `itself`, the
    candidate that is the incumbent: then the others decide.
    """
    rules = dict(enumerate(spec.rules))

    def void(candidate: str, index: int) -> bool:
        return rules[index].compares and (candidate == itself or (spec.against, index) not in results)

    cases: dict[str, list[Case]] = {}
    for candidate in spec.names:
        for index, rule in rules.items():
            if not void(candidate, index):
                before = results[spec.against, index] if rule.compares and spec.against else None
                cases.setdefault(candidate, []).append(Case(rule, results[candidate, index], before))
    tried = {t.candidate: iter(t.judgements) for t in gates.trials(cases, spec.confidence)} if cases else {}
    return [
        Trial(
            candidate,
            tuple(
                _nothing(spec, rule, candidate == itself, candidate in cases)
                if void(candidate, index)
                else next(tried[candidate])
                for index, rule in rules.items()
            ),
        )
        for candidate in spec.names
    ]


def _nothing(spec: PromotionRuleSpec, rule: Rule, itself: bool, others: bool) -> Judgement:
    """What a gate says that has nothing to compare with."""
    if itself:
        said, verdict = f"nothing to compare with: it is what {spec.channel} leads to", Verdict.PASS
    elif others:
        said, verdict = (
            f"nothing to compare with: {spec.channel} leads nowhere yet; the other gates decide",
            Verdict.PASS,
        )
    else:
        said, verdict = (
            f"nothing to compare with: {spec.channel} leads nowhere yet; add a gate with at_least or at_most",
            Verdict.INCONCLUSIVE,
        )
    return Judgement(verdict, rule, math.nan, math.nan, math.nan, 0, said)


def foresee(spec: PromotionRuleSpec, n_items: Mapping[str, int]) -> list[str]:
    """What each gate can tell on that many items of its eval, before they are measured. Pure."""
    level = (1 - spec.confidence) / 2 / len(spec.candidates)
    primary = sum(gate.primary for gate in spec.gates)
    return [
        f"gates[{index}] {gate.eval.removeprefix('Eval/')} {gate.metric} {gates.wanted(rule)}: "
        + foresight.foresee(
            rule,
            n_items[gate.eval],
            level / primary if gate.primary else level,
            foresight.Expectation(**gate.expect.model_dump()),
        )
        for index, (gate, rule) in enumerate(zip(spec.gates, spec.rules, strict=True))
    ]


def told(judgement: Judgement) -> dict[str, Any]:
    """A judgement as plain values, for a release or a program. Pure."""
    numbers = ("sentence", "estimate", "low", "high", "confidence", "p", "n", "gained", "lost", "method")
    plain = {name: getattr(judgement, name) for name in numbers}
    return {"verdict": str(judgement.verdict)} | {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()
    }  # JSON knows neither NaN nor infinity
