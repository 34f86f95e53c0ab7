"""
What a project forbids, in rules that have to hold for everything that is done.

A rule is CEL over one step and the plan it is part of. One that does not hold stops the step, and one that
nobody can tell counts as broken: a limit on a cost that is unknown forbids. Pure but for asking the judge.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pydantic import ValidationError

from reconciler import cost
from reconciler.cost import Estimate, Range
from reconciler.kind import Action, Decision, Halt, Kind
from reconciler.plan import Deletion, Guard, Plan, Step
from reconciler.resource import Address, Wanted

FORBIDDEN = "policy "  # how the sentence of a broken rule begins
ACTING = (Action.CREATE, Action.UPDATE)


class Rule(NamedTuple):
    """One policy, and the `path:line` where it is written."""

    name: str
    rule: str
    message: str
    where: str


class Judge(Protocol):
    """Who knows whether a rule holds: True, False, or why nobody can tell."""

    def judge(self, rules: Sequence[str], known: Mapping[str, Any]) -> list[bool | str]: ...


@dataclass(frozen=True)
class Policies:
    """All rules of a project. `estimates` says what the steps of a plan take, `now` is the time in unix seconds."""

    rules: tuple[Rule, ...]
    kinds: Mapping[str, Kind]
    judge: Judge
    estimates: Callable[[Plan], Mapping[Address, Estimate]]
    now: Callable[[], float]

    def guard(self, plan: Plan) -> Guard:
        """Stops whatever breaks a rule; `plan` is what would be done if nobody minded."""
        estimates, now, whole = self.estimates(plan), self.now(), _whole(plan)
        whole |= _priced(estimates, plan)
        found: dict[tuple[str, Action], str] = {}

        def guard(step: Step) -> Decision | None:
            key = step.wanted.fingerprint + str(step.address), step.action
            if key not in found:
                known = {"resource": self._resource(step.wanted), "action": step.action.name.lower(),
                         "estimate": _estimate(estimates.get(step.address)), "plan": whole, "now": now}  # fmt: skip
                found[key] = self._broken(known, str(step.address))
            if not found[key]:
                return None
            decision = step.decision
            return Decision(Action.BLOCK, found[key], decision.observed, evidence=decision.evidence,
                            halt=Halt.FORBIDDEN)  # fmt: skip

        return guard

    def spare(self, deletions: tuple[Deletion, ...]) -> tuple[Deletion, ...]:
        """The same deletions; where a rule forbids one of them, none is done, since others may hang on it."""
        now, goes = self.now(), [each for each in deletions if not each.kept]
        whole = _counted(delete=len(goes))
        for each in goes:
            address = Address.parse(each.observed.stamp.address if each.observed.stamp else f"{each.kind}/")
            resource = {"kind": each.kind, "name": address.name, "labels": {}, "spec": {}, "implied": False}
            known = {"resource": resource, "action": "delete", "estimate": {}, "plan": whole, "now": now}
            if why := self._broken(known, f"{each.kind} {each.observed.id}"):
                return tuple(one if one.kept else one._replace(kept=why) for one in deletions)
        return deletions

    def _broken(self, known: Mapping[str, Any], about: str) -> str:
        """The first rule that does not hold, in a sentence; empty where all do."""
        answers = self.judge.judge([each.rule for each in self.rules], known)
        for rule, answer in zip(self.rules, answers, strict=True):
            if answer is not True:
                untold = f" (nobody can tell for {about}: {answer})" if isinstance(answer, str) else ""
                return f"{FORBIDDEN}{rule.name} forbids it: {rule.message}{untold}; {rule.where}"
        return ""

    def _resource(self, wanted: Wanted) -> dict[str, Any]:
        """A resource as rules see it: its spec with what is left at its default."""
        try:
            spec = self.kinds[wanted.address.kind].spec(wanted).model_dump(mode="json", by_alias=True)
        except ValidationError:  # what stands for something that no manifest declares
            spec = wanted.body
        return {"kind": wanted.address.kind, "name": wanted.address.name, "labels": wanted.labels, "spec": spec,
                "implied": wanted.implied}  # fmt: skip


def _whole(plan: Plan) -> dict[str, Any]:
    names = {action.name.lower(): plan.counts[action] for action in Action}
    return _counted(**names) | {"replaced": plan.replaced}


def _counted(**counts: int) -> dict[str, Any]:
    return {action.name.lower(): counts.get(action.name.lower(), 0) for action in Action} | {"replaced": 0}


def _priced(estimates: Mapping[Address, Estimate], plan: Plan) -> dict[str, Any]:
    """What everything takes together; a sum is left out where a part of it is unknown."""
    acting = [step.address for step in plan.steps if step.action in ACTING]
    usd, seconds, unpriced, untimed = cost.total(estimates.get(each, Estimate()) for each in acting)
    return _estimate(Estimate(None if unpriced else usd, None if untimed else seconds))


def _estimate(estimate: Estimate | None) -> dict[str, Any]:
    known = {"usd": estimate.usd, "seconds": estimate.seconds} if estimate else {}
    return {name: _range(each) for name, each in known.items() if each is not None}


def _range(each: Range) -> dict[str, float]:
    return {"low": float(each.low), "high": float(each.high)}
