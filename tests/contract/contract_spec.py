"""OpenAI's own specification: what it says the answer of an operation looks like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

ROOT = "urn:openai"
ERROR = "/components/schemas/ErrorResponse"


def canonical(route: str) -> str:
    """A path's template without the names of its parameters. Pure."""
    return re.sub(r"\{[^}]*\}", "{}", route.removeprefix("/v1"))


def as_it_is_meant(schema: Any) -> Any:
    """
    The document in the words of the JSON Schema that it claims to be written in. Pure.

    It says OpenAPI 3.1 and in places still speaks 3.0: `nullable`, and `exclusiveMinimum: true` beside a
    minimum. Its `oneOf` are unions whose members overlap, so that no message would fit exactly one.
    """
    if isinstance(schema, list):
        return [as_it_is_meant(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    meant = {("anyOf" if key == "oneOf" else key): as_it_is_meant(each) for key, each in schema.items()}
    if meant.get("exclusiveMinimum") is True:
        meant["exclusiveMinimum"] = meant.pop("minimum")
    if meant.get("nullable") is True:
        del meant["nullable"]
        return {"anyOf": [meant, {"type": "null"}]}
    return meant


@dataclass(frozen=True)
class Spec:
    """The document and the validators that were made of it so far."""

    paths: Mapping[str, tuple[str, Mapping[str, Any]]]  # by canonical path: the path as written, its methods
    registry: Registry[Any]
    made: dict[str, Draft202012Validator] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Spec:
        with path.open("rb") as text:
            document = as_it_is_meant(yaml.load(text, Loader=yaml.CSafeLoader))
        registry = Registry().with_resource(ROOT, Resource(document, DRAFT202012))
        return cls({canonical(at): (at, item) for at, item in document["paths"].items()}, registry)

    def describes(self, method: str, route: str) -> bool:
        return method.lower() in self.paths.get(canonical(route), ("", {}))[1]

    def pointer(self, method: str, route: str, status: int, media: str) -> str | None:
        """Where in the document the schema of an answer is; None where it says nothing about it."""
        if status >= 400:
            return ERROR
        at, item = self.paths[canonical(route)]
        answers = item[method.lower()]["responses"]
        content = answers.get(str(status), {}).get("content", {})
        if media not in content:
            return None
        steps = ("paths", at, method.lower(), "responses", str(status), "content", media, "schema")
        return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)

    def problems(self, pointer: str, answer: Any) -> list[ValidationError]:
        """The ways in which an answer is not what the schema says."""
        if pointer not in self.made:
            schema = {"$ref": f"{ROOT}#{pointer.replace('{', '%7B').replace('}', '%7D')}"}
            self.made[pointer] = Draft202012Validator(schema, registry=self.registry)
        return list(self.made[pointer].iter_errors(answer))
