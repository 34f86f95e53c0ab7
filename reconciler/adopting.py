"""Looking at something that was made elsewhere, to see whether it is what a manifest asks for."""

import hashlib
import json
from collections.abc import Iterator, Mapping

from reconciler import adoption, engine, plan
from reconciler.engine import World
from reconciler.errors import PlatformError, ReconcilerError, Refused, Unreachable
from reconciler.kind import Action, Kind, Observed, State
from reconciler.resource import Address, Desired, Wanted

FOUND = "adopted"  # the fingerprint of a release that no rule of ours accepted


def examined(wanted: Wanted, id: str, desired: Desired, world: World) -> tuple[Observed, list[str]]:
    """The object, and how it is not what the manifest asks for. Raises ReconcilerError where it cannot be adopted."""
    kind = world.kinds[wanted.address.kind]
    if kind.collection is None or kind.name == "Model":
        raise ReconcilerError(
            f"a {kind.name} has no object of its own on a platform, so there is nothing to adopt"
        )
    sight = engine.look(desired, world)
    if sight.unseen:
        raise Unreachable(next(iter(sight.unseen.values())))
    steps = plan.make(sight.desired, world.kinds, sight.actual, {}, {}).steps
    ready = {s.address: s.decision.observed for s in steps if s.action is Action.KEEP and s.decision.observed}
    observed = _find(kind, id, wanted, ready, world)
    if observed.stamp:
        whose = (
            f"{kind.noun} {id} was made for {observed.stamp.address} of the project {observed.stamp.project}"
        )
        raise Refused(f"{whose}; what is somebody's is not adopted")
    if kind.measures:
        channel = wanted.body["channel"]
        return observed, [] if id == channel else [f"channel: the manifest wants {channel}, this is {id}"]
    if kind.name == "Dataset":
        return observed, list(_bytes(wanted, id, world))
    unlike: list[str] = []
    needs = dict(ready)
    for need in wanted.needs:
        if need.address.kind == "Dataset":
            stands = needs.get(need.address)
            used = _file_of(need.field, observed)
            if stands is None or stands.id != used:
                unlike += _bytes(desired[need.address], used, world, f"{need.field}: ")
                needs[need.address] = Observed(used, None, State.READY, {})
        elif need.address not in needs:
            raise ReconcilerError(
                f"{need.address} does not stand yet; apply or adopt it before {wanted.address}"
            )
    return observed, [*unlike, *adoption.differences(kind, wanted, observed, needs)]


def advice(wanted: Wanted, id: str) -> str:
    """What to write into the manifest where the object itself cannot carry a stamp. Pure."""
    lines = [f"    {key}: {json.dumps(value)}" for key, value in adoption.annotations(wanted, id).items()]
    head = f"it fits; its platform lets nobody write on it, so say so in {wanted.where}:"
    return "\n".join([head, "metadata:", "  annotations:", *lines])


def _find(kind: Kind, id: str, wanted: Wanted, ready: Mapping[Address, Observed], world: World) -> Observed:
    """The object itself. Raises ReconcilerError."""
    place = str(kind.collection)
    if kind.under:
        parent = next(need.address for need in wanted.needs if need.address.kind == kind.under)
        if parent not in ready:
            raise ReconcilerError(f"{parent} does not stand yet; apply or adopt it before {wanted.address}")
        place = f"evals/{ready[parent].id}/runs"
    if kind.measures:  # with what is kept of a release beside its platform
        found = next((each for each in world.platform.list(place) if each.get("name") == id), None)
    else:
        found = world.platform.get(place, id)
    if found is None:
        raise ReconcilerError(f"{world.platform.name} has no {kind.noun} {id}")
    return kind.observe(found)


def _bytes(wanted: Wanted, id: str, world: World, at: str = "") -> Iterator[str]:
    """How a file's bytes are not those of a dataset."""
    try:
        digest = hashlib.sha256(world.platform.content(id)).hexdigest()
    except PlatformError as error:
        yield f"{at}file {id} cannot be read: {error}"
        return
    if digest != wanted.content["/facts/sha256"]:
        yield f"{at}file {id} holds other bytes than {wanted.facts['path']}"


def _file_of(field: str, observed: Observed) -> str:
    """The file that an object uses for what its manifest calls so."""
    source = (observed.body.get("data_source") or {}).get("source") or {}
    return str(source.get("id") if field == "dataset" else observed.body.get(field))
