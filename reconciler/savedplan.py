"""
A plan that was written down: what is to be done, and the facts that this rests on. Pure.

Each action names its own facts and no others: that nothing carries its fingerprint yet, which objects it
builds on, where its channel led. What moved beside them does not stale a plan. The digest covers all of it,
and is what a journal remembers, so that a plan is carried out once.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reconciler import release
from reconciler.cost import Estimate
from reconciler.errors import ReconcilerError, Refused
from reconciler.kind import Action, Decision, Halt
from reconciler.plan import Guard, Plan, Step
from reconciler.resource import Address

VERSION = 1
ACTING = (Action.CREATE, Action.UPDATE)
RULE = "PromotionRule"


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Absent(_Written):
    """Nothing carries the action's fingerprint."""

    what: Literal["absent"] = "absent"


class Stands(_Written):
    """Something that the action builds on, and the object it is."""

    what: Literal["stands"] = "stands"
    address: str
    id: str


class Leads(_Written):
    """Where the channel leads, and what stands against moving it; `model` is None where it leads nowhere."""

    what: Literal["leads"] = "leads"
    channel: str
    model: str | None = None
    hold: str | None = None
    revision: int | None = None


Fact = Annotated[Absent | Stands | Leads, Field(discriminator="what")]


class Priced(_Written):
    """What an action is expected to take; None where that is not known."""

    usd: tuple[float, float] | None = None
    seconds: tuple[float, float] | None = None
    why: str = ""

    @classmethod
    def of(cls, estimate: Estimate | None) -> "Priced | None":
        if estimate is None:
            return None
        return cls(usd=estimate.usd, seconds=estimate.seconds, why=estimate.why)


class Planned(_Written):
    """One action."""

    address: str
    fingerprint: str
    action: Literal["create", "update"]
    replaces: str | None = None  # the fingerprint that the address stood for
    where: str = ""
    why: str = ""
    estimate: Priced | None = None
    facts: tuple[Fact, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        return self.address, self.fingerprint, self.action


class SavedPlan(_Written):
    """The file. `folder` is where the manifests lie, as seen from the folder it was planned in."""

    version: Literal[1]
    project: str
    platform: str
    folder: str
    created_at: str  # UTC, ISO 8601
    commit: str | None = None
    actions: tuple[Planned, ...]
    digest: str

    def counted(self) -> str:
        """The digest as its content has it."""
        body = self.model_dump(mode="json", exclude={"digest"})
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def allowed(self) -> dict[str, str]:
        """By address, the fingerprint that may be made."""
        return {each.address: each.fingerprint for each in self.actions}


def save(
    plan: Plan,
    estimates: Mapping[Address, Estimate],
    *,
    project: str,
    platform: str,
    folder: str,
    created_at: str,
    commit: str | None,
) -> SavedPlan:
    """A plan as it is written down."""
    steps = {step.address: step for step in plan.steps}
    actions = tuple(
        Planned(
            address=str(step.address),
            fingerprint=step.wanted.fingerprint,
            action="create" if step.action is Action.CREATE else "update",
            replaces=step.replaces,
            where=step.wanted.where,
            why=step.decision.why,
            estimate=Priced.of(estimates.get(step.address)),
            facts=tuple(_facts(step, steps)),
        )
        for step in plan.steps
        if step.action in ACTING
    )
    unsigned = SavedPlan(
        version=VERSION, project=project, platform=platform, folder=folder, created_at=created_at,
        commit=commit, actions=actions, digest="",
    )  # fmt: skip
    return unsigned.model_copy(update={"digest": unsigned.counted()})


def text_of(saved: SavedPlan) -> str:
    return json.dumps(saved.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False) + "\n"


def read(path: Path) -> SavedPlan:
    """A plan from its file. Raises ReconcilerError where it is none, Refused where it was changed since."""
    try:
        saved = SavedPlan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ReconcilerError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        what = f"{path} is no plan that this version reads ({at}: {first['msg'].lower()})".replace("(: ", "(")
        raise ReconcilerError(f"{what}; write one with `reconciler plan --out {path}`") from None
    if saved.digest != saved.counted():
        raise Refused(f"{path} was changed after it was written; plan again, and have that plan approved")
    return saved


def hold_to(saved: SavedPlan, now: Plan, begun: bool, made: Callable[[str], str | None]) -> None:
    """
    Let a plan be carried out while everything it rests on is as it was. Raises Refused, which names what moved.

    `begun` says that it is being gone on with: what it made itself has not moved. `made` answers a fingerprint
    with the id that we made for it, or with "" where that was asked for and no answer came.
    """
    steps = {str(step.address): step for step in now.steps}
    for planned in saved.actions:
        moved = _moved(planned, steps, begun, made)
        if moved:
            raise Refused(f"the plan does not hold any more: {moved}; plan again")


def allow(approved: SavedPlan, now: Plan) -> None:
    """Let only what was approved be done. Raises Refused, which names the first action that was not."""
    keys = {each.key for each in approved.actions}
    for step in now.steps:
        if (
            step.action in ACTING
            and (key := (str(step.address), step.wanted.fingerprint, step.action.name.lower())) not in keys
        ):
            known = next((each for each in approved.actions if each.address == key[0]), None)
            short = step.wanted.fingerprint[:8]
            instead = f"; approved was to {known.action} {known.fingerprint[:8]}" if known else ""
            what = f"nobody approved to {key[2]} {step.address} ({short}, {step.wanted.where}){instead}"
            raise Refused(f"{what}; plan again, and have that plan approved")


def union(newest: SavedPlan, *older: SavedPlan) -> SavedPlan:
    """What several approved plans of a project allow together; where they differ, the newer one counts."""
    same = (
        newest,
        *(each for each in older if (each.project, each.platform) == (newest.project, newest.platform)),
    )
    actions = {each.address: each for plan in reversed(same) for each in plan.actions}
    merged = newest.model_copy(update={"actions": tuple(actions.values()), "digest": ""})
    return merged.model_copy(update={"digest": merged.counted()})


def only(saved: SavedPlan, halt: Halt) -> Guard:
    """Nothing is made that the plan does not name."""
    allowed = saved.allowed

    def guard(step: Step) -> Decision | None:
        if allowed.get(str(step.address)) == step.wanted.fingerprint:
            return None
        decision = step.decision
        why = "it is not in the plan that is applied; plan again to have it made"
        return Decision(Action.BLOCK, why, decision.observed, evidence=decision.evidence, halt=halt)

    return guard


def _facts(step: Step, steps: Mapping[Address, Step]) -> Iterator[Fact]:
    if step.address.kind == RULE:
        yield leads(step)
    elif step.action is Action.CREATE:
        yield Absent()
    told: set[Address] = set()
    waiting = [need.address for need in step.wanted.needs]
    while waiting:
        address = waiting.pop(0)
        if address in told:
            continue
        told.add(address)
        need = steps[address]
        observed = need.decision.observed
        if need.action in ACTING:
            continue  # its own action says what it rests on
        if observed is None or observed.id == str(address):  # a value: it rests on what it is made of
            waiting += [each.address for each in need.wanted.needs]
        else:
            yield Stands(address=str(address), id=observed.id)


def leads(step: Step) -> Leads:
    """Where the channel of a rule leads now."""
    observed, name = step.decision.observed, str(step.wanted.body["channel"])
    if observed is None:
        return Leads(channel=name)
    channel = release.read(observed.body)
    hold = " ".join(channel.hold) if channel.hold else None
    return Leads(channel=name, model=channel.model, hold=hold, revision=channel.revision)


def _moved(
    planned: Planned, steps: Mapping[str, Step], begun: bool, made: Callable[[str], str | None]
) -> str | None:
    """What of one action is not as it was, in words."""
    step = steps.get(planned.address)
    if step is None:
        return f"{planned.address} is not wanted any more"
    if step.wanted.fingerprint != planned.fingerprint:
        was, is_ = planned.fingerprint[:8], step.wanted.fingerprint[:8]
        return f"{planned.address} asks for something else than it did ({was} then, {is_} now)"
    if begun and _is_ours(step, made):
        return None
    for fact in planned.facts:
        if moved := _fact_moved(fact, step, steps):
            return moved
    if step.action not in ACTING and not (begun and step.action is Action.BLOCK):
        return f"{planned.address} was to be {planned.action}d and is not any more ({step.decision.why})"
    if step.action in ACTING and step.action.name.lower() != planned.action and not begun:
        return f"{planned.address} was to be {planned.action}d and would be {step.action.name.lower()}d now"
    return None


def _is_ours(step: Step, made: Callable[[str], str | None]) -> bool:
    """Whether what stands for a step is what the plan has made so far."""
    observed, fingerprint = step.decision.observed, step.wanted.fingerprint
    if observed is None:
        return False
    if step.address.kind == RULE:
        channel = release.read(observed.body)
        on_air = (channel.canary or {}).get("fingerprint")
        return fingerprint in (channel.fingerprint, on_air)
    return made(fingerprint) in (observed.id, "")


def _fact_moved(fact: Any, step: Step, steps: Mapping[str, Step]) -> str | None:
    match fact:
        case Absent():
            observed = step.decision.observed
            return f"{step.address} stands already, as {observed.id}" if observed else None
        case Stands():
            need = steps.get(fact.address)
            observed = need.decision.observed if need else None
            if observed and observed.id == fact.id:
                return None
            now = f"is {observed.id} now" if observed else "does not stand any more"
            return f"{fact.address}, on which {step.address} builds, was {fact.id} and {now}"
        case Leads():
            return _lead_moved(fact, leads(step))
    raise AssertionError(fact)


def _lead_moved(then: Leads, now: Leads) -> str | None:
    if then == now:
        return None
    if then.model != now.model:
        return f"{then.channel} led {_to(then)} and leads {_to(now)} now"
    if then.hold != now.hold:
        return f"{then.channel} was {_held(then)} and is {_held(now)} now"
    return f"{then.channel} was moved since (revision {then.revision} then, {now.revision} now)"


def _to(fact: Leads) -> str:
    return f"to {fact.model}" if fact.model else "nowhere"


def _held(fact: Leads) -> str:
    return f"held ({fact.hold})" if fact.hold else "free"
