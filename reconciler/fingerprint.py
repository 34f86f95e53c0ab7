"""
Identity: the hash of what a manifest asks for, every reference replaced by the hash it points to.

A field left at its default is not hashed, so adding a field retrains nothing; a cosmetic field never
is; names of resources and files never are. `ALGORITHM` goes into every hash: raising it makes
everything anew and costs somebody money, which `tests/golden/fingerprints.json` guards.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, RootModel

from reconciler.resource import Address, Ref, fields_of

ALGORITHM = 1

Place = tuple[str | int, ...]


class Leaf(NamedTuple):
    """One value in a spec. `counts` is whether it is part of the identity."""

    at: Place
    value: Any
    ref: Ref | None
    counts: bool


def walk(spec: BaseModel, at: Place = (), *, cosmetic: bool = False) -> Iterator[Leaf]:
    """Every leaf of a spec that differs from its default; cosmetic ones only when asked for. Pure."""
    if isinstance(spec, RootModel):
        yield from walk(spec.root, at, cosmetic=cosmetic)
        return
    for field in fields_of(type(spec)):
        value = getattr(spec, field.name)
        if value == field.default or (field.cosmetic and not cosmetic):
            continue
        for leaf in _leaves(value, field.ref, (*at, field.name), cosmetic):
            yield leaf._replace(counts=False) if field.cosmetic else leaf


def _leaves(value: Any, ref: Ref | None, at: Place, cosmetic: bool) -> Iterator[Leaf]:
    if isinstance(value, BaseModel):
        yield from walk(value, at, cosmetic=cosmetic)
    elif isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _leaves(part, ref, (*at, key), cosmetic)
    elif isinstance(value, list | tuple) and any(ref or isinstance(v, BaseModel | Mapping) for v in value):
        for index, part in enumerate(value):
            yield from _leaves(part, ref, (*at, index), cosmetic)
    else:
        yield Leaf(at, value, ref if isinstance(value, str) else None, True)


def content(
    spec: BaseModel, facts: Mapping[str, Any], resolve: Callable[[Place, Address], str]
) -> dict[str, Any]:
    """
    What the fingerprint is taken over: JSON pointer (RFC 6901) to value. Pure.

    `facts` are hashed beside the fields, `resolve` answers a reference with the fingerprint it points to.
    """
    flat: dict[str, Any] = {pointer(("facts", key)): value for key, value in facts.items()}
    for at, value, ref, _ in walk(spec):
        address = ref.address(value) if ref else None
        flat[pointer(at)] = {"ref": str(address), "is": resolve(at, address)} if address else value
    return flat


def fingerprint(kind: str, flat: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex digits) over the kind and its content; numbers as in RFC 8785. Pure."""
    hashed = {at: {"ref": v["is"]} if isinstance(v, dict) and v else v for at, v in flat.items()}
    text = json.dumps(
        [ALGORITHM, kind, _numbers(hashed)], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def pointer(at: Place) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in at)


def dotted(pointed: str) -> str:
    """A JSON pointer as people write it: `gates[0].at_least`. Pure."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointed.split("/")[1:]]
    return "".join(f"[{p}]" if p.isdigit() else f".{p}" for p in parts).removeprefix(".")


def _numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(part) for part in value]
    return value
