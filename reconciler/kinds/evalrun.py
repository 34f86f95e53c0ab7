"""One subject (model × prompt) measured by one eval on one dataset; also implied by every promotion rule."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from reconciler import judgedrows
from reconciler.errors import Problem
from reconciler.kind import (
    Action,
    Ask,
    Decision,
    Kind,
    Needs,
    Observed,
    Progress,
    Seen,
    Stamp,
    State,
)
from reconciler.kinds.eval import EvalSpec
from reconciler.kinds.grader import model_name
from reconciler.kinds.prompt import PromptSpec, SamplingParams, variables
from reconciler.resource import COSMETIC, Address, Ref, ResourceSpec, Wanted
from reconciler.subject import model_of, prompt_of
from reconciler.supersede import OnSupersede
from reconciler.world import Object, Platform

Body = dict[str, Any]
SEED = 42  # what platforms of this contract sample with unless they are told
STATES = {"completed": State.READY, "failed": State.FAILED, "canceled": State.FAILED}


class EvalRunSpec(ResourceSpec):
    eval: Annotated[str, Ref("Eval")]
    model: Annotated[str | None, Ref("Model", "FineTuneJob")] = Field(
        None, description="who answers; unset where every row carries its answer as `sample`"
    )
    dataset: Annotated[str, Ref("Dataset")] = Field(description="rows of format items")
    prompt: Annotated[str | None, Ref("Prompt")] = None
    item_reference: str | None = Field(
        None, description="the item field that holds the messages, e.g. item.input"
    )
    sampling_params: SamplingParams = Field(
        SamplingParams(), description="over the prompt's; temperature is 0 unless one of them says otherwise"
    )
    attempt: int = Field(1, ge=1, description="raise it to measure again what was measured")
    on_supersede: OnSupersede = "keep"
    tries: Annotated[int, COSMETIC] = Field(
        1, ge=1, description="raise it to run again what failed; what was measured is not measured again"
    )
    description: Annotated[str, COSMETIC] = ""

    @model_validator(mode="after")
    def _one_input(self) -> "EvalRunSpec":
        asks = bool(self.prompt or self.item_reference or self.sampling_params.wire())
        if self.model is None and asks:
            raise ValueError(
                "a run that asks something needs a model; without one it grades the rows' answers"
            )
        if self.model is not None and (self.prompt is None) == (self.item_reference is None):
            raise ValueError("a run needs what to ask: a prompt, or an item_reference")
        return self


def implied(eval_: Address, measure: EvalSpec, subject: str, asked: PromptSpec | None, sample: int) -> Body:
    """The run of an eval that measures one sample of every item of a subject; `asked` is its prompt. Pure."""
    own = prompt_of(subject)
    params = measure.sampling_params.model_dump(exclude_none=True)
    if sample > 1:
        seeds = (measure.sampling_params.seed, asked.sampling_params.seed if asked else None, SEED)
        params["seed"] = next(seed for seed in seeds if seed is not None) + sample - 1
    body = {
        "eval": str(eval_),
        "model": str(model_of(subject)),
        "dataset": measure.dataset,
        "prompt": str(own) if own else measure.prompt,
        "item_reference": None if own else measure.item_reference,
        "tries": measure.tries if measure.tries > 1 else None,
    }
    return {k: v for k, v in body.items() if v is not None} | {"sampling_params": params}


def calibrating(eval_: Address, measure: EvalSpec, dataset: str) -> Body:
    """The run of an eval that grades answers which people have judged. Pure."""
    tries = {"tries": measure.tries} if measure.tries > 1 else {}
    return {"eval": str(eval_), "dataset": dataset} | tries


class EvalRunKind(Kind):
    """A run of an eval."""

    name = "EvalRun"
    Spec = EvalRunSpec
    noun = "eval run"
    collection = "evals/{eval}/runs"
    under = "Eval"

    def check(self, wanted: Wanted, spec: EvalRunSpec, needs: Mapping[Address, Wanted]) -> Iterable[Problem]:
        dataset = needs[wanted.needed("dataset")]
        schema = needs[wanted.needed("eval")].body["item_schema"]
        if dataset.body["format"] != "items":
            yield Problem(
                wanted.where, f"{dataset.address} holds {dataset.body['format']} rows, an eval takes items"
            )
            return
        known = schema.get("properties")
        if spec.item_reference and known:
            for name in sorted(variables([f"{{{{ {spec.item_reference} }}}}"]) - known.keys()):
                yield Problem(wanted.where, f"item_reference {spec.item_reference}: the items of "
                              f"{wanted.needed('eval')} have no {name}; they have {', '.join(known)}")  # fmt: skip
        if spec.prompt and known:
            prompt = needs[wanted.needed("prompt")]
            used = variables(message["content"] for message in prompt.body["messages"])
            for name in sorted(used - known.keys()):
                yield Problem(prompt.where, f"{prompt.address} uses {{{{ {name} }}}}, which the items of "
                              f"{wanted.needed('eval')} do not have; they have {', '.join(known)}")  # fmt: skip
        from reconciler import rows

        flaws = rows.scan(dataset.facts["path"], "items", item_schema=schema).report()
        yield from flaws
        if spec.model is None and not flaws and (what := judgedrows.unanswered(dataset.facts["path"])):
            yield Problem(dataset.where, f"{dataset.address}: {what}")

    def decide(self, wanted: Wanted, seen: Seen, needs: Needs, evidence: Any = None) -> Decision:
        decision = super().decide(wanted, seen, needs)
        failed = len(seen.by_fingerprint.get(wanted.fingerprint, []))
        if decision.action is Action.BLOCK and failed < wanted.body.get("tries", 1):
            return Decision(Action.CREATE, f"again, {failed} failed")
        return decision

    def look(self, platform: Platform, project: str, parents: Iterable[Observed] = ()) -> list[Observed]:
        return [self.observe(run) for parent in parents for run in platform.list(f"evals/{parent.id}/runs")]

    def ask(self, wanted: Wanted, needs: Needs, stamp: Stamp, decision: Decision) -> Ask:
        spec: EvalRunSpec = self.spec(wanted)
        at = f"evals/{needs[wanted.needed('eval')].id}/runs"
        body = {"name": wanted.address.name, "metadata": stamp.metadata()}
        rows = {"type": "file_id", "id": needs[wanted.needed("dataset")].id}
        if spec.model is None:
            return Ask(at, body | {"data_source": {"type": "jsonl", "source": rows}})
        params = spec.sampling_params.wire()
        if spec.prompt:
            prompt = needs[wanted.needed("prompt")].body
            messages = {"type": "template", "template": prompt["template"]}
            params = {"temperature": 0.0} | prompt["sampling_params"] | params
        else:
            params = {"temperature": 0.0} | params
            messages = {"type": "item_reference", "item_reference": spec.item_reference}
        source = {
            "type": "completions",
            "source": rows,
            "model": model_name(needs[wanted.needed("model")]),
            "input_messages": messages,
            "sampling_params": params,
        }
        return Ask(at, body | {"data_source": source})

    def observe(self, made: Object) -> Observed:
        error = made.get("error") or {}
        return Observed(
            id=made["id"],
            stamp=Stamp.read(made.get("metadata")),
            state=STATES.get(made["status"], State.WORKING),
            body=made,
            created_at=made.get("created_at") or 0,
            note=error.get("message") or made["status"],
        )

    def place(self, observed: Observed) -> str:
        return f"evals/{observed.body['eval_id']}/runs"

    def cancel(self, platform: Platform, duplicate: Observed) -> None:
        platform.create(f"{self.place(duplicate)}/{duplicate.id}/cancel", {}, key=f"cancel:{duplicate.id}")

    def progress(self, platform: Platform, observed: Observed) -> Progress | None:
        counts = observed.body.get("result_counts") or {}
        total = counts.get("total") or 0
        done = sum(counts.get(key) or 0 for key in ("passed", "failed", "errored"))
        rate = f"{counts['passed'] / done:.1%} passed" if done else "waiting"
        return Progress(done, total, f"{done}/{total} items, {rate}")


KIND = EvalRunKind()
