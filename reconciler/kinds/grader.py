"""One OpenAI grader, pasted in verbatim: a pure value, inlined wherever it is used."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, RootModel, model_validator

from reconciler.errors import Problem
from reconciler.kind import Action, Decision, Kind, Needs, Observed, Seen, State
from reconciler.kinds.prompt import SamplingParams
from reconciler.resource import COSMETIC, Address, Ref, Spec, Wanted

ModelName = Annotated[str, Ref("Model", "FineTuneJob", or_text=True)]
Metric = Literal[
    "fuzzy_match", "bleu", "gleu", "meteor", "cosine",
    "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l",
]  # fmt: skip


class GraderPart(Spec):
    name: Annotated[str | None, COSMETIC] = Field(
        None, description="how results call it; the resource's name if unset"
    )
    description: Annotated[str, COSMETIC] = ""


class StringCheck(GraderPart):
    type: Literal["string_check"]
    input: str
    reference: str
    operation: Literal["eq", "ne", "like", "ilike"]


class TextSimilarity(GraderPart):
    type: Literal["text_similarity"]
    input: str
    reference: str
    evaluation_metric: Metric
    pass_threshold: float


class JudgeMessage(Spec):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]
    type: Literal["message"] = "message"


class ScoreModel(GraderPart):
    type: Literal["score_model"]
    model: ModelName
    input: list[JudgeMessage] = Field(min_length=1)
    range: tuple[float, float] = (0.0, 1.0)
    sampling_params: SamplingParams = SamplingParams()
    pass_threshold: float | None = None


class LabelModel(GraderPart):
    type: Literal["label_model"]
    model: ModelName
    input: list[JudgeMessage] = Field(min_length=1)
    labels: list[str] = Field(min_length=1)
    passing_labels: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _subset(self) -> "LabelModel":
        if strange := set(self.passing_labels) - set(self.labels):
            raise ValueError(f"passing_labels has {', '.join(sorted(strange))}, which labels does not")
        return self


class Python(GraderPart):
    type: Literal["python"]
    source: str = Field(max_length=256_000, description="defines grade(sample, item) -> float")
    image_tag: str | None = None
    pass_threshold: float | None = None


Single = Annotated[
    StringCheck | TextSimilarity | ScoreModel | LabelModel | Python, Field(discriminator="type")
]


class Multi(GraderPart):
    type: Literal["multi"]
    graders: dict[str, Annotated[str, Ref("Grader")] | Single] = Field(min_length=1)
    calculate_output: str = Field(
        description="a formula over the graders' names: + - * / ^ min max abs floor ceil exp sqrt log"
    )


class GraderSpec(RootModel[Annotated[Single | Multi, Field(discriminator="type")]]):
    """One of OpenAI's six graders."""


Inline = Single


def wire(spec: Any, name: str, needs: Needs) -> dict[str, Any]:
    """A grader as the platform takes it, under the name that results will use. Pure."""
    body = {
        k: v
        for k, v in spec.model_dump(mode="json").items()
        if v is not None and k not in ("name", "description")
    }
    body["name"] = spec.name or name
    if isinstance(spec, ScoreModel | LabelModel):
        address = Ref("Model", "FineTuneJob", or_text=True).address(spec.model)
        body["model"] = model_name(needs[address]) if address else spec.model
    if isinstance(spec, ScoreModel):
        params = spec.sampling_params.wire()
        body.pop("sampling_params", None)
        if params:
            body["sampling_params"] = {
                "max_completions_tokens" if k == "max_completion_tokens" else k: v for k, v in params.items()
            }
    if isinstance(spec, Multi):
        body["graders"] = {
            key: dict(needs[Address.parse(part if "/" in part else f"Grader/{part}")].body) | {"name": key}
            if isinstance(part, str)
            else wire(part, key, needs)
            for key, part in spec.graders.items()
        }
    return body


def model_name(observed: Observed) -> str:
    """What the platform calls the model that stands for a Model or a FineTuneJob. Pure."""
    return str(observed.body.get("fine_tuned_model") or observed.id)


def texts(grader: Mapping[str, Any]) -> Iterable[str]:
    """Every template in a grader. Pure."""
    for key, value in grader.items():
        if key in ("input", "reference") and isinstance(value, str):
            yield value
        elif key == "input":
            yield from (m["content"] for m in value if isinstance(m.get("content"), str))
        elif key == "graders":
            for part in value.values():
                if isinstance(part, Mapping):
                    yield from texts(part)


class GraderKind(Kind):
    """Nothing stands on a platform for it: it travels inside evals and fine-tuning jobs."""

    name = "Grader"
    Spec = GraderSpec  # type: ignore[assignment]  # a union of specs, each of them a Spec

    def decide(self, wanted: Wanted, seen: Seen, needs: Needs, evidence: Any = None) -> Decision:
        if any(need.address not in needs for need in wanted.needs):
            return Decision(Action.KEEP)
        body = wire(self.spec(wanted), wanted.address.name, needs)
        return Decision(Action.KEEP, "", Observed(str(wanted.address), None, State.READY, body))

    def check(self, wanted: Wanted, spec: Any, needs: Mapping[Address, Wanted]) -> Iterable[Problem]:
        if isinstance(spec, Python):
            try:
                compile(spec.source, "grader", "exec")
            except (SyntaxError, ValueError) as error:
                line = getattr(error, "lineno", None)
                yield Problem(wanted.where, f"the grader's source is no Python: {getattr(error, 'msg', error)}"
                              + (f" (its line {line})" if line else ""))  # fmt: skip

    def parse(self, body: Mapping[str, Any]) -> Any:
        return GraderSpec.model_validate(body).root


KIND = GraderKind()
