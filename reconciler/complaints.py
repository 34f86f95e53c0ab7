"""What pydantic found, told as sentences with a place, in the words of the manifest. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from reconciler.errors import Problem
from reconciler.fingerprint import Place, dotted, pointer
from reconciler.kind import Kind
from reconciler.loader import did_you_mean


def sentences(error: ValidationError, where: Any, body: Mapping[str, Any], kind: Kind) -> list[Problem]:
    """Every problem of one spec; `where` answers a place with its `path:line`."""
    by_place: dict[Place, list[str]] = {}
    for each in error.errors(include_url=False):
        at, value = _place(each["loc"], body)
        if each["type"] == "missing":
            at = (*at, each["loc"][-1])
        elif each["type"] == "string_type" and isinstance(value, Mapping | list) and len(error.errors()) > 1:
            continue  # the other half of `a reference, or the thing itself`
        said = _say(each, at, value, body, kind)
        if said not in by_place.setdefault(at, []):
            by_place[at].append(said)
    return [Problem(where("spec", *at), _join(at, said)) for at, said in by_place.items()]


def _place(loc: Iterable[str | int], body: Any) -> tuple[Place, Any]:
    """Where in the manifest an error is: pydantic's location without the names of union members."""
    at: list[str | int] = []
    for part in loc:
        inside = (isinstance(body, Mapping) and part in body) or (
            isinstance(body, list) and isinstance(part, int) and part < len(body)
        )
        if inside:
            at.append(part)
            body = body[part]
    return tuple(at), body


def _say(each: Any, at: Place, value: Any, body: Mapping[str, Any], kind: Kind) -> str:
    match each["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            known = sorted(_known(kind, at[:-1], body))
            near = did_you_mean(str(at[-1]), known)
            return (
                f"is no field here; did you mean {near}?"
                if near
                else f"is no field here; there are {', '.join(known)}"
            )
        case "union_tag_invalid":
            return f"type must be one of {each['ctx']['expected_tags']}"
        case "union_tag_not_found":
            return "needs a type"
        case "value_error":
            return str(each["ctx"]["error"])
        case _:
            return f"{each['msg'][0].lower()}{each['msg'][1:]}{_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return ", not a " + ("mapping" if isinstance(value, Mapping) else "list")
    text = repr(value)
    return f", not {text}" if len(text) <= 40 else ""


def _join(at: Place, said: list[str]) -> str:
    name = dotted(pointer(at))
    return f"{name}: {' or '.join(said)}" if name else " or ".join(said)


def _known(kind: Kind, at: Place, body: Any) -> set[str]:
    """The fields that the models at a place have."""
    models = _fitting(_models(kind.Spec), body)
    for part in at:
        body = body[part]
        if not isinstance(part, int):
            models = [m for owner in models if part in owner.model_fields
                      for m in _models(owner.model_fields[part].annotation)]  # fmt: skip
        models = _fitting(models, body)
    return {name for model in models for name in model.model_fields}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if "root" in annotation.model_fields:
            yield from _models(annotation.model_fields["root"].annotation)
        else:
            yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _fitting(models: Iterable[type[BaseModel]], body: Any) -> list[type[BaseModel]]:
    models = list(models)
    tag = body.get("type") if isinstance(body, Mapping) else None
    fitting = [
        m for m in models if "type" in m.model_fields and tag in get_args(m.model_fields["type"].annotation)
    ]
    return fitting or models
