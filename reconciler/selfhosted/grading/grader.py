"""
Applies a grader to one item and one sample. Whatever goes wrong becomes the item's own error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from . import formula
from .grades import CannotGrade, Embedder, Flag, Grade, Judge, JudgeFailed, Problem, Scored, grade_of
from .judging import label_model, score_model
from .sandbox import GraderFailed, Sandbox
from .similarity import COSINE, METRICS, TooLong, similarity
from .template import UnknownVariable, render

_WRITTEN_BY_THE_MODEL = ("sample.output_json", "sample.output_tools", "sample.choices")


class Means(NamedTuple):
    """What graders may use besides the item and the sample."""

    judge: Judge
    sandbox: Sandbox
    embedder: Embedder | None


async def grade(
    grader: Mapping[str, Any],
    item: Mapping[str, Any],
    sample: Mapping[str, Any],
    *,
    judge: Judge,
    sandbox: Sandbox,
    embedder: Embedder | None = None,
) -> Grade:
    """The grade of one sample, by a grader in which `check` found nothing wrong. Never raises for an item."""
    started = time.perf_counter()
    scored = await _scored(grader, item, sample, Means(judge, sandbox, embedder))
    return grade_of(grader, scored, time.perf_counter() - started)


async def _scored(
    grader: Mapping[str, Any],
    item: Mapping[str, Any],
    sample: Mapping[str, Any],
    means: Means,
) -> Scored:
    try:
        match grader["type"]:
            case "string_check":
                return _string_check(grader, item, sample)
            case "text_similarity":
                return await _text_similarity(grader, item, sample, means.embedder)
            case "score_model":
                return await score_model(grader, item, sample, means.judge)
            case "label_model":
                return await label_model(grader, item, sample, means.judge)
            case "python":
                return await _python(grader, item, sample, means.sandbox)
            case "multi":
                return await _multi(grader, item, sample, means)
        raise CannotGrade("other_error", f"there is no grader of type {grader['type']}")
    except UnknownVariable as unknown:
        return Scored(0.0, (_unknown(unknown, sample),))
    except CannotGrade as cannot:
        return Scored(0.0, (cannot.problem,))


def _unknown(unknown: UnknownVariable, sample: Mapping[str, Any]) -> Problem:
    """Whose fault a missing variable is: the sample's, where a model was to write it, else the grader's."""
    if unknown.path.startswith("sample.output_json") and "output_json" not in sample:
        return Problem("sample_parse_error", f"{{{{ {unknown.path} }}}}: the sample's text is not JSON")
    if unknown.path.startswith(_WRITTEN_BY_THE_MODEL):
        return Problem("sample_parse_error", str(unknown))
    return Problem("invalid_variable_error", str(unknown))


def _string_check(grader: Mapping[str, Any], item: Mapping[str, Any], sample: Mapping[str, Any]) -> Scored:
    text, reference = render(grader["input"], item, sample), render(grader["reference"], item, sample)
    match grader["operation"]:
        case "eq":
            holds = text == reference
        case "ne" | "neq":  # one of OpenAI's guides prints neq
            holds = text != reference
        case "like":
            holds = reference in text
        case "ilike":
            holds = reference.casefold() in text.casefold()
        case other:
            raise CannotGrade("other_error", f"there is no string_check operation {other}")
    return Scored(1.0 if holds else 0.0)


async def _text_similarity(
    grader: Mapping[str, Any], item: Mapping[str, Any], sample: Mapping[str, Any], embedder: Embedder | None
) -> Scored:
    metric = grader["evaluation_metric"]
    if metric not in (*METRICS, COSINE):
        raise CannotGrade("other_error", f"there is no text_similarity metric {metric}")
    text, reference = render(grader["input"], item, sample), render(grader["reference"], item, sample)
    if metric == COSINE:
        return Scored(await _cosine(text, reference, embedder))
    try:  # in a thread: the first use imports a library, and long texts take a while
        return Scored(await asyncio.to_thread(similarity, metric, text, reference))
    except TooLong as too_long:
        raise CannotGrade("other_error", str(too_long)) from too_long


async def _cosine(text: str, reference: str, embedder: Embedder | None) -> float:
    """The cosine of the angle between two embeddings, within [0, 1]; an empty text is like no other."""
    if embedder is None:
        raise CannotGrade("other_error", "cosine needs embeddings, and there are none here")
    if not text or not reference:
        return 1.0 if text == reference else 0.0
    try:
        ours, theirs = await embedder.embed([text, reference])
    except JudgeFailed as failed:
        raise CannotGrade("other_error", f"the texts could not be embedded: {failed}") from failed
    return min(1.0, max(0.0, sum(a * b for a, b in zip(ours, theirs, strict=True))))


async def _python(
    grader: Mapping[str, Any], item: Mapping[str, Any], sample: Mapping[str, Any], sandbox: Sandbox
) -> Scored:
    try:
        return Scored(await sandbox.run(grader["source"], dict(item), dict(sample)))
    except GraderFailed as failed:
        ours = failed.kind in ("unavailable", "died")
        flag: Flag = "python_grader_server_error" if ours else "python_grader_runtime_error"
        raise CannotGrade(flag, str(failed)) from failed


async def _multi(
    grader: Mapping[str, Any],
    item: Mapping[str, Any],
    sample: Mapping[str, Any],
    means: Means,
) -> Scored:
    """The formula over the members' scores; a member that failed counts 0 and its error is kept."""
    parts = members(grader["graders"])
    results = await asyncio.gather(*(_scored(part, item, sample, means) for part in parts.values()))
    scores = {name: result.score for name, result in zip(parts, results, strict=True)}
    problems = tuple(
        Problem(problem.flag, f"{name}: {problem.text}")
        for name, result in zip(parts, results, strict=True)
        for problem in result.problems
    )
    usage = add_usage([result.usage for result in results])
    try:
        score = formula.evaluate(formula.parse(grader["calculate_output"]), scores)
    except formula.FormulaError as wrong:
        score, problems = 0.0, (*problems, Problem("formula_parse_error", str(wrong)))
    return Scored(score, problems, scores, usage)


def members(graders: Any) -> dict[str, Mapping[str, Any]]:
    """
    A multi grader's members by name. Pure.

    The documented form is a map; the specification types one grader, and its example shows a list.
    """
    if isinstance(graders, Mapping) and isinstance(graders.get("type"), str):
        graders = [graders]
    if isinstance(graders, Mapping):
        return dict(graders)
    return {str(grader.get("name")): grader for grader in graders}


def add_usage(usages: list[Mapping[str, Mapping[str, Any]]]) -> dict[str, Mapping[str, Any]]:
    """Tokens per judge model over several graders; only whole numbers add up. Pure."""
    total: dict[str, dict[str, Any]] = {}
    for usage in usages:
        for model, tokens in usage.items():
            sums = total.setdefault(model, {})
            for key, count in tokens.items():
                if isinstance(count, int):
                    sums[key] = sums.get(key, 0) + count
    return dict(total)
