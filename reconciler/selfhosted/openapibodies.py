"""
What each endpoint reads: the structs that check a body, or its schema where it is checked by hand.

Schemas here are looser than the checks, which know what goes with what; none forbids what a check allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from reconciler.selfhosted.evaluation import evallogs, evalruns, evals, graderapi
from reconciler.selfhosted.grading import checking, similarity
from reconciler.selfhosted.notices import webhooks
from reconciler.selfhosted.registry import aliases, models
from reconciler.selfhosted.serving import (
    batches,
    chat,
    chatbody,
    completions,
    embeddings,
    responsebody,
    responses,
)
from reconciler.selfhosted.storage import files, uploads
from reconciler.selfhosted.tuning import jobs, permissions

Schema = dict[str, Any]
Endpoint = Callable[..., Any]

TEXT: Schema = {"type": "string"}
OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": OBJECT}
TEXTS: Schema = {"type": "array", "items": TEXT}
CHOICE: Schema = {"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}]}
METADATA: Schema = {
    "type": ["object", "null"],
    "maxProperties": 16,
    "additionalProperties": {"type": "string", "maxLength": 512},
}


def body(required: Sequence[str], **properties: Schema) -> Schema:
    """An object with these properties, some of them required, that may have others. Pure."""
    return {"type": "object", "properties": properties, "required": list(required)}


MESSAGES: Schema = {
    "type": "array",
    "minItems": 1,
    "items": body(
        ["role"],
        role={"enum": list(chatbody.ROLES)},
        content={"anyOf": [TEXT, OBJECTS, {"type": "null"}]},
        tool_calls=OBJECTS,
    ),
}
ITEMS: Schema = {
    "type": "array",
    "minItems": 1,
    "items": body(
        [],
        role={"enum": list(responsebody.ROLES)},
        content={"anyOf": [TEXT, OBJECTS]},
        type=TEXT,
        output=TEXT,
    ),
}
GRADER = body(
    ["type", "name"],
    type={"enum": [*graderapi.TYPES, "label_model"]},
    name=TEXT,
    input={"anyOf": [TEXT, MESSAGES]},
    reference=TEXT,
    operation={"enum": list(checking.OPERATIONS)},
    evaluation_metric={"enum": [*similarity.METRICS, similarity.COSINE]},
    pass_threshold={"type": "number"},
    source=TEXT,
    model=TEXT,
    range={"type": "array", "items": {"type": "number"}},
    sampling_params=OBJECT,
    labels=TEXTS,
    passing_labels=TEXTS,
    graders=OBJECT,
    calculate_output=TEXT,
)
SOURCE = body(
    ["type", "source"],
    type={"enum": ["jsonl", "completions", "responses"]},
    source=body(
        ["type"],
        type={"enum": ["file_id", "file_content", *evallogs.SOURCES]},
        id=TEXT,
        content={"type": "array", "items": body(["item"], item=OBJECT, sample=OBJECT)},
        metadata=METADATA,
    ),
    model=TEXT,
    input_messages=body(
        ["type"], type={"enum": ["template", "item_reference"]}, template=MESSAGES, item_reference=TEXT
    ),
    sampling_params=OBJECT,
)

STRUCTS: dict[Endpoint, type[msgspec.Struct]] = {
    aliases.put: aliases.Wanted,
    batches.create: batches.Wanted,
    jobs.create: jobs.Wanted,
    models.register: models.Register,
    permissions.create: permissions.Wanted,
    uploads.create: uploads.Wanted,
    uploads.complete: uploads.Complete,
    webhooks.create: webhooks.Wanted,
    webhooks.update: webhooks.Changes,
    webhooks.rotate_secret: webhooks.Rotation,
    webhooks.test: webhooks.Trial,
}

WRITTEN: dict[Endpoint, Schema] = {
    chat.create: body(
        ["model", "messages"],
        model=TEXT,
        messages=MESSAGES,
        n={"type": "integer", "minimum": 1, "maximum": chatbody.MAX_CHOICES},
        temperature={"type": "number", "minimum": 0, "maximum": 2},
        top_p={"type": "number", "minimum": 0, "maximum": 1},
        max_completion_tokens={"type": "integer", "minimum": 1},
        seed={"type": "integer"},
        stop={"anyOf": [TEXT, TEXTS]},
        logprobs={"type": "boolean"},
        top_logprobs={"type": "integer", "minimum": 0, "maximum": chatbody.MAX_TOP_LOGPROBS},
        response_format=OBJECT,
        tools=OBJECTS,
        tool_choice=CHOICE,
        presence_penalty={"type": "number", "minimum": -2, "maximum": 2},
        frequency_penalty={"type": "number", "minimum": -2, "maximum": 2},
        logit_bias={"type": ["object", "null"], "additionalProperties": {"type": "number"}},
        stream={"type": "boolean"},
        stream_options=OBJECT,
        store={"type": "boolean"},
        metadata=METADATA,
    ),
    completions.update: body(["metadata"], metadata={**METADATA, "type": "object"}),
    embeddings.create: body(
        ["model", "input"],
        model=TEXT,
        input={"anyOf": [TEXT, TEXTS]},
        encoding_format={"enum": list(embeddings.FORMATS)},
        dimensions={"type": "integer", "minimum": 1},
    ),
    evals.create: body(
        ["data_source_config", "testing_criteria"],
        name=TEXT,
        data_source_config=body(
            ["type"], type={"enum": ["custom", *evallogs.CONFIGS]}, item_schema=OBJECT, metadata=METADATA
        ),
        testing_criteria={"type": "array", "items": GRADER, "minItems": 1},
        metadata=METADATA,
    ),
    evals.update: body([], name=TEXT, metadata=METADATA),
    evalruns.create: body(["data_source"], name=TEXT, data_source=SOURCE, metadata=METADATA),
    graderapi.run: body(["grader", "model_sample"], grader=GRADER, item=OBJECT, model_sample=TEXT),
    graderapi.validate: body(["grader"], grader=GRADER),
    responses.create: body(
        ["model", "input"],
        model=TEXT,
        input={"anyOf": [TEXT, ITEMS]},
        instructions={"type": ["string", "null"]},
        previous_response_id={"type": ["string", "null"]},
        temperature={"type": "number", "minimum": 0, "maximum": 2},
        max_output_tokens={"type": "integer", "minimum": 1},
        tools=OBJECTS,
        tool_choice=CHOICE,
        background={"type": ["boolean", "null"]},
        text=OBJECT,
        stream={"type": "boolean"},
        store={"type": "boolean"},
        metadata=METADATA,
    ),
}

BYTES: Schema = {"type": "string", "format": "binary"}
FORMS: dict[Endpoint, Schema] = {
    files.upload: body(["file", "purpose"], file=BYTES, purpose={"enum": list(files.PURPOSES)}),
    uploads.add_part: body(["data"], data=BYTES),
}
