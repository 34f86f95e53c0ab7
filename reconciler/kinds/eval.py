"""
What good means: the schema of an item and the graders every answer has to pass.

`dataset`, `prompt` or `item_reference`, `sampling_params` and `samples_per_item` are only what its runs use
unless they say otherwise; they are identity of the runs and not of the eval.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from reconciler.errors import Problem
from reconciler.kind import PROTECT, Ask, Decision, Kind, Needs, Observed, Stamp, State
from reconciler.kinds.grader import Inline, texts, wire
from reconciler.kinds.prompt import SamplingParams, variables
from reconciler.resource import COSMETIC, Address, Ref, ResourceSpec, Wanted
from reconciler.world import Object, Platform

CLUSTER = "reconciler_cluster"  # in an eval's metadata: what its items are clustered by


class EvalSpec(ResourceSpec):
    item_schema: dict[str, Any] = Field(description="JSON Schema that every item must satisfy")
    graders: list[Annotated[str, Ref("Grader")] | Inline] = Field(
        min_length=1, description="an answer passes when it passes all of them"
    )
    dataset: Annotated[str | None, Ref("Dataset"), COSMETIC] = Field(
        None, description="the items its runs use"
    )
    prompt: Annotated[str | None, Ref("Prompt"), COSMETIC] = Field(
        None, description="the prompt its runs use"
    )
    item_reference: Annotated[str | None, COSMETIC] = Field(
        None,
        description="or the item field that holds the messages, pictures and all, e.g. item.input",
    )
    sampling_params: Annotated[SamplingParams, COSMETIC] = SamplingParams()
    samples_per_item: Annotated[int, COSMETIC] = Field(
        1, ge=1, le=100, description="how often every item is answered, each time with another seed"
    )
    cluster: str | None = Field(
        None, description="the item field that says which items belong together and are not independent"
    )
    tries: Annotated[int, COSMETIC] = Field(
        1, ge=1, description="how often a run of it that failed may be run"
    )
    description: Annotated[str, COSMETIC] = ""

    @model_validator(mode="after")
    def _one_input(self) -> "EvalSpec":
        if self.prompt and self.item_reference:
            raise ValueError("its runs ask with a prompt or with what item_reference names, not with both")
        return self

    @field_validator("item_schema")
    @classmethod
    def _is_a_schema(cls, schema: dict[str, Any]) -> dict[str, Any]:
        if wrong := _schema_error(json.dumps(schema, sort_keys=True, default=str)):
            raise ValueError(f"item_schema is no JSON Schema: {wrong}")
        return schema


@cache
def _schema_error(text: str) -> str | None:
    """What is wrong with a JSON Schema. Pure; many evals share one."""
    import jsonschema

    schema = json.loads(text)
    try:
        jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator).check_schema(schema)
    except jsonschema.SchemaError as error:
        return error.message
    return None


class EvalKind(Kind):
    """An eval on the platform."""

    name = "Eval"
    Spec = EvalSpec
    noun = "eval"
    collection = "evals"

    def check(self, wanted: Wanted, spec: EvalSpec, needs: Mapping[Address, Wanted]) -> Iterable[Problem]:
        known = spec.item_schema.get("properties")
        if not known:
            return
        if spec.cluster and spec.cluster not in known:
            yield Problem(
                wanted.where, f"cluster {spec.cluster} is no field of item_schema; it has {', '.join(known)}"
            )
        for index, grader in enumerate(spec.graders):
            address = Ref("Grader").address(grader) if isinstance(grader, str) else None
            body = needs[address].body if address else grader.model_dump()  # type: ignore[union-attr]
            for name in sorted(variables(texts(body)) - known.keys()):
                called = address.name if address else f"graders[{index}]"
                yield Problem(wanted.where, f"grader {called} uses item.{name}, which item_schema does not have; "
                              f"it has {', '.join(known)}")  # fmt: skip

    def look(self, platform: Platform, project: str, parents: Iterable[Observed] = ()) -> list[Observed]:
        return [self.observe(each) for each in platform.list("evals")]

    def ask(self, wanted: Wanted, needs: Needs, stamp: Stamp, decision: Decision) -> Ask:
        spec: EvalSpec = self.spec(wanted)
        criteria = []
        for index, grader in enumerate(spec.graders):
            address = Ref("Grader").address(grader) if isinstance(grader, str) else None
            criteria.append(dict(needs[address].body) if address else wire(grader, f"grader-{index}", needs))
        body = {
            "name": wanted.address.name,
            "data_source_config": {
                "type": "custom",
                "item_schema": spec.item_schema,
                "include_sample_schema": True,
            },
            "testing_criteria": criteria,
            "metadata": stamp.metadata() | ({CLUSTER: spec.cluster} if spec.cluster else {}),
        }
        return Ask("evals", body)

    def asked(self, observed: Observed) -> Object:
        config = dict(observed.body.get("data_source_config") or {})
        schema = config.get("schema") or {}
        if "item" in schema.get("properties", {}):
            config |= {
                "item_schema": schema["properties"]["item"],
                "include_sample_schema": "sample" in schema["properties"],
            }
        return {**observed.body, "data_source_config": config}

    def restamp(self, observed: Observed, stamp: Stamp) -> Ask:
        others = {k: v for k, v in (observed.body.get("metadata") or {}).items() if k != PROTECT}
        return Ask(f"evals/{observed.id}", {"metadata": others | stamp.metadata()})

    def observe(self, made: Object) -> Observed:
        return Observed(
            made["id"], Stamp.read(made.get("metadata")), State.READY, made, made.get("created_at") or 0
        )


KIND = EvalKind()
