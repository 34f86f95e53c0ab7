"""
The gate: which model a channel serves, decided by what was measured and by nothing else.

A rule's fingerprint holds its gates and the fingerprints of the runs they rest on, so a release that
carries it is settled, and one that does not is judged again from results that already exist.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from reconciler import fingerprint, lineage, promotion, release
from reconciler.errors import Problem
from reconciler.evidence import measured
from reconciler.kind import Action, Ask, Decision, Kind, Needs, Observed, Seen, Stamp, State
from reconciler.kinds.eval import CLUSTER
from reconciler.kinds.grader import model_name
from reconciler.kinds.model import ModelSpec
from reconciler.prices import Price, price
from reconciler.promotion import Airing, Policy, Tried
from reconciler.release import Channel
from reconciler.resource import Address, Desired, Need, Ref, Wanted
from reconciler.rule import (
    GRADER,
    INCUMBENT,
    Gate,
    PromotionRuleSpec,
    Results,
    foresee,
    run_of,
    told,
    trials,
)  # fmt: skip
from reconciler.world import Object, Platform

AGAIN = "+canary"  # behind the name of a run that a canary's time made necessary
__all__ = ["KIND", "PromotionRuleKind", "PromotionRuleSpec", "Results", "foresee", "run_of", "told", "trials"]


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
            compared = [spec.baseline] if gate.compares and spec.baseline else []
            for subject in dict.fromkeys([*spec.candidates, *compared]):
                if subject == INCUMBENT:
                    continue  # known once the channel was seen
                body = {
                    "eval": str(address),
                    "model": subject,
                    "dataset": measure.dataset,
                    "prompt": measure.prompt,
                    "tries": measure.tries if measure.tries > 1 else None,
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

    def bind(self, wanted: Wanted, seen: Seen, desired: Desired) -> list[Wanted]:
        """
        The incumbent is measured as the candidates are: the same eval, items, prompt and sampling.
        A canary that has had its time is measured again.
        """
        if wanted.body.get("baseline") != INCUMBENT and not wanted.body.get("canary"):
            return [wanted]
        spec: PromotionRuleSpec = self.spec(wanted)
        standing = _standing(spec.channel, seen)
        channel = release.read(standing.body) if standing else None
        if channel is None or channel.fingerprint == wanted.fingerprint:
            return [wanted]
        *more, bound = incumbent(wanted, spec, channel, desired) if spec.baseline == INCUMBENT else [wanted]
        return [*more, *_measured_again(bound, spec, channel, desired)]

    def gather(self, platform: Platform, wanted: Wanted, needs: Needs) -> Results:
        spec: PromotionRuleSpec = self.spec(wanted)
        own = {name: Price(**each.model_dump()) for name, each in spec.prices.items()}
        results = {}
        for index, gate in enumerate(spec.gates):
            measure = needs[wanted.needed(f"gates[{index}].eval")].body
            criterion = _criterion(wanted, gate, index, needs)
            called = {c["name"]: c.get("id", c["name"]) for c in measure["testing_criteria"]}
            for subject, address in _runs(wanted, spec, gate).items():
                run = needs[address]
                items = platform.list(f"evals/{run.body['eval_id']}/runs/{run.id}/output_items")
                results[subject, index] = measured(
                    items,
                    (run.body.get("result_counts") or {}).get("total", len(items)),
                    called.get(criterion, criterion),  # results are named by the criterion's id
                    (measure.get("metadata") or {}).get(CLUSTER),
                    _span(measure["testing_criteria"], criterion),
                    price(model_name(needs[_subject(wanted, subject)]), own),
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
        policy = Policy(
            str(wanted.address), wanted.fingerprint, spec.channel, spec.approval, spec.approved_fingerprint,
            spec.approved_by, spec.on_drift, spec.rollback,
            Airing(spec.canary.share, spec.canary.seconds) if spec.canary else None,
        )  # fmt: skip
        channel = release.read(standing.body) if standing else None
        tried = None if evidence is None else self._tried(wanted, spec, needs, evidence, channel)
        return promotion.decide(policy, channel, standing, tried)

    def _tried(
        self, wanted: Wanted, spec: PromotionRuleSpec, needs: Needs, results: Results, channel: Channel | None
    ) -> list[Tried]:
        models = {candidate: model_name(needs[Address.parse(candidate)]) for candidate in spec.candidates}
        itself = next(
            (c for c in models if spec.baseline == INCUMBENT and channel and channel.model == models[c]), None
        )
        tried = []
        for index, trial in enumerate(trials(spec, results, itself)):
            used = [_runs(wanted, spec, gate) for gate in spec.gates]
            who = (trial.candidate, spec.baseline)
            runs = list(dict.fromkeys(run for each in used for s, run in each.items() if s in who))
            record = {
                "candidate": trial.candidate,
                "subject": wanted.content[f"/candidates/{index}"]["is"],
                "prompt": lineage.prompt(needs[runs[0]]),
                "evidence": [
                    {"gate": at, "eval": spec.gates[at].eval, "metric": spec.gates[at].metric} | told(j)
                    for at, j in enumerate(trial.judgements)
                ],
                "lineage": lineage.of(Address.parse(trial.candidate), runs, needs),
            }
            tried.append(Tried(trial, models[trial.candidate], [needs[run].id for run in runs], record))
        return tried

    def ask(self, wanted: Wanted, needs: Needs, stamp: Stamp, decision: Decision) -> Ask:
        assert decision.body is not None  # or the engine would not ask
        body = dict(decision.body)
        body["metadata"] = body["metadata"] or stamp.metadata()
        return Ask(release.COLLECTION, body)

    def observe(self, made: Object) -> Observed:
        return Observed(
            made["name"], Stamp.read(made.get("metadata")), State.READY, made, made.get("created_at") or 0
        )


def _span(criteria: Iterable[Mapping[str, Any]], name: str | None) -> tuple[float, float]:
    """What the scores of one criterion, or of all together, can be."""
    spans = [c.get("range") or (0.0, 1.0) for c in criteria if name is None or c["name"] == name]
    return min([s[0] for s in spans], default=0.0), max([s[1] for s in spans], default=1.0)


def incumbent(wanted: Wanted, spec: PromotionRuleSpec, channel: Channel, desired: Desired) -> list[Wanted]:
    """The rule, bound to what its channel leads to now, behind the runs that measure that. Pure."""
    made_from = channel.subject or fingerprint.fingerprint(
        "Model", fingerprint.content(ModelSpec(id=channel.model), {}, lambda _, address: str(address))
    )
    same = (
        a for a, w in desired.items() if a.kind in ("Model", "FineTuneJob") and w.fingerprint == made_from
    )
    subject = next(same, Address("Model", f"{INCUMBENT}:{channel.model}"))
    more: dict[Address, Wanted] = {}
    if subject not in desired:
        body = {"id": channel.model}
        more[subject] = Wanted(
            subject, made_from, {"/id": channel.model}, (), body, {"wire_id": channel.model},
            wanted.file, wanted.line, implied=True,
        )  # fmt: skip
    runs = []
    for gate in (gate for gate in spec.gates if gate.compares):
        runs.append(run := run_of(gate.eval, str(subject)))
        if run not in desired:
            like = desired[run_of(gate.eval, spec.candidates[0])]
            content = like.content | {"/model": {"ref": str(subject), "is": made_from}}
            more[run] = replace(
                like,
                address=run,
                fingerprint=fingerprint.fingerprint(run.kind, content),
                content=content,
                needs=tuple(Need("model", subject) if n.field == "model" else n for n in like.needs),
                body=like.body | {"model": str(subject)},
            )
    needs = (*wanted.needs, Need(INCUMBENT, subject), *(Need(str(run), run) for run in dict.fromkeys(runs)))
    return [*more.values(), replace(wanted, needs=needs, facts=wanted.facts | {INCUMBENT: str(subject)})]


def _measured_again(
    wanted: Wanted, spec: PromotionRuleSpec, channel: Channel, desired: Desired
) -> list[Wanted]:
    """The rule behind the new runs of its canary, once that has had its time. Pure."""
    canary = channel.canary
    if not spec.canary or not canary or canary["fingerprint"] != wanted.fingerprint:
        return [wanted]
    if channel.seen_at < canary["since"] + spec.canary.seconds:
        return [wanted]
    candidate, attempt = canary["release"]["candidate"], 2 + len(channel.revocations(canary["model"]))
    more: dict[Address, Wanted] = {}
    for gate in filter(spec.reruns, spec.gates):
        like = desired[run_of(gate.eval, candidate)]
        content = like.content | {"/attempt": attempt}
        run = _again(like.address)
        more[run] = replace(
            like,
            address=run,
            fingerprint=fingerprint.fingerprint(run.kind, content),
            content=content,
            body=like.body | {"attempt": attempt},
        )
    needs = (*wanted.needs, *(Need(str(run), run) for run in more))
    return [*more.values(), replace(wanted, needs=needs, facts=wanted.facts | {AGAIN: candidate})]


def _again(run: Address) -> Address:
    return Address(run.kind, f"{run.name}{AGAIN}")


def _subject(wanted: Wanted, name: str) -> Address:
    return Address.parse(wanted.facts[INCUMBENT] if name == INCUMBENT else name)


def _runs(wanted: Wanted, spec: PromotionRuleSpec, gate: Gate) -> dict[str, Address]:
    """The runs that a gate rests on, by subject; the baseline's under the name that the rule gives it."""
    found = {subject: run_of(gate.eval, subject) for subject in spec.candidates}
    if (canary := wanted.facts.get(AGAIN)) in found and spec.reruns(gate):
        found[canary] = _again(found[canary])
    if gate.compares and spec.baseline:
        baseline = wanted.facts.get(INCUMBENT) if spec.baseline == INCUMBENT else spec.baseline
        if baseline:
            found[spec.baseline] = run_of(gate.eval, baseline)
    return found


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
