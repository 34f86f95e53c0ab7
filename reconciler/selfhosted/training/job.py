"""
What a job was asked to do: the shape of `job.json`, written by the supervisor and only read here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reconciler.selfhosted.training.failures import Failure

Auto = Literal["auto"]


class Hyperparameters(BaseModel):
    n_epochs: Annotated[int, Field(ge=1, le=50)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0)] | Auto = "auto"


class Supervised(BaseModel):
    hyperparameters: Hyperparameters = Hyperparameters()


class PreferenceHyperparameters(Hyperparameters):
    beta: Annotated[float, Field(gt=0, le=2)] | Auto = "auto"


class Preference(BaseModel):
    hyperparameters: PreferenceHyperparameters = PreferenceHyperparameters()


class ReinforcementHyperparameters(Hyperparameters):
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"
    compute_multiplier: Annotated[float, Field(gt=0.00001, le=10)] | Auto = "auto"
    eval_interval: Annotated[int, Field(ge=1)] | Auto = "auto"  # steps
    eval_samples: Annotated[int, Field(ge=1)] | Auto = "auto"  # of every validation row


class Reinforcement(BaseModel):
    grader: dict[str, Any]
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()
    response_format: dict[str, Any] | None = None


class SupervisedMethod(BaseModel):
    type: Literal["supervised"]
    supervised: Supervised = Supervised()


class PreferenceMethod(BaseModel):
    type: Literal["dpo"]
    dpo: Preference = Preference()


class ReinforcementMethod(BaseModel):
    type: Literal["reinforcement"]
    reinforcement: Reinforcement


Method = SupervisedMethod | PreferenceMethod | ReinforcementMethod


class Lora(BaseModel):
    type: Literal["lora"] = "lora"
    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    target: Literal["all-linear"] = "all-linear"


class Full(BaseModel):
    type: Literal["full"]


class Model(BaseModel):
    path: Path


class FarJudge(BaseModel):
    """A model that grades and is served elsewhere; the key to it is in the environment."""

    base_url: str
    model: str  # what it is called there
    api_key_env: str | None = None
    concurrency: Annotated[int, Field(ge=1)]
    cache: Path  # what it answered, so that a training that goes on asks nothing twice


class Job(BaseModel):
    """One job; unknown keys belong to the supervisor and are ignored."""

    model_config = ConfigDict(protected_namespaces=())

    id: str
    model: Model
    training_file: Path
    validation_file: Path | None = None
    method: Annotated[Method, Field(discriminator="type")]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    tuning: Annotated[Lora | Full, Field(discriminator="type")] = Lora()
    judges: dict[str, Path | FarJudge] = {}  # the models that graders ask, by the names that they use
    unsafe_graders: bool = False  # whether python graders run without isolation where there is none
    threads: Annotated[int, Field(ge=1)] | None = None
    processes: Annotated[int, Field(ge=1)] | Auto = "auto"  # one for each GPU, one where there is none
    save_every_s: Annotated[float, Field(ge=0)] = 20.0  # between two resume states inside an epoch


def read(path: Path) -> Job:
    """The job in this file. Failure `invalid_job` when it is not one."""
    try:
        return Job.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
        raise Failure("invalid_job", f"the job description is not valid: {problems}") from None
