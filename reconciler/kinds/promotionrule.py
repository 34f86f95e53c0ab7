"""
The gate: which model a channel serves, decided by what was measured and by nothing else.

A rule's fingerprint holds its gates and the fingerprints of the runs they rest on, so a release that
carries it is settled, and one that does not is judged again from results that already exist.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from reconciler import foresight, gates
from reconciler.errors import Problem
from reconciler.evidence import BOUNDS, Case, Measured, Rule, measured
from reconciler.gates import Judgement, Trial, Verdict
from reconciler.kind import Action, Ask, Decision, Kind, Needs, Observed, Seen, Stamp, State
from reconciler.kinds.eval import CLUSTER
from reconciler.kinds.grader import model_name
from reconciler.resource import COSMETIC, Address, Desired, Ref, Spec, Wanted
from reconciler.stats import proportions
from reconciler.world import Object, Platform

GRADER = Ref("Grader", or_text=True)
Subject = Annotated[str, Ref("Model", "FineTuneJob")]


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
    metric: Literal["pass_rate", "fail_rate", "mean_score"] = "pass_rate"
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


class PromotionRuleSpec(Spec):
    channel: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$", description="the name applications call"
    )
    candidates: list[Subject] = Field(min_length=1, description="the first that passes wins")
    baseline: Subject | None = Field(None, description="what improves_by and not_worse_than compare with")
    gates: list[Gate] = Field(min_length=1)
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
    description: Annotated[str, COSMETIC] = ""

    @model_validator(mode="after")
    def _comparable(self) -> "PromotionRuleSpec":
        if self.baseline is None and any(gate.compares for gate in self.gates):
            raise ValueError("improves_by and not_worse_than need a baseline")
        if self.anytime and any(gate.calibration for gate in self.gates):
            raise ValueError("anytime and a calibration do not go together; drop one of them")
        return self

    @property
    def rules(self) -> list[Rule]:
        return [gate.rule(self.max_error_share, self.anytime) for gate in self.gates]


Results = Mapping[tuple[str, int], Measured]  # by subject and gate


def run_of(eval_: str, subject: str) -> Address:
    """The implied run of an eval on a subject. Pure."""
    return Address("EvalRun", f"{eval_.removeprefix('Eval/')}@{subject}")


def trials(spec: PromotionRuleSpec, results: Results) -> list[Trial]:
    """Every candidate before every gate, in order. Pure."""
    cases = {
        candidate: [
            Case(
                rule,
                results[candidate, index],
                results[spec.baseline, index] if rule.compares and spec.baseline else None,
            )
            for index, rule in enumerate(spec.rules)
        ]
        for candidate in spec.candidates
    }
    return gates.trials(cases, spec.confidence)


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


class PromotionRuleKind(Kind):
    """A release: what the channel's name stands for."""

    name = "PromotionRule"
    Spec = PromotionRuleSpec
    noun = "release"
    collection = "reconciler/aliases"
    measures = True

    def implies(
        self, spec: PromotionRuleSpec, find: Callable[[Address], Any]
    ) -> Iterable[tuple[Address, dict[str, Any]]]:
        for gate in spec.gates:
            address = Ref("Eval").address(gate.eval)
            if address is None or (measure := find(address)) is None:
                continue
            subjects = [*spec.candidates, *([spec.baseline] if gate.compares and spec.baseline else [])]
            for subject in dict.fromkeys(subjects):
                body = {
                    "eval": str(address),
                    "model": subject,
                    "dataset": measure.dataset,
                    "prompt": measure.prompt,
                }
                params = measure.sampling_params.model_dump(exclude_none=True)
                yield (
                    run_of(gate.eval, subject),
                    {k: v for k, v in body.items() if v is not None} | {"sampling_params": params},
                )

    def owns(self, spec: PromotionRuleSpec) -> str:
        return f"channel {spec.channel}"

    def check(
        self, wanted: Wanted, spec: PromotionRuleSpec, needs: Mapping[Address, Wanted]
    ) -> Iterable[Problem]:
        for index, gate in enumerate(spec.gates):
            measure = needs[wanted.needed(f"gates[{index}].eval")]
            named = [
                g if isinstance(g, str) else str(g.get("name") or f"grader-{i}")
                for i, g in enumerate(measure.body["graders"])
            ]
            if gate.grader and gate.grader.removeprefix("Grader/") not in (
                n.removeprefix("Grader/") for n in named
            ):
                what = f"gates[{index}]: {measure.address} has no grader {gate.grader}; it has {', '.join(named)}"
                yield Problem(wanted.where, what)

    def look(self, platform: Platform, project: str, parents: Iterable[Observed] = ()) -> list[Observed]:
        return [self.observe(alias) for alias in platform.list("reconciler/aliases")]

    def gather(self, platform: Platform, wanted: Wanted, needs: Needs) -> Results:
        spec: PromotionRuleSpec = self.spec(wanted)
        results = {}
        for index, gate in enumerate(spec.gates):
            for subject in {*spec.candidates, *([spec.baseline] if gate.compares and spec.baseline else [])}:
                run = needs[run_of(gate.eval, subject)]
                items = platform.list(f"evals/{run.body['eval_id']}/runs/{run.id}/output_items")
                measure = needs[wanted.needed(f"gates[{index}].eval")].body
                criterion = _criterion(wanted, gate, index, needs)
                results[subject, index] = measured(
                    items,
                    (run.body.get("result_counts") or {}).get("total", len(items)),
                    criterion,
                    (measure.get("metadata") or {}).get(CLUSTER),
                    _span(measure["testing_criteria"], criterion),
                )
        return results

    def foresee(self, wanted: Wanted, desired: Desired) -> Iterable[str]:
        spec: PromotionRuleSpec = self.spec(wanted)
        runs = {gate.eval: desired[run_of(gate.eval, spec.candidates[0])] for gate in spec.gates}
        return foresee(spec, {e: desired[run.needed("dataset")].facts["rows"] for e, run in runs.items()})

    def decide(self, wanted: Wanted, seen: Seen, needs: Needs, evidence: Any = None) -> Decision:
        spec: PromotionRuleSpec = self.spec(wanted)
        standing = _standing(spec.channel, seen)
        if standing and standing.stamp and standing.id in seen.unstamped:
            owner = standing.stamp.project
            return Decision(
                Action.BLOCK, f"{spec.channel} belongs to the project {owner}; choose another channel"
            )
        settled = standing and standing.stamp and standing.stamp.fingerprint == wanted.fingerprint
        if standing and settled and standing.body.get("file", "same") == "same":
            return Decision(Action.KEEP, f"{spec.channel} → {standing.body['model']}", standing)
        move = Action.UPDATE if standing else Action.CREATE
        if evidence is None:
            why = f"the release file {standing.body['file']}; " if standing and settled else ""
            return Decision(move, f"{why}decided by its gates once everything is measured", standing)
        tried = trials(spec, evidence)
        winner = next((trial for trial in tried if trial.verdict is Verdict.PASS), None)
        if winner:
            return Decision(
                move, f"{winner.candidate} passes {len(spec.gates)} gates", standing, evidence=tried
            )
        nearest = next((t for t in tried if t.verdict is Verdict.INCONCLUSIVE), tried[0])
        verdict = "fails" if nearest.verdict is Verdict.FAIL else "is inconclusive on"
        short = nearest.stopped_by
        assert short  # or it would have won
        stays = f"; {spec.channel} stays on {standing.body['model']}" if standing else ""
        return Decision(
            Action.BLOCK,
            f"{nearest.candidate} {verdict} a gate: {short.sentence}{stays}",
            standing,
            evidence=tried,
        )

    def ask(self, wanted: Wanted, needs: Needs, stamp: Stamp, decision: Decision) -> Ask:
        spec: PromotionRuleSpec = self.spec(wanted)
        winner = next(trial for trial in decision.evidence if trial.verdict is Verdict.PASS)
        model = needs[Address.parse(winner.candidate)]
        body = {
            "name": spec.channel,
            "model": model_name(model),
            "metadata": stamp.metadata() | {"candidate": winner.candidate},
            "evidence": [{"gate": index} | told(j) for index, j in enumerate(winner.judgements)],
            "lineage": {
                str(need): needs[need].id for need in (n.address for n in wanted.needs) if need in needs
            },
        }
        return Ask("reconciler/aliases", body)

    def observe(self, made: Object) -> Observed:
        return Observed(
            made["name"], Stamp.read(made.get("metadata")), State.READY, made, made.get("created_at") or 0
        )


def told(judgement: Judgement) -> dict[str, Any]:
    """A judgement as plain values, for a release or a program. Pure."""
    numbers = ("sentence", "estimate", "low", "high", "confidence", "p", "n", "gained", "lost", "method")
    plain = {name: getattr(judgement, name) for name in numbers}
    return {"verdict": str(judgement.verdict)} | {
        k: None if v != v else v for k, v in plain.items()
    }  # no NaN


def _span(criteria: Iterable[Mapping[str, Any]], name: str | None) -> tuple[float, float]:
    """What the scores of one criterion, or of all together, can be."""
    spans = [c.get("range") or (0.0, 1.0) for c in criteria if name is None or c["name"] == name]
    return min([s[0] for s in spans], default=0.0), max([s[1] for s in spans], default=1.0)


def _standing(channel: str, seen: Seen) -> Observed | None:
    objects = [o for hits in seen.by_fingerprint.values() for o in hits] + list(seen.unstamped.values())
    return next((each for each in objects if each.id == channel), None)


def _criterion(wanted: Wanted, gate: Gate, index: int, needs: Needs) -> str | None:
    """What the eval calls the gate's grader: found by what it does, since it may have been renamed since."""
    if gate.grader is None or not (address := GRADER.address(gate.grader)):
        return gate.grader
    grader = {k: v for k, v in needs[address].body.items() if k != "name"}
    criteria = needs[wanted.needed(f"gates[{index}].eval")].body["testing_criteria"]
    return next((c["name"] for c in criteria if grader.items() <= c.items()), gate.grader)


KIND = PromotionRuleKind()
