"""The JSON Schema of manifests, for editors: one kind, or all of them told apart by `kind`."""

import json
from typing import Any

from pydantic import BaseModel

from reconciler.errors import ReconcilerError
from reconciler.kinds import all_kinds
from reconciler.loader import did_you_mean
from reconciler.resource import API_VERSION

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NAME = {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = {
    "type": "object",
    "properties": {"name": NAME, "labels": TEXTS, "annotations": TEXTS},
    "required": ["name"],
    "additionalProperties": False,
}


def schema_of(kind: str | None) -> str:
    """The schema as JSON text. Raises ReconcilerError for a kind there is not."""
    kinds = all_kinds()
    if kind is not None and kind not in kinds:
        near = did_you_mean(kind, kinds)
        told = f"did you mean {near}?" if near else f"there are {', '.join(kinds)}"
        raise ReconcilerError(f"no kind is named {kind}; {told}")
    if kind:
        return json.dumps({"$schema": DIALECT, **_manifest(kind, kinds[kind].Spec)}, indent=2)
    definitions: dict[str, Any] = {}
    for name, each in kinds.items():
        manifest = _manifest(name, each.Spec)
        definitions |= {f"{name}.{part}": body for part, body in manifest.pop("$defs", {}).items()}
        definitions[name] = json.loads(json.dumps(manifest).replace("#/$defs/", f"#/$defs/{name}."))
        for part in [key for key in definitions if key.startswith(f"{name}.")]:
            definitions[part] = json.loads(json.dumps(definitions[part]).replace('"#/$defs/', f'"#/$defs/{name}.')
                                           .replace(f"#/$defs/{name}.{name}.", f"#/$defs/{name}."))  # fmt: skip
    told_apart = [
        {"if": {"properties": {"kind": {"const": name}}}, "then": {"$ref": f"#/$defs/{name}"}}
        for name in kinds
    ]
    top = {"$schema": DIALECT, "type": "object", "required": ["apiVersion", "kind", "metadata"],
           "properties": {"kind": {"enum": list(kinds)}}, "allOf": told_apart, "$defs": definitions}  # fmt: skip
    return json.dumps(top, indent=2)


def _manifest(kind: str, spec: type[BaseModel]) -> dict[str, Any]:
    body = spec.model_json_schema()
    definitions = body.pop("$defs", {})
    return {
        "type": "object",
        "title": kind,
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind},
            "metadata": METADATA,
            "spec": body,
        },
        "required": ["apiVersion", "kind", "metadata"],
        "additionalProperties": False,
        "$defs": definitions,
    }
