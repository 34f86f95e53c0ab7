"""
What an eval and a run may ask for: every problem found, with its path; and what we keep of it.

Pure: no model, file or clock is looked at here. Whether names exist is for the caller.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import jsonschema
from jsonschema.validators import validator_for

from reconciler.selfhosted import grading, wire
from reconciler.selfhosted.evaluation import evallogs, evalrows
from reconciler.selfhosted.grading.checking import check_messages
from reconciler.selfhosted.serving import responsebody
from reconciler.selfhosted.serving.sampling import Problem, read_sampling
from reconciler.selfhosted.wire import WireError

JUDGED = ("score_model", "label_model")

SAMPLE_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "output_text": {"type": "string"},
        "output_json": {"type": "object"},
        "output_tools": {"type": "array", "items": {"type": "object"}},
        "choices": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["model", "choices"],
}


def eval_problems(body: Mapping[str, Any]) -> list[Problem]:
    """Everything wrong with a request to create an eval. Pure."""
    problems = name_and_metadata_problems(body)
    config = body.get("data_source_config")
    if not isinstance(config, Mapping):
        problems.append(Problem("data_source_config", "is required and must be an object"))
    elif config.get("type") == "custom":
        problems += _schema_problems(config.get("item_schema"))
    elif config.get("type") not in evallogs.CONFIGS:
        known = ", ".join(("custom", *evallogs.CONFIGS))
        problems.append(
            Problem("data_source_config.type", f"must be one of {known}, got {config.get('type')!r}")
        )
    elif not isinstance(config.get("metadata"), dict | None):
        problems.append(Problem("data_source_config.metadata", "must be an object of text values"))
    criteria = body.get("testing_criteria")
    if not isinstance(criteria, list) or not criteria:
        problems.append(
            Problem("testing_criteria", "is required and must be a list with at least one grader")
        )
        return problems
    for position, grader in enumerate(criteria):
        where = f"testing_criteria[{position}]"
        if not isinstance(grader, Mapping):
            problems.append(Problem(where, "must be a grader object"))
            continue
        problems += [
            Problem(where, sentence)
            for sentence in grading.check(grader, allow_multi=False, require_threshold=True, embeddings=True)
        ]
    return problems


def _schema_problems(schema: Any) -> list[Problem]:
    param = "data_source_config.item_schema"
    if not isinstance(schema, dict):
        return [Problem(param, "is required and must be a JSON Schema")]
    kind: Any = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema, format_checker=kind.FORMAT_CHECKER)
    except jsonschema.SchemaError as wrong:
        where = ".".join([param, *map(str, wrong.absolute_path)])
        return [Problem(where, f"is no JSON Schema: {wrong.message}")]
    elsewhere = [
        Problem(
            param,
            f"refers to {reference!r}; only references within the schema, such as '#/$defs/x', are followed",
        )
        for reference in _references(schema)
        if not reference.startswith("#")
    ]
    if elsewhere:
        return elsewhere
    try:
        evalrows.validator(schema)
    except evalrows.BadSchema as wrong:
        return [Problem(param, str(wrong).removeprefix("the item schema "))]
    return []


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [found for each in schema for found in _references(each)]
    if not isinstance(schema, dict):
        return []
    own = [schema[key] for key in ("$ref", "$dynamicRef") if isinstance(schema.get(key), str)]
    return own + [found for each in schema.values() for found in _references(each)]


def name_and_metadata_problems(body: Mapping[str, Any]) -> list[Problem]:
    """What evals and runs have in common. Pure."""
    problems = []
    if not isinstance(body.get("name"), str | None):
        problems.append(Problem("name", "must be a string"))
    try:
        wire.checked_metadata(body.get("metadata"))
    except WireError as wrong:
        problems.append(Problem(wrong.param or "metadata", wrong.message))
    return problems


def run_problems(body: Mapping[str, Any]) -> list[Problem]:
    """Everything wrong with a request to create a run. Pure."""
    problems = name_and_metadata_problems(body)
    source = body.get("data_source")
    if not isinstance(source, Mapping):
        return [*problems, Problem("data_source", "is required and must be an object")]
    kind = source.get("type")
    logged = {"completions": "stored_completions", "responses": "responses", "jsonl": None}
    if not isinstance(kind, str) or kind not in logged:
        return [*problems, Problem("data_source.type", f"must be one of {', '.join(logged)}, got {kind!r}")]
    problems += _rows_problems(source.get("source"), logged[kind])
    if kind != "jsonl":
        problems += _sampling_problems(source)
    return problems


def _rows_problems(source: Any, logged: str | None) -> list[Problem]:
    where = "data_source.source"
    if not isinstance(source, Mapping):
        return [Problem(where, "is required and must be an object")]
    match source.get("type"):
        case "file_id":
            named = isinstance(source.get("id"), str)
            return [] if named else [Problem(f"{where}.id", "must be the id of a file")]
        case "file_content":
            content = source.get("content")
            if not isinstance(content, list) or not content:
                return [Problem(f"{where}.content", "must be a list with at least one row")]
            return []  # rows are checked against the schema when the run starts, like those of a file
        case kind if kind is not None and kind == logged:
            return evallogs.source_problems(source, where)
        case other:
            known = ", ".join(name for name in ("file_id", "file_content", logged) if name)
            return [Problem(f"{where}.type", f"must be one of {known}, got {other!r}")]


def _sampling_problems(source: Mapping[str, Any]) -> list[Problem]:
    problems: list[Problem] = []
    rows = source.get("source")
    logged = isinstance(rows, Mapping) and rows.get("type") in evallogs.SOURCES
    if not isinstance(source.get("model"), str | None if logged else str) or source.get("model") == "":
        problems.append(Problem("data_source.model", "is required and must be the name of a model"))
    params = source.get("sampling_params")
    if not isinstance(params, Mapping | None):
        problems.append(Problem("data_source.sampling_params", "must be an object"))
    elif params:
        problems += read_sampling(sampling_params(source, problems), "data_source.sampling_params")[1]
    where = "data_source.input_messages"
    messages = source.get("input_messages")
    if messages is None and logged:
        return problems
    if not isinstance(messages, Mapping):
        return [*problems, Problem(where, "is required and must be an object")]
    match messages.get("type"):
        case "template":
            sentences = check_messages(messages.get("template"), "template")
            problems += [Problem(where, sentence) for sentence in sentences]
        case "item_reference":
            path = messages.get("item_reference")
            if not isinstance(path, str) or not path.startswith("item."):
                problems.append(Problem(f"{where}.item_reference", "must be a path such as 'item.input'"))
        case other:
            problems.append(
                Problem(f"{where}.type", f"must be 'template' or 'item_reference', got {other!r}")
            )
    return problems


def stored_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The data source as answered: `item_schema` in, `schema` out, around `item` and `sample`. Pure."""
    logged = config["type"] in evallogs.CONFIGS
    properties: dict[str, Any] = {"item": evallogs.ITEM_SCHEMA if logged else config["item_schema"]}
    if logged or config.get("include_sample_schema"):
        properties["sample"] = SAMPLE_SCHEMA
    wrapper = {"type": "object", "properties": properties, "required": list(properties)}
    more = {"metadata": config.get("metadata") or {}} if logged else {}
    return {"type": config["type"], "schema": wrapper, **more}


def asked_model(source: Mapping[str, Any]) -> str | None:
    """The model that a run asks; None when the outputs are there already. Pure."""
    return None if source["type"] == "jsonl" else source.get("model")


def sampling_params(source: Mapping[str, Any], problems: list[Problem] | None = None) -> dict[str, Any]:
    """The sampling params in the words of chats, whichever API a source speaks. Pure."""
    params = dict(source.get("sampling_params") or {})
    if source["type"] != "responses":
        return params
    text = params.get("text")
    format = text.get("format") if isinstance(text, Mapping) else None
    params["response_format"] = responsebody.response_format(format)
    params["tools"] = responsebody.chat_tools(params.get("tools"), [] if problems is None else problems)
    return params


def stored_criteria(criteria: Sequence[Mapping[str, Any]], ids: Sequence[UUID]) -> list[dict[str, Any]]:
    """The criteria as answered, each with an id of the form `<name>-<uuid>`. Pure."""
    return [
        {**grader, "id": f"{grader['name']}-{unique}"} for grader, unique in zip(criteria, ids, strict=True)
    ]


def models_of(criteria: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the judges that these criteria ask, embeddings left out. Pure."""
    return sorted({grader["model"] for grader in criteria if grader["type"] in JUDGED})


def compares_embeddings(criteria: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one of these criteria needs embeddings. Pure."""
    return any(grader.get("evaluation_metric") == "cosine" for grader in criteria)
