"""
What a platform knows, as the values of a report. Asks and never writes.

Output items are listed once and kept without their prompts, so that a run of tens of thousands of
items fits in memory; the gates judge the same slim items.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reconciler import engine, gates, release, rule
from reconciler import plan as planning
from reconciler.engine import World
from reconciler.errors import ReconcilerError, Unreachable
from reconciler.gates import Judgement, Trial, Verdict
from reconciler.kind import Action, Observed, State
from reconciler.plan import Step
from reconciler.report import origins, wire
from reconciler.report.values import BASELINE, CANDIDATE, SUBJECT, Gate, Report, Run
from reconciler.resource import Address, Desired, Wanted
from reconciler.rule import INCUMBENT, PromotionRuleSpec
from reconciler.subject import measured_by, samples_of
from reconciler.world import Object, Platform

REPORTED = ("EvalRun", "PromotionRule")
Steps = Mapping[Address, Step]


class Slim:
    """A platform to read from, that lists the output items of a run once and keeps what reports need."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._items: dict[str, list[Object]] = {}
        self.name, self.capabilities = platform.name, platform.capabilities

    def list(self, collection: str, **where: str) -> list[Object]:
        if not collection.endswith("/output_items") or where:
            return self._platform.list(collection, **where)
        if collection not in self._items:
            self._items[collection] = [wire.slim(item) for item in self._platform.list(collection)]
        return self._items[collection]

    def latest(self, collection: str, limit: int, **where: str) -> Sequence[Object]:
        return self._platform.latest(collection, limit, **where)

    def get(self, collection: str, id: str) -> Object | None:
        return self._platform.get(collection, id)

    def content(self, id: str) -> bytes:
        return self._platform.content(id)

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> Object:
        raise AssertionError(f"a report asked {self.name} to create one of {collection}")

    def delete(self, collection: str, id: str) -> None:
        raise AssertionError(f"a report asked {self.name} to delete one of {collection}")


def report(desired: Desired, wanted: Wanted, world: World, made_at: float) -> Report:
    """
    Everything known of an eval run or a promotion rule.

    Raises ReconcilerError where there is nothing to report on yet, PlatformError where it cannot be seen.
    """
    if wanted.address.kind not in REPORTED:
        what = f"{wanted.address} has no report; there is one for each {' and '.join(REPORTED)}"
        raise ReconcilerError(what)
    world = replace(world, platform=Slim(world.platform))
    around = _around(desired, wanted)
    sight = engine.look(around, world)
    if sight.unseen:
        raise Unreachable(next(iter(sight.unseen.values())))
    made = planning.make(sight.desired, world.kinds, sight.actual, sight.evidence, {})
    steps = {step.address: step for step in made.steps}
    tell = _rule if wanted.address.kind == "PromotionRule" else _run
    told = tell(steps[wanted.address], steps, world, made_at)
    return replace(
        told, origins=origins.origins(told.runs, steps), cards=origins.cards(told.runs, steps, world.platform)
    )


def _around(desired: Desired, wanted: Wanted) -> Desired:
    """The resource and all it rests on, in order."""
    found, waiting = set[Address](), [wanted.address]
    while waiting:
        if (address := waiting.pop()) not in found:
            found.add(address)
            waiting += [need.address for need in desired[address].needs]
    return {address: each for address, each in desired.items() if address in found}


def _run(step: Step, steps: Steps, world: World, made_at: float) -> Report:
    if step.action is not Action.KEEP:
        why = f"; {step.decision.why}" if step.decision.why else ""
        raise ReconcilerError(f"{step.address} is not measured yet{why}; run `reconciler apply`, then report")
    run = _read([step], steps, world.platform, SUBJECT)
    n = max(run.total, len(run.items))
    headline = f"{run.passed} of {n} items pass"
    detail = f"{run.subject} measured by {run.eval}. A run has no gate: a promotion rule decides."
    return Report(
        world.project, world.platform.name, str(step.address), made_at, headline, detail, None, (run,)
    )


def _rule(step: Step, steps: Steps, world: World, made_at: float) -> Report:
    spec = PromotionRuleSpec.model_validate(step.wanted.body)
    needed = list(dict.fromkeys(n.address for n in step.wanted.needs if n.address.kind == "EvalRun"))
    missing = [str(address) for address in needed if steps[address].action is not Action.KEEP]
    whole = [
        samples_of(first, needed)
        for first in needed
        if "#" not in first.name
        and "model" in steps[first].wanted.body
        and not set(map(str, samples_of(first, needed))) & set(missing)
    ]
    runs = [
        _read(
            [steps[address] for address in samples],
            steps,
            world.platform,
            CANDIDATE if measured_by(samples[0]) in spec.names else BASELINE,
        )
        for samples in whole
    ]
    if not runs:
        why = f"{step.address} has nothing measured yet; run `reconciler apply`, then report"
        raise ReconcilerError(why)
    read = {
        observed.id for each in whole for address in each if (observed := steps[address].decision.observed)
    }
    runs += _earlier(step, steps, world.platform, read)
    trials = () if missing else tuple(_recorded(step, spec) or _judged(step, spec, steps, world))
    headline, detail, verdict = said(spec, trials, step, missing)
    asked = tuple(
        Gate(
            gate.eval.removeprefix("Eval/"),
            gate.grader.removeprefix("Grader/") if gate.grader else None,
            f"{bound.metric} {gates.wanted(bound)}",
        )
        for gate, bound in zip(spec.gates, spec.rules, strict=True)
    )
    return Report(
        world.project, world.platform.name, str(step.address), made_at, headline, detail, verdict,
        tuple(runs), spec.confidence, asked, trials,
    )  # fmt: skip


def _judged(step: Step, spec: PromotionRuleSpec, steps: Steps, world: World) -> list[Trial]:
    """Every candidate before the gates, as they are now."""
    standing = {
        address: each.decision.observed
        for address, each in steps.items()
        if each.action is Action.KEEP and each.decision.observed
    }
    results = world.kinds[step.address.kind].gather(world.platform, step.wanted, standing)
    return rule.trials(spec, results)


def _released(step: Step) -> Mapping[str, Any]:
    """What the standing release says of itself, if this very rule made it."""
    observed = step.decision.observed
    settled = observed and observed.stamp and observed.stamp.fingerprint == step.wanted.fingerprint
    return release.read(observed.body).release if observed and settled else {}


def _recorded(step: Step, spec: PromotionRuleSpec) -> list[Trial]:
    """
    The verdict that the standing release rests on, where it was against what the channel led to before:
    that has moved on, so it cannot be judged again.
    """
    told = _released(step)
    evidence = told.get("evidence") or []
    if spec.baseline != INCUMBENT or len(evidence) != len(spec.gates):
        return []
    judgements = []
    for asked, each in zip(spec.rules, evidence, strict=True):
        estimate, low, high = (
            math.nan if each.get(name) is None else float(each[name]) for name in ("estimate", "low", "high")
        )
        judgements.append(
            Judgement(
                Verdict(each["verdict"]), asked, estimate, low, high, each["n"], each["sentence"],
                each["gained"], each["lost"],
            )
        )  # fmt: skip
    return [Trial(str(told["candidate"]), tuple(judgements))]


def _earlier(step: Step, steps: Steps, platform: Platform, known: set[str]) -> list[Run]:
    """The runs that the standing release was judged by and that nobody wants any more: its incumbent's."""
    found = []
    for told in (_released(step).get("lineage") or {}).get("runs") or []:
        address = Address.parse(str((told.get("eval") or {}).get("address", "")))
        if told["id"] in known or address not in steps:
            continue
        measure = steps[address].decision.observed
        body = platform.get(f"evals/{told['eval']['id']}/runs", told["id"]) if measure else None
        if measure and body:
            run = Observed(body["id"], None, State.READY, body, body.get("created_at") or 0)
            items = platform.list(f"evals/{measure.id}/runs/{run.id}/output_items")
            subject = measured_by(Address.parse(str(told["address"])))
            found.append(
                wire.run_of(str(told["address"]), address.name, subject, BASELINE, [run], measure.body, items)
            )
    return found


def said(
    spec: PromotionRuleSpec, trials: Sequence[Trial], step: Step, missing: Sequence[str]
) -> tuple[str, str, Verdict | None]:
    """The rule's verdict: in a few words, in a sentence, and as a value. Pure."""
    standing = step.decision.observed
    now = (
        f"{spec.channel} serves {standing.body['model']}."
        if standing
        else f"{spec.channel} serves nothing yet."
    )
    if not trials:
        return "Not measured yet", f"Waits for {', '.join(missing)}. {now}", None
    winner = next((trial for trial in trials if trial.verdict is Verdict.PASS), None)
    if winner:
        blocked = step.action is Action.BLOCK
        return (
            f"{winner.candidate} passes",
            f"{f'{step.decision.why}. ' if blocked else ''}{now}",
            Verdict.PASS,
        )
    nearest = next((t for t in trials if t.verdict is Verdict.INCONCLUSIVE), trials[0])
    words = "fails" if nearest.verdict is Verdict.FAIL else "is undecided: the items cannot tell yet"
    stopped = nearest.stopped_by
    why = f"Stopped by a gate: {stopped.sentence}. " if stopped else ""
    return f"{nearest.candidate} {words}", f"{why}{now}", nearest.verdict


def _read(samples: Sequence[Step], steps: Steps, platform: Platform, part: str) -> Run:
    """A wanted run that stands, together with those of its further samples."""
    first = samples[0]
    eval_ = first.wanted.needed("eval")
    runs, measure = [step.decision.observed for step in samples], steps[eval_].decision.observed
    stand = [run for run in runs if run]
    assert stand and measure is not None  # a kept run stands, and so does its eval
    items = [
        item for run in stand for item in platform.list(f"evals/{measure.id}/runs/{run.id}/output_items")
    ]
    subject = measured_by(first.address) or str(first.wanted.body.get("model", "the rows' own answers"))
    return wire.run_of(str(first.address), eval_.name, subject, part, stand, measure.body, items)
