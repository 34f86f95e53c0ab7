"""
What the daemon tells programs: its status and what happened, as JSON of a published schema.

`reconciler/daemon/status.json` is that schema; a field may be added, and never means something else.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from reconciler.daemon.board import Board, Moment
from reconciler.drift import Finding
from reconciler.kind import Action
from reconciler.plan import Step

DOING = {
    Action.CREATE: "create",
    Action.UPDATE: "update",
    Action.DELETE: "delete",
    Action.KEEP: "keep",
    Action.WAIT: "wait",
    Action.BLOCK: "blocked",
}


class Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Resource(Wire):
    address: str = Field(description="Kind/name")
    action: Literal["create", "update", "delete", "keep", "wait", "blocked"]
    ready: bool
    id: str | None = Field(description="the object that stands for it")
    why: str = Field(description="a sentence; empty where there is nothing to say")
    halt: str | None = Field(description="what keeps it where it is, if it is blocked")
    kept: bool = Field(description="it stands as in an earlier revision, because its manifest is broken now")


class Difference(Wire):
    drift: Literal[
        "config pending", "platform changed", "vanished", "expired", "unmanaged", "base model retiring"
    ]
    address: str
    why: str
    object: str | None
    days: int | None = Field(description="until it is switched off")


class Pass(Wire):
    number: int = Field(description="passes since the daemon started")
    began_at: float = Field(description="unix seconds")
    ended_at: float = Field(description="unix seconds")
    settled: bool | None = Field(
        description="nothing is left that another pass could change; null if it failed"
    )
    made: list[str] = Field(description="addresses")
    error: str | None
    unseen: dict[str, str] = Field(description="why a kind could not be listed, by kind")


class Status(Wire):
    version: Literal[1] = 1
    ready: bool
    project: str | None
    platform: str | None
    commit: str | None = Field(description="the revision that is reconciled, if it comes from git")
    source: str | None = Field(description="what is wrong with where the manifests come from")
    publishing: str | None = Field(description="what is wrong with where the releases go")
    problems: list[str] = Field(description="of manifests that cannot be read, each with path:line")
    last: Pass | None = None
    resources: list[Resource] = []
    drift: list[Difference] = []
    money: dict[str, float] = Field({}, description="US dollars, by spent and reserved")


class Event(Wire):
    at: float = Field(description="unix seconds")
    platform: str
    address: str
    event: str
    detail: dict[str, Any]


class History(Wire):
    version: Literal[1] = 1
    events: list[Event] = Field(description="newest first")


def status(board: Board) -> Status:
    """How things stand now."""
    moment = board.moment
    done = moment.done
    return Status(
        ready=moment.healthy,
        project=moment.project,
        platform=moment.platform,
        commit=moment.commit,
        source=board.source,
        publishing=board.publishing,
        problems=list(moment.problems),
        last=_pass(moment) if moment.number or moment.error else None,
        resources=[_resource(step, moment) for step in done.steps] if done else [],
        drift=[_difference(each) for each in moment.drift],
        money=dict(moment.money),
    )


def history(events: Iterable[Mapping[str, Any]]) -> History:
    """What a journal remembers, on the wire. Pure."""
    own = ("at", "platform", "address", "event")
    told = [
        Event(**{key: each[key] for key in own}, detail={k: v for k, v in each.items() if k not in own})
        for each in events
    ]
    return History(events=told)


def ready(step: Step) -> bool:
    """Whether a resource stands as it is wanted. Pure."""
    return step.action is Action.KEEP


def _pass(moment: Moment) -> Pass:
    done = moment.done
    return Pass(
        number=moment.number,
        began_at=moment.began_at,
        ended_at=moment.ended_at,
        settled=done.settled if done else None,
        made=[str(address) for address in done.made] if done else [],
        error=moment.error,
        unseen=dict(done.unseen) if done else {},
    )


def _resource(step: Step, moment: Moment) -> Resource:
    assert moment.done is not None
    decision, held = step.decision, moment.done.deferred.get(step.address)
    return Resource.model_validate(
        {
            "address": str(step.address),
            "action": DOING[step.action],
            "ready": ready(step),
            "id": decision.observed.id if decision.observed else None,
            "why": held.why if held else decision.why,
            "halt": str(decision.halt) if step.action is Action.BLOCK else None,
            "kept": str(step.address) in moment.kept,
        }
    )


def _difference(found: Finding) -> Difference:
    return Difference.model_validate(
        {"drift": str(found.drift), "address": found.address, "why": found.why}
        | {"object": found.object, "days": found.days}
    )


def schema() -> dict[str, Any]:
    """JSON Schema of both documents."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What `reconciler run --http` tells",
        "oneOf": [{"$ref": "#/$defs/Status"}, {"$ref": "#/$defs/History"}],
        "$defs": _defined(Status) | _defined(History),
    }


def _defined(model: type[Wire]) -> dict[str, Any]:
    found = model.model_json_schema(ref_template="#/$defs/{model}", mode="serialization")
    return {**found.pop("$defs", {}), model.__name__: found}
