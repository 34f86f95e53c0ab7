"""
One training run and the model it leaves behind.

A job is recorded whatever its score; whether it is good is a promotion rule's question. A failed job
is not asked for again until its manifest says so (`attempt`), because every attempt may cost money.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.kind import Ask, Decision, Kind, Needs, Observed, Progress, Removal, Stamp, State
from reconciler.kinds.grader import GraderSpec, model_name, wire
from reconciler.resource import COSMETIC, Address, Ref, ResourceSpec, Spec, Wanted
from reconciler.supersede import OnSupersede
from reconciler.world import Object, Platform

STATES = {"succeeded": State.READY, "failed": State.FAILED, "cancelled": State.FAILED}
FORMATS = {"supervised": ("chat", "vision"), "dpo": ("preference",), "reinforcement": ("reinforcement",)}

Auto = Literal["auto"]


class Hyperparameters(Spec):
    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0)] = "auto"


class DPOHyperparameters(Hyperparameters):
    beta: Auto | Annotated[float, Field(gt=0, le=2)] = "auto"


class ReinforcementHyperparameters(Hyperparameters):
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"
    compute_multiplier: Auto | Annotated[float, Field(gt=0.00001, le=10)] = "auto"
    eval_interval: Auto | Annotated[int, Field(ge=1)] = "auto"
    eval_samples: Auto | Annotated[int, Field(ge=1)] = "auto"


class SupervisedOptions(Spec):
    hyperparameters: Hyperparameters = Hyperparameters()


class DPOOptions(Spec):
    hyperparameters: DPOHyperparameters = DPOHyperparameters()


class ReinforcementOptions(Spec):
    grader: Annotated[str, Ref("Grader")] | GraderSpec
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()
    response_format: dict[str, Any] | None = None


class Supervised(Spec):
    type: Literal["supervised"]
    supervised: SupervisedOptions = SupervisedOptions()


class DPO(Spec):
    type: Literal["dpo"]
    dpo: DPOOptions = DPOOptions()


class Reinforcement(Spec):
    type: Literal["reinforcement"]
    reinforcement: ReinforcementOptions


class LoRA(Spec):
    type: Literal["lora"]
    rank: int = Field(16, ge=1, le=1024)
    alpha: int = Field(32, ge=1)
    target: str = "all-linear"


class Full(Spec):
    type: Literal["full"]


class FineTuneJobSpec(ResourceSpec):
    model: Annotated[str, Ref("Model", "FineTuneJob")] = Field(
        description="the base: a Model, or a job to go on from"
    )
    training_file: Annotated[str, Ref("Dataset")]
    validation_file: Annotated[str | None, Ref("Dataset")] = None
    method: Annotated[Supervised | DPO | Reinforcement, Field(discriminator="type")]
    tuning: Annotated[LoRA | Full | None, Field(discriminator="type")] = Field(
        None,
        description="adapters or all weights, on the platform of this package; others choose for themselves",
    )
    seed: int = Field(42, ge=0, le=2147483647)
    suffix: Annotated[str | None, COSMETIC] = Field(
        None, min_length=1, max_length=64, description="part of the model's name"
    )
    attempt: int = Field(1, ge=1, description="raise it to train again what failed")
    on_supersede: OnSupersede = "keep"
    description: Annotated[str, COSMETIC] = ""


class FineTuneJobKind(Kind):
    """A fine-tuning job."""

    name = "FineTuneJob"
    Spec = FineTuneJobSpec
    noun = "job"
    collection = "fine_tuning/jobs"

    def check(
        self, wanted: Wanted, spec: FineTuneJobSpec, needs: Mapping[Address, Wanted]
    ) -> Iterable[Problem]:
        fitting = FORMATS[spec.method.type]
        for need in wanted.needs:
            form = needs[need.address].body.get("format")
            if need.address.kind == "Dataset" and form not in fitting:
                yield Problem(wanted.where, f"{need.field}: {need.address} holds {form} rows, the method "
                              f"{spec.method.type} trains on {' or '.join(fitting)}")  # fmt: skip
        if isinstance(spec.method, Reinforcement) and not spec.validation_file:
            yield Problem(wanted.where, "reinforcement needs a validation_file")
        if spec.validation_file == spec.training_file:
            yield Problem(
                wanted.where, "validation_file is the training_file; hold rows out to learn anything from it"
            )

    def look(self, platform: Platform, project: str, parents: Iterable[Observed] = ()) -> list[Observed]:
        ours = {"metadata[reconciler_project]": project} if project else {}
        return [self.observe(job) for job in platform.list("fine_tuning/jobs", **ours)]

    def ask(self, wanted: Wanted, needs: Needs, stamp: Stamp, decision: Decision) -> Ask:
        spec: FineTuneJobSpec = self.spec(wanted)
        body: dict[str, Any] = {
            "model": model_name(needs[wanted.needed("model")]),
            "training_file": needs[wanted.needed("training_file")].id,
            "method": self._method(spec, wanted, needs),
            "seed": spec.seed,
            "suffix": spec.suffix or wanted.address.name[:64],
            "metadata": stamp.metadata(),
        }
        if spec.validation_file:
            body["validation_file"] = needs[wanted.needed("validation_file")].id
        if spec.tuning:
            body["reconciler"] = {"tuning": spec.tuning.model_dump(mode="json")}
        return Ask("fine_tuning/jobs", body)

    def _method(self, spec: FineTuneJobSpec, wanted: Wanted, needs: Needs) -> dict[str, Any]:
        method = spec.method.model_dump(mode="json", exclude_none=True)
        if isinstance(spec.method, Reinforcement):
            grader = spec.method.reinforcement.grader
            method["reinforcement"]["grader"] = (
                dict(needs[wanted.needed("method.reinforcement.grader")].body)
                if isinstance(grader, str)
                else wire(grader.root, "reward", needs)
            )
        return method

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

    def removal(self, observed: Observed) -> Removal | None:
        """A job stays for ever; its model does not have to."""
        model = observed.body.get("fine_tuned_model")
        return Removal("models", model) if model and observed.state is State.READY else None

    def cancel(self, platform: Platform, duplicate: Observed) -> None:
        platform.create(f"fine_tuning/jobs/{duplicate.id}/cancel", {}, key=f"cancel:{duplicate.id}")

    def progress(self, platform: Platform, observed: Observed) -> Progress | None:
        events = platform.latest(f"fine_tuning/jobs/{observed.id}/events", 20)
        metrics = [
            e["data"]
            for e in events
            if e.get("type") == "metrics" and (e.get("data") or {}).get("total_steps")
        ]
        if not metrics:
            return Progress(0, 0, events[0]["message"] if events else observed.note)
        newest = max(metrics, key=lambda m: m["step"])
        loss = next((m["train_loss"] for m in [newest, *metrics] if m.get("train_loss") is not None), None)
        text = f"step {newest['step']}/{newest['total_steps']}" + (
            f", loss {loss:.3f}" if loss is not None else ""
        )
        return Progress(newest["step"], newest["total_steps"], text, newest.get("eta_s"))


KIND = FineTuneJobKind()
