"""
What was made elsewhere and stands for a manifest all the same.

`metadata.annotations` say so, for everybody to review: `reconciler/id` names the object, and `reconciler/as`
the fingerprint that it was found to fit. A manifest that was edited since wants something else, and gets it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.errors import PlatformError
from reconciler.kind import Action, Decision, Kind, Needs, Observed, Seen, Stamp, State, Unseen
from reconciler.resource import Desired, Wanted
from reconciler.world import Platform

ID, AS = "reconciler/id", "reconciler/as"  # annotations
FREE = {"name", "metadata", "suffix", "reconciler", "file"}  # how an object is called and kept, at its top
SHORT = 12  # digits of a fingerprint that tell two of one resource apart


def adopted(annotations: Mapping[str, str], fingerprint: str) -> str:
    """The id of the object that stands for a manifest; empty where it wants one of its own. Pure."""
    return annotations.get(ID, "") if fingerprint.startswith(annotations.get(AS, "")) else ""


def annotations(wanted: Wanted, id: str) -> dict[str, str]:
    """What to write into a manifest, so that an object stands for it. Pure."""
    return {ID: id, AS: wanted.fingerprint[:SHORT]}


def lacking(wanted: Wanted, kind: Kind, seen: Seen) -> str:
    """Why an annotation finds nothing that could stand for its manifest. Pure."""
    hits = [*(o for hits in seen.by_fingerprint.values() for o in hits), *seen.unstamped.values()]
    found = next((each for each in hits if each.id == wanted.adopts), None)
    if found is None:
        what = f"the platform has no {kind.noun} {wanted.adopts}, which {ID} names"
        return f"{what}; name one that stands, or take the annotation out to have one made"
    if found.stamp:
        what = (
            f"{kind.noun} {found.id} was made for {found.stamp.address} of the project {found.stamp.project}"
        )
        return f"{what}; take {ID} out of the manifest"
    command = f"reconciler adopt {wanted.address} {found.id}"
    return f"{kind.noun} {found.id} is not what the manifest wants; `{command}` says why"


def take(
    desired: Desired,
    kinds: Mapping[str, Kind],
    platform: Platform,
    actual: dict[str, Seen | Unseen],
    *,
    nested: bool,
) -> None:
    """Let what manifests adopt stand for them, in `actual`: kinds inside others if `nested`, else the others."""
    for wanted in (each for each in desired.values() if each.adopts):
        kind = kinds[wanted.address.kind]
        seen = actual.get(kind.name)
        if isinstance(seen, Unseen) or seen is None or bool(kind.under) is not nested or kind.measures:
            continue
        try:
            found = seen.unstamped.get(wanted.adopts) or _asked_for(wanted.adopts, kind, platform)
        except PlatformError as error:
            actual[kind.name] = Unseen(str(error))
            continue
        if found and found.stamp is None:
            actual[kind.name] = seen.taking(wanted.fingerprint, found)


def _asked_for(id: str, kind: Kind, platform: Platform) -> Observed | None:
    """An object that lists leave out because it is not ours. Raises PlatformError."""
    if kind.under or kind.collection is None:
        return None
    found = platform.get(kind.collection, id)
    return kind.observe(found) if found else None


def differences(kind: Kind, wanted: Wanted, observed: Observed, needs: Needs) -> Iterator[str]:
    """How an object is not what its manifest asks for, as far as the object tells. Pure."""
    if observed.state is not State.READY:
        yield f"{kind.noun} {observed.id} is not ready: {observed.note or observed.state}"
    ask = kind.ask(wanted, needs, Stamp("", str(wanted.address), wanted.fingerprint), Decision(Action.CREATE))
    expected = {key: value for key, value in ask.body.items() if key not in FREE}
    yield from _unlike(expected, kind.asked(observed), "")


def _unlike(expected: Any, found: Any, at: str) -> Iterator[str]:
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key, value in expected.items():
            yield from _unlike(value, found.get(key), f"{at}.{key}".lstrip("."))
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _unlike(one, other, f"{at}[{index}]")
    elif expected != "auto" and expected != found and not (expected is None and not found):
        yield f"{at}: the manifest wants {_shown(expected)}, the platform has {_shown(found)}"


def _shown(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"
