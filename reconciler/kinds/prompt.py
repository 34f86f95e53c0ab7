"""Messages with `{{ variables }}`: a pure value, identified by its content, used by evals and releases."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, model_validator

from reconciler.kind import Action, Decision, Kind, Needs, Observed, Seen, State
from reconciler.resource import COSMETIC, Spec, Wanted

VARIABLE = re.compile(r"\{\{\s*([\w.\[\]-]+)\s*\}\}")


class Message(Spec):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class Example(Spec):
    """A worked answer, shown before the question."""

    user: str
    assistant: str


class SamplingParams(Spec):
    """How answers are sampled, in the platform's own words."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_completion_tokens: int | None = Field(
        None, ge=1, validation_alias=AliasChoices("max_completion_tokens", "max_completions_tokens")
    )
    seed: int | None = None
    reasoning_effort: str | None = None
    response_format: dict[str, Any] | None = None

    def wire(self) -> dict[str, Any]:
        return {key: value for key, value in self.model_dump().items() if value is not None}


class PromptSpec(Spec):
    messages: list[Message] = Field(
        min_length=1, description="`{{ name }}` stands for the item's field `name`"
    )
    examples: list[Example] = Field(
        default_factory=list, description="worked answers, put after the system message"
    )
    sampling_params: SamplingParams = SamplingParams()
    description: Annotated[str, COSMETIC] = ""

    @model_validator(mode="after")
    def _ends_with_a_question(self) -> "PromptSpec":
        if self.messages[-1].role != "user":
            raise ValueError("the last message must be the user's, so that there is something to answer")
        return self


def variables(texts: Iterable[str]) -> set[str]:
    """The item fields that templates mention: `ticket` for `{{ ticket }}` and for `{{ item.ticket.id }}`. Pure."""
    found = {match for text in texts for match in VARIABLE.findall(text)}
    return {
        re.split(r"[.\[]", name.removeprefix("item."))[0] for name in found if not name.startswith("sample.")
    }


def template(spec: PromptSpec) -> list[dict[str, str]]:
    """The prompt as an eval run's `input_messages.template`. Pure."""
    head = [m for m in spec.messages if m.role in ("system", "developer")]
    shots = [m for e in spec.examples for m in (Message(role="user", content=e.user),
                                                Message(role="assistant", content=e.assistant))]  # fmt: skip
    tail = [m for m in spec.messages if m.role not in ("system", "developer")]
    return [{"role": m.role, "content": VARIABLE.sub(_of_item, m.content)} for m in (*head, *shots, *tail)]


def _of_item(match: re.Match[str]) -> str:
    name = match[1]
    return f"{{{{ {name if name.startswith('item.') else f'item.{name}'} }}}}"


class PromptKind(Kind):
    """Nothing stands on a platform for it: it travels inside what uses it."""

    name = "Prompt"
    Spec = PromptSpec

    def decide(self, wanted: Wanted, seen: Seen, needs: Needs, evidence: Any = None) -> Decision:
        spec: PromptSpec = self.spec(wanted)
        body = {"template": template(spec), "sampling_params": spec.sampling_params.wire()}
        return Decision(Action.KEEP, "", Observed(str(wanted.address), None, State.READY, body))


KIND = PromptKind()
