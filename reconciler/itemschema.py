"""
A JSON Schema for eval items, in two speeds.

The plain schemas that evals have (objects of text, numbers, lists, enums) become msgspec types, which
judge while they decode. Whatever else a schema says is left to `jsonschema`, which also finds the
words: with the schema's own terms, never with the item's values. Nothing is fetched for a `$ref`.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import GenericAlias
from typing import Any, Literal

import jsonschema
import msgspec
import referencing
from jsonschema.protocols import Validator

_PLAIN = {"string": str, "integer": int, "number": int | float, "boolean": bool, "null": None}
_SAYS_NOTHING = {"$schema", "$id", "title", "description", "default", "examples", "format", "$comment"}
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")


class _NotPlain(Exception):
    """The schema says more than a type can."""


class ItemSchema:
    """What every `item` of a dataset has to look like. Raises ValueError for what is no schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = dict(schema)
        kind = jsonschema.validators.validator_for(self.schema, jsonschema.Draft202012Validator)
        try:
            kind.check_schema(self.schema)
        except jsonschema.SchemaError as bad:
            place = ".".join(map(str, bad.absolute_path))
            raise ValueError(f"not a JSON Schema: {place or 'the schema'}: {bad.message}") from None
        self._validator: Validator = kind(self.schema, registry=referencing.Registry())

    @cached_property
    def type(self) -> Any:
        """The msgspec type that takes no item the schema refuses; None where the schema says more."""
        try:
            return _type_of(self.schema)
        except _NotPlain:
            return None

    def flaws(self, item: Any) -> Iterator[str]:
        """Everything about `item` that the schema refuses, in sentences."""
        try:
            for error in self._validator.iter_errors(item):
                yield from _sentences(error)
        except (referencing.exceptions.Unresolvable, RecursionError):
            yield "the item schema has a $ref that leads nowhere; use #/$defs"

    def takes(self, item: Any) -> bool:
        return next(self.flaws(item), None) is None


def _type_of(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        raise _NotPlain
    said = schema.keys() - _SAYS_NOTHING
    options = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if options is not None:
        is_plain = said <= {"type", "enum", "const"} and schema.get("type", "string") == "string"
        if not is_plain or not options or not all(isinstance(option, str) for option in options):
            raise _NotPlain
        return Literal[tuple(options)]
    kind = schema.get("type")
    if kind == "object" and said <= {"type", "properties", "required", "additionalProperties"}:
        return _struct_of(schema)
    if kind == "array" and said <= {"type", "items"}:
        return GenericAlias(list, (_type_of(schema["items"]) if "items" in schema else Any,))
    if isinstance(kind, str) and kind in _PLAIN and said == {"type"}:
        return _PLAIN[kind]
    raise _NotPlain


def _struct_of(schema: Mapping[str, Any]) -> Any:
    extra = schema.get("additionalProperties", True)
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(extra, bool) or not set(required) <= properties.keys():
        raise _NotPlain
    if not properties and extra:
        return dict[str, Any]
    fields: list[Any] = []
    names: dict[str, str] = {}
    for i, (name, part) in enumerate(properties.items()):
        field = f"field_{i}"
        names[field] = name
        of_part = _type_of(part)
        fields.append(
            (field, of_part) if name in required else (field, of_part | msgspec.UnsetType, msgspec.UNSET)
        )
    return msgspec.defstruct("Item", fields, rename=names, forbid_unknown_fields=not extra, kw_only=True)


def _sentences(error: jsonschema.ValidationError) -> Iterator[str]:
    at = "item" + "".join(map(_step, error.absolute_path))
    rule = str(error.validator)
    value: Any = error.validator_value
    if rule == "required" and isinstance(error.instance, dict):
        missing = [name for name in value if name not in error.instance]
        yield f"{at} has no {missing[0]}" if len(missing) == 1 else f"{at} lacks {', '.join(missing)}"
    elif rule == "additionalProperties":
        yield f"{at} has a key that the item schema does not allow"
    elif rule == "type":
        kinds = [value] if isinstance(value, str) else value
        yield f"{at} must be of type {' or '.join(kinds)}"
    elif rule == "enum":
        yield f"{at} is not one of the item schema's {len(value)} allowed values"
    elif isinstance(value, int | float | str):
        yield f"{at} breaks the item schema's {rule}: {value}"
    else:
        yield f"{at} breaks the item schema's {rule}"


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if _FIELD_NAME.fullmatch(part) else ".…"
