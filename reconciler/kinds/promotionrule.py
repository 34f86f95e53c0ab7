"""
The gate: which model a channel serves, decided by what was measured and by nothing else.

A rule's fingerprint holds its gates and the fingerprints of the runs they rest on, so a release that
carries it is settled, and one that does not is judged again from results that already exist.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from reconciler import judgedrows, lineage, promotion, release, standing
from reconciler.errors import Problem
from reconciler.evidence import measured
from reconciler.gate import GRADER, Gate
from reconciler.judge import counted
from reconciler.kind import Action, Ask, Decision, Kind, Needs, Observed, Seen, Stamp, State
from reconciler.kinds.eval import CLUSTER
from reconciler.kinds.evalrun import calibrating, implied
from reconciler.kinds.grader import model_name
from reconciler.prices import Price, price
from reconciler.promotion import Airing, Policy, Tried
from reconciler.release import Channel
from reconciler.resource import Address, Desired, Ref, Wanted
from reconciler.rule import INCUMBENT, PromotionRuleSpec, Results, foresee, told, trials
from reconciler.subject import AGAIN, again, model_of, prompt_of, run_of, samples_of
from reconciler.world import Object, Platform

__all__ = ["KIND", "PromotionRuleKind", "PromotionRuleSpec", "Results", "foresee", "run_of", "told", "trials"]


class PromotionRuleKind(Kind):
    """A release: what the channel's name stands for."""

    name = "PromotionRule"
    Spec = PromotionRuleSpec
    noun = "release"
    collection = "reconciler/aliases"
    measures = True

    def __init__(self, prices: Mapping[str, Price] = MappingProxyType({})) -> None:
        self.prices = prices  # the project's; a rule's own come first

    def implies(
        self, spec: PromotionRuleSpec, find: Callable[[Address], Any]
    ) -> Iterable[tuple[Address, dict[str, Any]]]:
        for gate in spec.gates:
            address = Ref("Eval").address(gate.eval)
            if address is None or (measure := find(address)) is None:
                continue
            compared = [spec.against] if gate.compares and spec.against else []
            for subject in dict.fromkeys([*spec.names, *compared]):
                if subject == INCUMBENT:
                    continue  # known once the channel was seen
                asked = prompt_of(subject) or (measure.prompt and Ref("Prompt").address(measure.prompt))
                for sample in range(1, measure.samples_per_item + 1):
                    question = find(asked) if asked else None
                    yield (
                        run_of(gate.eval, subject, sample),
                        implied(address, measure, subject, question, sample),
                    )
            if compared == [INCUMBENT] and measure.prompt and all(map(prompt_of, spec.names)):
                prompt = Ref("Prompt").address(
                    measure.prompt
                )  # which an incumbent may have been released with
                if prompt and find(prompt):
                    yield prompt, {}
        for gate in spec.gates:
            judging, address = _calibration(gate), Ref("Eval").address(gate.eval)
            if judging and gate.judged and address and (measure := find(address)):
                yield judging, calibrating(address, measure, gate.judged.dataset)

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
            if gate.judged:
                dataset = needs[wanted.needed(f"gates[{index}].calibration.dataset")]
                if told := judgedrows.unlabelled(dataset.facts["path"], gate.judged.label):
                    yield Problem(dataset.where, f"{dataset.address}: {told}")

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
        stands = _standing(spec.channel, seen)
        channel = release.read(stands.body) if stands else None
        if channel is None or channel.fingerprint == wanted.fingerprint:
            return [wanted]
        bound = [wanted]
        if spec.baseline == INCUMBENT:
            bound = standing.incumbent(wanted, spec, channel, desired)
        return [*bound[:-1], *standing.measured_again(bound[-1], spec, channel, desired)]

    def gather(self, platform: Platform, wanted: Wanted, needs: Needs) -> Results:
        spec: PromotionRuleSpec = self.spec(wanted)
        own = {name: Price(**each.model_dump()) for name, each in spec.prices.items()}
        results = {}
        for index, gate in enumerate(spec.gates):
            measure = needs[wanted.needed(f"gates[{index}].eval")].body
            criterion = _criterion(wanted, gate, index, needs)
            called = {c["name"]: c.get("id", c["name"]) for c in measure["testing_criteria"]}
            judge = None
            if (judging := _calibration(gate)) and gate.judged:
                items, total = _answers(platform, [needs[judging]])
                judge = counted(items, total, called.get(criterion, criterion), gate.judged.label)
            for subject, addresses in _runs(wanted, spec, gate).items():
                items, total = _answers(platform, [needs[address] for address in addresses])
                results[subject, index] = measured(
                    items,
                    total,
                    called.get(criterion, criterion),  # results are named by the criterion's id
                    (measure.get("metadata") or {}).get(CLUSTER),
                    _span(measure["testing_criteria"], criterion),
                    price(model_name(needs[model_of(_named(wanted, subject))]), own, self.prices),
                    len(addresses),
                    judge,
                )
        return results

    def foresee(self, wanted: Wanted, desired: Desired) -> Iterable[str]:
        spec: PromotionRuleSpec = self.spec(wanted)
        runs = {gate.eval: desired[run_of(gate.eval, spec.names[0])] for gate in spec.gates}
        told = foresee(spec, {e: desired[run.needed("dataset")].facts["rows"] for e, run in runs.items()})
        return [*told, *_judges(spec, desired), *_alike(spec, runs, desired)]

    def decide(self, wanted: Wanted, seen: Seen, needs: Needs, evidence: Any = None) -> Decision:
        spec: PromotionRuleSpec = self.spec(wanted)
        stands = _standing(spec.channel, seen)
        if stands and stands.stamp and stands.id in seen.unstamped:
            owner = stands.stamp.project
            return Decision(
                Action.BLOCK, f"{spec.channel} belongs to the project {owner}; choose another channel"
            )
        policy = Policy(
            str(wanted.address), wanted.fingerprint, spec.channel, spec.approval, spec.approved_fingerprint,
            spec.approved_by, spec.on_drift, spec.rollback,
            Airing(spec.canary.share, spec.canary.seconds) if spec.canary else None,
        )  # fmt: skip
        channel = release.read(stands.body) if stands else None
        tried = None if evidence is None else self._tried(wanted, spec, needs, evidence, channel)
        return promotion.decide(policy, channel, stands, tried)

    def _tried(
        self, wanted: Wanted, spec: PromotionRuleSpec, needs: Needs, results: Results, channel: Channel | None
    ) -> list[Tried]:
        models = {name: model_name(needs[model_of(name)]) for name in spec.names}
        prompts = [_prompt(wanted, f"/candidates/{i}", name, needs) for i, name in enumerate(spec.names)]
        itself = next(
            (
                name
                for name, prompt in zip(spec.names, prompts, strict=True)
                if spec.baseline == INCUMBENT and channel
                if channel.what == (models[name], release.prompt_in({"prompt": prompt}))
            ),
            None,
        )
        tried = []
        for index, trial in enumerate(trials(spec, results, itself)):
            used = [_runs(wanted, spec, gate) for gate in spec.gates]
            who = (trial.candidate, spec.against)
            runs = list(
                dict.fromkeys(run for each in used for s, all_ in each.items() if s in who for run in all_)
            )
            runs += dict.fromkeys(filter(None, map(_calibration, spec.gates)))
            at = f"/candidates/{index}"
            record = {
                "candidate": trial.candidate,
                "subject": wanted.content[f"{at}/model" if prompts[index] else at]["is"],
                "prompt": prompts[index] or lineage.prompt(needs[runs[0]]),
                "evidence": [
                    {"gate": n, "eval": spec.gates[n].eval, "metric": spec.gates[n].metric} | told(j)
                    for n, j in enumerate(trial.judgements)
                ],
                "lineage": lineage.of(model_of(trial.candidate), runs, needs),
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


def _named(wanted: Wanted, subject: str) -> str:
    """The name of the subject that the rule calls so."""
    return str(wanted.facts[INCUMBENT]) if subject == INCUMBENT else subject


def _runs(wanted: Wanted, spec: PromotionRuleSpec, gate: Gate) -> dict[str, list[Address]]:
    """The runs that a gate rests on, by subject; the baseline's under the name that the rule gives it."""
    among = [need.address for need in wanted.needs]
    first = {subject: run_of(gate.eval, subject) for subject in spec.names}
    if (canary := wanted.facts.get(AGAIN)) in first and spec.reruns(gate):
        first[canary] = again(first[canary])
    if gate.compares and spec.against and (spec.against != INCUMBENT or INCUMBENT in wanted.facts):
        first[spec.against] = run_of(gate.eval, _named(wanted, spec.against))
    return {subject: samples_of(run, among) for subject, run in first.items()}


def _calibration(gate: Gate) -> Address | None:
    """The run in which a gate's judge grades answers that people have judged."""
    return run_of(gate.eval, str(Ref("Dataset").address(gate.judged.dataset))) if gate.judged else None


def _judges(spec: PromotionRuleSpec, desired: Desired) -> Iterable[str]:
    """What to say of judges that are measured themselves."""
    for index, gate in enumerate(spec.gates):
        if judging := _calibration(gate):
            dataset = desired[desired[judging].needed("dataset")]
            yield (
                f"gates[{index}] {gate.eval.removeprefix('Eval/')}: its judge is measured on "
                f"{dataset.facts['rows']} answers of {dataset.address}; where it differs from people, less can be told"
            )


def _answers(platform: Platform, runs: Iterable[Observed]) -> tuple[list[Object], int]:
    """The output items of all runs of a subject, and how many there should be."""
    found, total = [], 0
    for run in runs:
        items = platform.list(f"evals/{run.body['eval_id']}/runs/{run.id}/output_items")
        total += (run.body.get("result_counts") or {}).get("total", len(items))
        found += items
    return found, total


def _prompt(wanted: Wanted, at: str, subject: str, needs: Needs) -> dict[str, Any] | None:
    """The prompt of its own that a candidate is tried with, as its release records it."""
    if (address := prompt_of(subject)) is None:
        return None
    prompt = needs[address].body
    told = {"address": str(address), "fingerprint": wanted.content[f"{at}/prompt"]["is"]}
    return told | {"messages": prompt["template"], "sampling_params": prompt["sampling_params"]}


def _alike(spec: PromotionRuleSpec, runs: Mapping[str, Wanted], desired: Desired) -> Iterable[str]:
    """What to say of evals whose repeats repeat the same answer."""
    for eval_, run in runs.items():
        samples = len(samples_of(run.address, desired))
        prompt = next((desired[n.address].body for n in run.needs if n.address.kind == "Prompt"), {})
        chosen = (prompt.get("sampling_params") or {}) | run.body["sampling_params"]
        if samples > 1 and not chosen.get("temperature"):
            yield (
                f"{eval_.removeprefix('Eval/')}: {samples} samples of every item at temperature 0 are the same "
                f"answer {samples} times; say sampling_params: {{temperature: 1}}, or samples_per_item: 1"
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
