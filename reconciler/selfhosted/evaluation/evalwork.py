"""
One eval run at work on one chunk: what it asks the model, what the graders say, what is to be stored.

A row that cannot be asked or graded is an error of its own. Only what would be wrong for every row,
a model that is gone or an engine that will not start, fails the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.selfhosted import grading
from reconciler.selfhosted.engine.values import Answer, Ask, EngineError
from reconciler.selfhosted.evaluation import evalitems, evallogs, evalrows, runbook
from reconciler.selfhosted.evaluation.evalitems import Outcome, Tally, Unanswerable, Usage
from reconciler.selfhosted.evaluation.evalrows import BadRow, Census, Row
from reconciler.selfhosted.evaluation.judging import BatchJudge
from reconciler.selfhosted.evaluation.runbook import Claim
from reconciler.selfhosted.serving.sampling import Sampler, Sampling, Served, ask_of, seed_of_item
from reconciler.selfhosted.storage.store import Record


class RunFailed(Exception):
    """The run as a whole cannot go on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message}


class Chunk(NamedTuple):
    """A finished chunk: its output items, and what they add to the run."""

    items: Sequence[Record]
    tally: Tally


@dataclass(frozen=True)
class Work:
    """A claimed run with everything it needs at hand."""

    claim: Claim
    rows: Path
    model: Served | None  # None: the outputs are in the rows
    sampling: Sampling
    judges: Mapping[str, Served]
    sampler: Sampler
    sandbox: grading.Sandbox

    def at_once(self, size: int) -> tuple[int, int]:
        """
        How many chunks of a size may be sampled at once, and how many may be in work in all.

        One and one more for our own engine, which answers in batches; as many as fill an upstream's room
        where one is asked, for a chunk waits for its slowest answer.
        """
        asked = [self.model] if self.model else []
        most = max((model.concurrency or 0 for model in (*asked, *self.judges.values())), default=0)
        ahead = 1 + (most + size - 1) // size
        sampled = ahead if self.model is None or self.model.concurrency else 1
        return sampled, ahead + 1

    def stream(self) -> Iterator[Row | BadRow]:
        return evalrows.of_file(self.rows)

    def census(self) -> Census:
        """Look at every row before the first is asked; RunFailed names those that cannot be used."""
        try:
            found = evalrows.census(self.stream(), self.claim.item_schema)
        except FileNotFoundError as gone:
            raise RunFailed("file_not_found", "the file with the rows is not there any more") from gone
        except evalrows.BadSchema as wrong:
            raise RunFailed("invalid_item_schema", str(wrong)) from wrong
        if found.bad:
            more = f"; and {found.bad - len(found.reasons)} more" if found.bad > len(found.reasons) else ""
            raise RunFailed(
                "invalid_data_source",
                f"{found.bad} of {found.total} rows cannot be used: {'; '.join(found.reasons)}{more}",
            )
        if not found.total:
            raise RunFailed("invalid_data_source", "the data source has no rows")
        return found

    async def make(self, rows: Sequence[Row], sampling: asyncio.Semaphore, now: int) -> Chunk:
        """A chunk sampled, when it is its turn, and graded. Raises RunFailed."""
        async with sampling:
            outcomes = await self.sample(rows)
        return await self.grade(outcomes, now)

    async def sample(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        """What the model makes of a chunk, asked as one batch. Raises RunFailed."""
        if self.model is None:
            return [evalitems.given(row) for row in rows]
        outcomes = [self._asked(row) for row in rows]
        asks = [self._ask(self.model, outcome) for outcome in outcomes if outcome.fault is None]
        started = time.monotonic()
        try:
            answers = iter(await self.sampler.sample(self.model, asks) if asks else [])
        except EngineError as error:
            raise RunFailed(error.code, error.message) from error
        latency = round((time.monotonic() - started) * 1000, 1)
        return [
            outcome if outcome.fault else _answered(outcome, next(answers), self.model, latency)
            for outcome in outcomes
        ]

    def _asked(self, row: Row) -> Outcome:
        try:
            wanted = self.claim.data_source.get("input_messages") or evallogs.INPUT
            messages = evalitems.messages_of(wanted, row.item)
        except Unanswerable as reason:
            return Outcome(row, {}, fault={"code": "invalid_input", "message": str(reason)})
        return Outcome(row, {}, messages)

    def _ask(self, model: Served, outcome: Outcome) -> Ask:
        seed = seed_of_item(self.sampling.seed or 0, outcome.row.index)
        return ask_of(model, outcome.messages, replace(self.sampling, seed=seed))

    async def grade(self, outcomes: Sequence[Outcome], now: int) -> Chunk:
        """The chunk graded, item by item and criterion by criterion, so that judges see the same batches."""
        judge = BatchJudge(self.sampler, self.judges)
        try:
            grades = await asyncio.gather(
                *(
                    self._grade(of, outcome, judge)
                    for outcome in outcomes
                    if outcome.fault is None
                    for of in self.claim.criteria
                )
            )
        finally:
            judge.close()
        if judge.denied:
            raise RunFailed(judge.denied.code, judge.denied.message)
        each = iter(grades)
        results: list[list[dict[str, Any]]] = [
            []
            if outcome.fault
            else [evalitems.result_of(criterion, next(each)) for criterion in self.claim.criteria]
            for outcome in outcomes
        ]
        statuses = list(map(evalitems.status_of, outcomes, results))
        items = list(map(partial(self._item, now), outcomes, results, statuses))
        return Chunk(items, evalitems.tally(statuses, results, self._usage(outcomes, judge)))

    async def _grade(
        self, criterion: Mapping[str, Any], outcome: Outcome, judge: BatchJudge
    ) -> grading.Grade:
        return await grading.grade(
            criterion,
            outcome.row.item,
            outcome.namespace,
            judge=judge,
            sandbox=self.sandbox,
            embedder=judge,
        )

    def _usage(self, outcomes: Sequence[Outcome], judge: BatchJudge) -> Mapping[str, Usage]:
        usage = dict(judge.usage)
        if self.model is not None:
            sampled = evalitems.usage_of([outcome.answer for outcome in outcomes if outcome.answer])
            usage[self.model.id] = sampled.plus(usage.get(self.model.id, Usage(0, 0, 0)))
        return usage

    def _item(self, now: int, outcome: Outcome, results: Sequence[Mapping[str, Any]], status: str) -> Record:
        claim = self.claim
        body: dict[str, Any] = {
            "id": f"outputitem_{claim.run_id.partition('_')[2]}_{outcome.row.index}",
            "object": "eval.run.output_item",
            "created_at": now,
            "run_id": claim.run_id,
            "eval_id": claim.eval_id,
            "status": status,
            "datasource_item_id": outcome.row.index,
            "datasource_item": outcome.row.item,
            "results": results,
            "sample": evalitems.wire_sample(outcome, self.model.id if self.model else "", self.sampling),
        }
        if outcome.latency_ms is not None:
            # of the batch that held the item, where our own engine answered
            body["reconciler"] = {"latency_ms": outcome.latency_ms}
        return Record(runbook.ITEM, body["id"], claim.project, body, now, parent=claim.run_id, status=status)


def _answered(asked: Outcome, answer: Answer | EngineError, model: Served, latency_ms: float) -> Outcome:
    if not isinstance(answer, EngineError):
        namespace = evalitems.namespace_of(answer, model.id)
        own = latency_ms if answer.latency_ms is None else answer.latency_ms
        return replace(asked, answer=answer, namespace=namespace, latency_ms=own)
    if answer.code == "engine_unavailable":
        raise RunFailed(answer.code, answer.message)
    return replace(asked, fault={"code": answer.code, "message": answer.message}, latency_ms=latency_ms)
