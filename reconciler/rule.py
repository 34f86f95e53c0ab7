"""What a promotion rule says, and how its gates are asked. Pure."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from reconciler import foresight, gates
from reconciler.evidence import Case, Measured, Rule
from reconciler.gate import Gate
from reconciler.gates import Judgement, Trial, Verdict
from reconciler.resource import COSMETIC, Ref, ResourceSpec, Spec, seconds
from reconciler.subject import MODELS, Pair, Subject

INCUMBENT = "incumbent"
Baseline = Annotated[str, Ref(*MODELS, words=(INCUMBENT,))] | Pair


class CanarySpec(Spec):
    """How a new model is tried on a few users before it gets all of them."""

    share: float = Field(
        gt=0, lt=1, description="of users, by a hash of `user`; who names none gets the stable one"
    )
    soak: str = Field(pattern=r"^[0-9]{1,9}(s|m|h|d)$", description="how long, e.g. 1h")
    rerun: list[Annotated[str, Ref("Eval")]] | None = Field(
        None, description="evals that are measured again on it then; those of all gates if unset"
    )

    @property
    def seconds(self) -> int:
        return seconds(self.soak)


class PriceSpec(Spec):
    """USD per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(None, ge=0, description="of input that was read before; as input if unset")


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
        0.95, gt=0.5, le=0.999999, description="two-sided; half of the rest is the chance to promote wrongly"
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

    def level(self, gate: Gate) -> float:
        """The one-sided chance of a gate to promote wrongly."""
        level = (1 - self.confidence) / 2 / len(self.candidates)
        return level / sum(each.primary for each in self.gates) if gate.primary else level

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
                else _named(spec, index, next(tried[candidate]))
                for index, rule in rules.items()
            ),
        )
        for candidate in spec.names
    ]


def _named(spec: PromotionRuleSpec, index: int, judgement: Judgement) -> Judgement:
    """With the eval's name where the rule asks more than one."""
    names = [gate.eval.removeprefix("Eval/") for gate in spec.gates]
    if len(set(names)) == 1:
        return judgement
    return replace(judgement, sentence=f"{names[index]} {judgement.sentence}")


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
    return [
        f"gates[{index}] {gate.eval.removeprefix('Eval/')} {gate.metric} {gates.wanted(rule)}: "
        + foresight.foresee(
            rule, n_items[gate.eval], spec.level(gate), foresight.Expectation(**gate.expect.model_dump())
        )
        for index, (gate, rule) in enumerate(zip(spec.gates, spec.rules, strict=True))
    ]


def detectable(spec: PromotionRuleSpec, n_items: Mapping[str, int]) -> list[tuple[str, float | None]]:
    """
    The smallest improvement that each deciding gate can tell, with its metric; None where it can tell none. Pure.

    The primary gates decide; where none is marked, all that compare with the baseline do.
    """
    compared = [(gate, rule) for gate, rule in zip(spec.gates, spec.rules, strict=True) if gate.compares]
    deciding = [each for each in compared if each[0].primary] or compared
    return [
        (
            gate.metric,
            foresight.detectable(
                rule, n_items[gate.eval], spec.level(gate), foresight.Expectation(**gate.expect.model_dump())
            ),
        )
        for gate, rule in deciding
    ]


def told(judgement: Judgement) -> dict[str, Any]:
    """A judgement as plain values, for a release or a program. Pure."""
    numbers = ("sentence", "estimate", "low", "high", "confidence", "p", "n", "gained", "lost", "method")
    plain = {name: getattr(judgement, name) for name in numbers}
    return {"verdict": str(judgement.verdict)} | {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()
    }  # JSON knows neither NaN nor infinity
