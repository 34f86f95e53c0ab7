"""
How a job trains, as it is asked for and as the job object shows it: supervised, dpo or reinforcement.

Each method has its own hyperparameters, `auto` or a number; only a supervised job repeats them at the top
of the job object, as OpenAI does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field, to_builtins

from reconciler.selfhosted import wire

Auto = Literal["auto"]


class Hyperparameters(Struct):
    n_epochs: Annotated[int, Meta(ge=1, le=50)] | Auto = "auto"
    batch_size: Annotated[int, Meta(ge=1, le=256)] | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Meta(gt=0)] | Auto = "auto"


class DpoHyperparameters(Hyperparameters):
    beta: Annotated[float, Meta(gt=0, le=2)] | Auto = "auto"


class ReinforcementHyperparameters(Hyperparameters):
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"
    compute_multiplier: Annotated[float, Meta(gt=0.00001, le=10)] | Auto = "auto"
    eval_interval: Annotated[int, Meta(ge=1)] | Auto = "auto"
    eval_samples: Annotated[int, Meta(ge=1)] | Auto = "auto"


class Supervised(Struct):
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)


class Dpo(Struct):
    hyperparameters: DpoHyperparameters = field(default_factory=DpoHyperparameters)


class Reinforcement(Struct):
    grader: dict[str, Any]
    hyperparameters: ReinforcementHyperparameters = field(default_factory=ReinforcementHyperparameters)
    response_format: dict[str, Any] | None = None  # the guides use it, the specification forgot it


class Method(Struct):
    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: Reinforcement | None = None


def chosen(method: Method | None, deprecated: Hyperparameters | None) -> dict[str, Any]:
    """The job object's `method`; the deprecated top-level hyperparameters count for supervised jobs only."""
    if method is None or (method.type == "supervised" and method.supervised is None):
        method = Method("supervised", Supervised(deprecated or Hyperparameters()))
    options = {
        "supervised": method.supervised,
        "dpo": method.dpo or Dpo(),
        "reinforcement": method.reinforcement,
    }
    of = options[method.type]
    if of is None:
        raise wire.bad("a reinforcement job needs method.reinforcement with a grader", "method.reinforcement")
    wanted: dict[str, Any] = to_builtins(of)
    if wanted.get("response_format", ...) is None:
        del wanted["response_format"]
    return {"type": method.type, method.type: wanted}


def hyperparameters(method: dict[str, Any]) -> dict[str, Any]:
    """The job object's top-level `hyperparameters`, empty but for supervised jobs. Pure."""
    chosen: dict[str, Any] = method["supervised"]["hyperparameters"] if method["type"] == "supervised" else {}
    return chosen


def resolved(method: dict[str, Any], numbers: dict[str, Any]) -> dict[str, Any]:
    """The method with the numbers that `auto` turned out to be. Pure."""
    type = method["type"]
    options = method[type]
    return {"type": type, type: options | {"hyperparameters": options["hyperparameters"] | numbers}}


def grader(method: dict[str, Any]) -> dict[str, Any] | None:
    """The grader of a reinforcement job, None of the others. Pure."""
    return method["reinforcement"]["grader"] if method["type"] == "reinforcement" else None
