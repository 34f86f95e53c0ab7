"""
Rewards: the grades that the evals' own graders give to what the model wrote.

The process that trains has a sandbox of its own for `python` graders and, where a grader asks a model, a
serving engine of its own; both end with it. So a reward is what an eval of the same grader would say, and
needs neither the server nor the network, but for a judge that is served elsewhere: that is asked there, with
the key that the environment has, and nothing twice.
"""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.selfhosted import grading
from reconciler.selfhosted.engine.client import Engine
from reconciler.selfhosted.grading import Grade, JudgeAnswer, JudgeFailed
from reconciler.selfhosted.training.failures import Failure
from reconciler.selfhosted.training.job import FarJudge

MOST_CACHED = 1 << 30  # bytes of what judges elsewhere answered to one job


class _NoJudge:
    """For graders that ask nobody."""

    async def ask(self, model: str, *_: Any) -> JudgeAnswer:
        raise JudgeFailed(f"the job knows no model named {model!r}")


class Rewards:
    """Grades answers; `close` ends its processes."""

    def __init__(
        self, grader: Mapping[str, Any], judges: Mapping[str, Path | FarJudge], *, unsafe: bool
    ) -> None:
        self.grader = grader
        self._runner = asyncio.Runner()
        self._sandbox = grading.Sandbox(unsafe=unsafe)
        self._engine = _engine(judges) if judges else None
        self._judge = _judge(self._engine, judges) if self._engine else _NoJudge()
        self._runner.run(self._sandbox.start())
        if _has_python(grader) and (refusal := self._runner.run(self._sandbox.refusal())):
            raise Failure("grader_unavailable", refusal)

    def grade(self, items: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]]) -> list[Grade]:
        """One grade for every sample, in their order. Failure when a judge lets nobody in."""
        grades = self._runner.run(self._all(items, samples))
        if denied := getattr(self._judge, "denied", None):
            raise Failure("grader_unavailable", denied.message)
        return grades

    async def _all(
        self, items: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]]
    ) -> list[Grade]:
        return await asyncio.gather(
            *(
                grading.grade(self.grader, item, sample, judge=self._judge, sandbox=self._sandbox)
                for item, sample in zip(items, samples, strict=True)
            )
        )

    def close(self) -> None:
        self._runner.run(self._sandbox.close())
        if self._engine:
            self._runner.run(self._engine.close())
        self._runner.close()


def _engine(judges: Mapping[str, Path | FarJudge]) -> Any:
    """A serving engine of our own, and beside it whatever is asked elsewhere."""
    from reconciler.selfhosted.upstream import upstreams

    far = {name: judge for name, judge in judges.items() if isinstance(judge, FarJudge)}
    for name, judge in judges.items():
        if str(judge).startswith(upstreams.ADDRESS):  # as it was when the job was created
            raise Failure(
                "grader_unavailable", f"no upstream has a pattern that fits the judge {name!r} any more"
            )
    if not far:
        return Engine()
    from reconciler.selfhosted.upstream.upstreamcache import Cache
    from reconciler.selfhosted.upstream.upstreamclient import Everywhere, Upstreams

    try:
        listed = [
            upstreams.Upstream(
                glob.escape(name),
                judge.base_url,
                judge.api_key_env,
                upstreams.key(judge.api_key_env, os.environ),
                judge.model,
                judge.concurrency,
            )
            for name, judge in far.items()
        ]
    except ValueError as error:
        raise Failure("grader_unavailable", str(error)) from None
    cache = Cache(next(iter(far.values())).cache, MOST_CACHED)
    return Everywhere(Engine(), Upstreams(listed, cache))


def _judge(engine: Any, judges: Mapping[str, Path | FarJudge]) -> Any:
    # The server's own judge, so that a reward and an eval put the same question. It knows the store's
    # modules, which take a while to import and are never opened here.
    from reconciler.selfhosted.evaluation.judging import BatchJudge
    from reconciler.selfhosted.serving.sampling import Sampler, Served
    from reconciler.selfhosted.upstream.upstreams import ADDRESS

    models = {
        name: Served(name, ADDRESS + name if isinstance(judge, FarJudge) else str(judge))
        for name, judge in judges.items()
    }
    return BatchJudge(Sampler(engine), models)


def _has_python(grader: Mapping[str, Any]) -> bool:
    parts = grading.members(grader["graders"]).values() if grader["type"] == "multi" else [grader]
    return any(part["type"] == "python" for part in parts)


@dataclass(frozen=True)
class Tally:
    """What a lot of grades come to."""

    mean: float
    parse_errors: float  # share of the samples that could not be read as the grader wants
    unresponsive: float  # share of the samples without a word
    tokens: float  # mean length of a sample
    errors: dict[str, int]  # by the contract's names, those that occurred
    graders: dict[str, float]  # mean score of every part
    judges: dict[str, dict[str, int]]  # tokens that judges took


def tally(grader: Mapping[str, Any], grades: Sequence[Grade], lengths: Sequence[int]) -> Tally:
    """Pure."""
    count = len(grades)
    errors: dict[str, int] = {}
    parts: dict[str, float] = {}
    judges: dict[str, dict[str, int]] = {}
    for grade in grades:
        for flag, raised in grade.metadata["errors"].items():
            if raised is True:
                errors[flag] = errors.get(flag, 0) + 1
        scores = grade.sub_rewards or {str(grader.get("name")): grade.score}
        for name, score in scores.items():
            parts[name] = parts.get(name, 0.0) + score / count
        for model, usage in grade.usage.items():
            sums = judges.setdefault(model, {})
            for key, tokens in usage.items():
                sums[key] = sums.get(key, 0) + int(tokens)
    return Tally(
        mean=sum(grade.score for grade in grades) / count,
        parse_errors=errors.get("sample_parse_error", 0) / count,
        unresponsive=sum(length <= 1 for length in lengths) / count,
        tokens=sum(lengths) / count,
        errors=errors,
        graders=parts,
        judges=judges,
    )
