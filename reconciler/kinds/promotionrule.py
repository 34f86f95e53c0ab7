"""
The gate: which model a channel serves, decided by what was measured and by nothing else.

A rule's fingerprint holds its gates and the fingerprints of the runs they rest on, so a release that
carries it is settled, and one that does not is judged again from results that already exist.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from reconciler import gates
from reconciler.errors import Problem
from reconciler.gates import ItemResult, Judgement, Measured, Verdict
from reconciler.kind import Action, Ask, Decision, Kind, Needs, Observed, Seen, Stamp, State
from reconciler.kinds.grader import model_name
from reconciler.resource import COSMETIC, Address, Ref, Spec, Wanted
from reconciler.world import Object, Platform

GRADER = Ref("Grader", or_text=True)
Subject = Annotated[str, Ref("Model", "FineTuneJob")]


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

    @model_validator(mode="after")
    def _one_bound(self) -> "Gate":
        bounds = [bound for bound in gates.BOUNDS if getattr(self, bound) is not None]
        if len(bounds) != 1:
            raise ValueError(
                f"a gate has exactly one of {', '.join(gates.BOUNDS)}; this one has {len(bounds)}"
            )
        if bounds[0] in ("improves_by", "not_worse_than") and self.metric == "fail_rate":
            raise ValueError(f"{bounds[0]} compares a pass_rate or a mean_score; turn the fail_rate around")
        return self

    @property
    def rule(self) -> gates.Rule:
        bound = next(bound for bound in gates.BOUNDS if getattr(self, bound) is not None)
        return gates.Rule(self.metric, bound, getattr(self, bound))

    @property
    def compares(self) -> bool:
        return self.rule.bound in ("improves_by", "not_worse_than")


class PromotionRuleSpec(Spec):
    channel: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$", description="the name applications call"
    )
    candidates: list[Subject] = Field(min_length=1, description="the first that passes wins")
    baseline: Subject | None = Field(None, description="what improves_by and not_worse_than compare with")
    gates: list[Gate] = Field(min_length=1)
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of every interval, two-sided")
    description: Annotated[str, COSMETIC] = ""

    @model_validator(mode="after")
    def _comparable(self) -> "PromotionRuleSpec":
        if self.baseline is None and any(gate.compares for gate in self.gates):
            raise ValueError("improves_by and not_worse_than need a baseline")
        return self


@dataclass(frozen=True)
class Trial:
    """One candidate before all gates."""

    candidate: str
    judgements: tuple[Judgement, ...]

    @property
    def verdict(self) -> Verdict:
        return gates.worst([judgement.verdict for judgement in self.judgements])


Results = Mapping[tuple[str, int], Measured]  # by subject and gate


def run_of(eval_: str, subject: str) -> Address:
    """The implied run of an eval on a subject. Pure."""
    return Address("EvalRun", f"{eval_.removeprefix('Eval/')}@{subject}")


def trials(spec: PromotionRuleSpec, results: Results) -> list[Trial]:
    """Every candidate before every gate, in order. Pure."""
    return [
        Trial(
            candidate,
            tuple(
                gates.judge(
                    gate.rule,
                    results[candidate, index],
                    results[spec.baseline, index] if gate.compares and spec.baseline else None,
                    spec.confidence,
                )
                for index, gate in enumerate(spec.gates)
            ),
        )
        for candidate in spec.candidates
    ]


def measured(items: Iterable[Object], total: int, criterion: str | None) -> Measured:
    """Output items of a run as results: of one criterion, or of all together. Pure."""
    found = {}
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
        found[str(item["datasource_item_id"])] = ItemResult(passed, score)
    return Measured(found, total)


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
                results[subject, index] = measured(
                    items,
                    (run.body.get("result_counts") or {}).get("total", len(items)),
                    _criterion(wanted, gate, index, needs),
                )
        return results

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
        verdict = "fails" if all(t.verdict is Verdict.FAIL for t in tried) else "is inconclusive on"
        short = next(j for t in tried for j in t.judgements if j.verdict is not Verdict.PASS)
        stays = f"; {spec.channel} stays on {standing.body['model']}" if standing else ""
        return Decision(
            Action.BLOCK,
            f"{tried[0].candidate} {verdict} a gate: {short.sentence}{stays}",
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
            "evidence": [
                {
                    "gate": index,
                    "verdict": str(j.verdict),
                    "sentence": j.sentence,
                    "estimate": j.estimate,
                    "low": j.low,
                    "high": j.high,
                    "n": j.n,
                }
                for index, j in enumerate(winner.judgements)
            ],
            "lineage": {
                str(need): needs[need].id for need in (n.address for n in wanted.needs) if need in needs
            },
        }
        return Ask("reconciler/aliases", body)

    def observe(self, made: Object) -> Observed:
        return Observed(
            made["name"], Stamp.read(made.get("metadata")), State.READY, made, made.get("created_at") or 0
        )


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
