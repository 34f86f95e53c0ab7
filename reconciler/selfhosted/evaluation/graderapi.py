"""
The grader endpoints: try a grader on one sample, or only ask whether it is well made.

They take the five types that reinforcement jobs take, `multi` among them, and not `label_model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.selfhosted import context, grading, wire
from reconciler.selfhosted.evaluation import evalbody, runner
from reconciler.selfhosted.evaluation.judging import BatchJudge
from reconciler.selfhosted.grading.grader import members
from reconciler.selfhosted.serving.sampling import served
from reconciler.selfhosted.wire import WireError

TYPES = ("string_check", "text_similarity", "python", "score_model", "multi")


async def validate(request: Request) -> Response:
    body = await wire.body_json(request)
    await accept(request, body.get("grader"), "grader")
    return wire.answer({"grader": body["grader"]})


async def run(request: Request) -> Response:
    here, project = context.of(request), context.project(request)
    body = await wire.body_json(request)
    grader, item, text = (
        _checked(body.get("grader"), "grader"),
        body.get("item") or {},
        body.get("model_sample"),
    )
    if not isinstance(item, dict):
        raise wire.bad("item must be an object", "item")
    if not isinstance(text, str):
        raise wire.bad("model_sample is required and must be a string", "model_sample")
    names = evalbody.models_of([grader, *_members(grader)])
    models = {
        name: await here.store.read(partial(served, project=project, name=name, listed=here.upstreams))
        for name in names
    }
    working = runner.of(request)
    judge = BatchJudge(working.sampler, models)
    grade = await grading.grade(grader, item, grading.sample_of(text), judge=judge, sandbox=working.sandbox)
    return wire.answer(
        {
            "reward": grade.score,
            "metadata": grade.metadata,
            "sub_rewards": grade.sub_rewards,
            "model_grader_token_usage_per_model": grade.usage,
        }
    )


async def accept(request: Request, grader: Any, param: str) -> list[str]:
    """Refuse a grader that cannot give a reward here; else the names of the models that it asks."""
    parts = [_checked(grader, param), *_members(grader)]
    await refuse_unable(request, parts, [param] * len(parts))
    return evalbody.models_of(parts)


async def refuse_unable(
    request: Request, graders: Sequence[Mapping[str, Any]], params: Sequence[str]
) -> None:
    """Refuse graders that can never run here: a syntax error, no sandbox, or no model that embeds."""
    here, sandbox = context.of(request), runner.of(request).sandbox
    for grader, param in zip(graders, params, strict=True):
        if evalbody.compares_embeddings([grader]):
            find = partial(
                served, project=context.project(request), name=here.embedding_model, listed=here.upstreams
            )
            try:
                await here.store.read(find)
            except WireError as missing:
                sentence = f"{param}: cosine needs an embedding model: {missing.message}"
                raise wire.bad(sentence, param, "invalid_grader") from missing
        if grader["type"] == "python" and (problem := await sandbox.check(grader["source"])) is not None:
            raise wire.bad(f"{param}: {problem}", param, "invalid_grader")


def _checked(grader: Any, param: str) -> dict[str, Any]:
    """The grader, or a 400 with everything that is wrong with it."""
    if not isinstance(grader, dict):
        raise wire.bad("grader is required and must be an object", param)
    if grader.get("type") not in TYPES:
        raise wire.bad(f"the grader's type must be one of {', '.join(TYPES)}", f"{param}.type")
    problems = grading.check(grader, allow_multi=True, require_threshold=False)
    if problems:
        raise wire.bad("; ".join(problems), param, "invalid_grader")
    return grader


def _members(grader: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(members(grader["graders"]).values()) if grader["type"] == "multi" else []


routes = [
    Route("/v1/fine_tuning/alpha/graders/run", run, methods=["POST"]),
    Route("/v1/fine_tuning/alpha/graders/validate", validate, methods=["POST"]),
]
