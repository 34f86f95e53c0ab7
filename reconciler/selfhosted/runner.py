"""
Works through eval runs: sample a chunk, grade it, store it; while one is graded the next is sampled.

Chunks are fixed slices of the file, so a run that was killed makes the same batches again and
ends with the same numbers. Only three chunks are ever in memory. Nothing is decided here about
what passes, and nothing is remembered here that a restart would miss.
"""

import asyncio
import contextlib
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request

from reconciler.selfhosted import evalitems, evalrows, grading, runbook
from reconciler.selfhosted.blobs import Blobs
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.engine.values import Answer, Ask, EngineError
from reconciler.selfhosted.evalitems import Outcome, Unanswerable, Usage
from reconciler.selfhosted.evalrows import BadRow, Row
from reconciler.selfhosted.judging import BatchJudge
from reconciler.selfhosted.runbook import Claim, Lost
from reconciler.selfhosted.sampling import (
    Sampler,
    Sampling,
    Served,
    ask_of,
    read_sampling,
    seed_of_item,
    served,
)
from reconciler.selfhosted.store import Record, Store, Tx
from reconciler.selfhosted.wire import WireError

log = structlog.get_logger()

CHUNK = 64  # items that are sampled as one batch
RUNS_AT_ONCE = 4
LEASE = 30.0  # seconds until a run whose server died may be taken by another server
BREATH = 5.0  # seconds before a run is tried again whose results could not be stored


class RunFailed(Exception):
    """The run as a whole cannot go on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message}


@dataclass(frozen=True)
class Work:
    """A claimed run with everything it needs at hand."""

    claim: Claim
    rows: Path
    model: Served | None  # None: the outputs are in the rows
    sampling: Sampling
    judges: Mapping[str, Served]

    def stream(self) -> Iterator[Row | BadRow]:
        return evalrows.of_file(self.rows)

    def item_id(self, index: int) -> str:
        return f"outputitem_{self.claim.run_id.partition('_')[2]}_{index}"


@contextlib.asynccontextmanager
async def running(here: Context) -> AsyncIterator["Runner"]:
    """A runner at work, with the sandbox that its graders and the grader endpoints use."""
    sandbox = grading.Sandbox(unsafe=here.unsafe_graders)
    await sandbox.start()
    runner = Runner(here.store, here.blobs, Sampler(here.engine), sandbox, worker=here.worker)
    try:
        await runner.start()
        yield runner
    finally:
        await runner.close()
        await sandbox.close()


def of(request: Request) -> "Runner":
    """The runner of the server that got this request."""
    return cast(Runner, request.app.state.runner)


class Runner:
    """Runs the eval runs of one server."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        sampler: Sampler,
        sandbox: grading.Sandbox,
        *,
        worker: str,
    ) -> None:
        self._store, self._blobs, self._worker = store, blobs, worker
        self.sampler, self.sandbox = sampler, sandbox
        self._wake = asyncio.Event()
        self._active: dict[str, asyncio.Task[None]] = {}
        self._claiming: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._claiming = asyncio.create_task(self._claim_forever())

    async def close(self) -> None:
        """Stop, and let go of the claims so that the next start goes on at once."""
        tasks = [*self._active.values(), *([self._claiming] if self._claiming else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """There is a run to begin with."""
        self._wake.set()

    def stop(self, run_id: str) -> None:
        """Stop working on a run that was cancelled or deleted."""
        if task := self._active.get(run_id):
            task.cancel()

    async def _claim_forever(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._claim_ready()
            except SQLAlchemyError as error:
                log.error("eval.claim_failed", error=type(error).__name__)
            # not wait_for: before Python 3.12 it swallows a cancel that comes together with the event
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEASE / 2):
                    await self._wake.wait()

    async def _claim_ready(self) -> None:
        for row in await self._store.read(partial(runbook.claimable, worker=self._worker)):
            if row.id in self._active or len(self._active) >= RUNS_AT_ONCE:
                continue
            take = partial(runbook.claim, run=row, worker=self._worker, lease_seconds=LEASE)
            if claim := await self._store.write(take):
                task = asyncio.create_task(self._execute(claim))
                self._active[claim.run_id] = task
                task.add_done_callback(partial(self._left, claim.run_id))

    def _left(self, run_id: str, _task: asyncio.Task[None]) -> None:
        del self._active[run_id]
        self._wake.set()

    async def _execute(self, claim: Claim) -> None:
        try:
            async with self._leased(claim):
                try:
                    await self._work(claim)
                    error = None
                except RunFailed as failed:
                    error = failed.error
                await self._store.write(partial(runbook.finish, claim=claim, error=error))
            log.info("eval.run_finished", run=claim.run_id, error=error)
        except Lost:
            log.info("eval.run_lost", run=claim.run_id)
        except asyncio.CancelledError:
            with contextlib.suppress(Lost):
                await self._store.write(partial(runbook.release, claim=claim))
            raise
        except (SQLAlchemyError, OSError) as error:  # a full disk: the run goes on when there is room
            log.error("eval.store_failed", run=claim.run_id, error=type(error).__name__)
            await asyncio.sleep(BREATH)
        except (
            Exception
        ) as error:  # the run's outermost frame: one that always breaks must end, not be tried for ever
            where = traceback.extract_tb(error.__traceback__)[-1]  # its message may hold somebody's rows
            log.error(
                "eval.run_broke",
                run=claim.run_id,
                error=type(error).__name__,
                at=f"{where.filename}:{where.lineno}",
            )
            broke = {"code": "server_error", "message": "the server had an error while it worked on this run"}
            with contextlib.suppress(Lost):
                await self._store.write(partial(runbook.finish, claim=claim, error=broke))

    @contextlib.asynccontextmanager
    async def _leased(self, claim: Claim) -> AsyncIterator[None]:
        working = asyncio.current_task()

        async def renew() -> None:
            while True:
                await asyncio.sleep(LEASE / 3)
                try:
                    await self._store.write(partial(runbook.renew, claim=claim, lease_seconds=LEASE))
                except Lost:
                    if working is not None:
                        working.cancel()
                    return

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()

    async def _work(self, claim: Claim) -> None:
        work = await self._prepare(claim)
        await self._census(work)
        sampling: asyncio.Task[Sequence[Outcome]] | None
        storing: asyncio.Task[None] | None = None
        with contextlib.closing(work.stream()) as rows:  # type: ignore[type-var]
            chunks = evalrows.chunks(rows, CHUNK, claim.chunks)
            sampling = self._begin(work, next(chunks, None))
            try:
                while sampling is not None:
                    outcomes = await sampling
                    sampling = self._begin(work, next(chunks, None))
                    keep = await self._graded(work, outcomes)
                    if storing is not None:
                        await storing
                    storing = asyncio.create_task(self._store.write(keep))
                if storing is not None:
                    await storing
            finally:
                for task in (sampling, storing):
                    if task is not None:
                        task.cancel()

    async def _prepare(self, claim: Claim) -> Work:
        source = claim.data_source
        named: dict[str, Served] = {}
        for name, concrete in claim.models.items():
            try:
                find = partial(served, project=claim.project, name=concrete)
                named[name] = await self._store.read(find)
            except WireError as gone:
                raise RunFailed("model_not_found", f"the model {concrete} is not there any more") from gone
        model = named[source["model"]] if source["type"] == "completions" else None
        if model is not None:
            try:
                await self.sampler.load(model)
            except EngineError as error:
                raise RunFailed(error.code, error.message) from error
        inline = source["source"]["type"] == "file_content"
        return Work(
            claim=claim,
            rows=self._blobs.path(claim.run_id if inline else source["source"]["id"]),
            model=model,
            sampling=read_sampling(source.get("sampling_params") or {})[0],
            judges=named,
        )

    async def _census(self, work: Work) -> None:
        try:
            found = await asyncio.to_thread(evalrows.census, work.stream(), work.claim.item_schema)
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
        await self._store.write(partial(runbook.count, claim=work.claim, total=found.total))

    def _begin(
        self, work: Work, chunk: tuple[int, Sequence[Row]] | None
    ) -> asyncio.Task[Sequence[Outcome]] | None:
        return None if chunk is None else asyncio.create_task(self._sample(work, chunk[1]))

    async def _sample(self, work: Work, rows: Sequence[Row]) -> Sequence[Outcome]:
        """One chunk, asked as one batch; a row that cannot be asked is an error of its own."""
        if work.model is None:
            return [evalitems.given(row) for row in rows]
        outcomes: dict[int, Outcome] = {}
        asks: dict[int, Ask] = {}
        for row in rows:
            try:
                messages = evalitems.messages_of(work.claim.data_source["input_messages"], row.item)
            except Unanswerable as reason:
                outcomes[row.index] = Outcome(
                    row, {}, fault={"code": "invalid_input", "message": str(reason)}
                )
                continue
            seeded = replace(work.sampling, seed=seed_of_item(work.sampling.seed or 0, row.index))
            asks[row.index] = ask_of(work.model, messages, seeded)
            outcomes[row.index] = Outcome(row, {}, messages)
        started = time.monotonic()
        try:
            answers = await self.sampler.sample(work.model, list(asks.values())) if asks else []
        except EngineError as error:
            raise RunFailed(error.code, error.message) from error
        latency = round((time.monotonic() - started) * 1000, 1)
        for index, answer in zip(asks, answers, strict=True):
            outcomes[index] = _outcome(outcomes[index], answer, work.model, latency)
        return [outcomes[row.index] for row in rows]

    async def _graded(self, work: Work, outcomes: Sequence[Outcome]) -> Callable[[Tx], None]:
        """Grade a chunk, item by item and criterion by criterion; what comes back stores it."""
        judge = BatchJudge(self.sampler, work.judges)
        ready = [outcome for outcome in outcomes if outcome.fault is None]
        try:
            grades = await asyncio.gather(
                *(
                    grading.grade(of, outcome.row.item, outcome.namespace, judge=judge, sandbox=self.sandbox)
                    for outcome in ready
                    for of in work.claim.criteria
                )
            )
        finally:
            judge.close()
        each = iter(grades)
        results: list[list[dict[str, Any]]] = [
            []
            if outcome.fault
            else [evalitems.result_of(criterion, next(each)) for criterion in work.claim.criteria]
            for outcome in outcomes
        ]
        statuses = list(map(evalitems.status_of, outcomes, results))
        usage = dict(judge.usage)
        if work.model is not None:
            sampled = evalitems.usage_of([outcome.answer for outcome in outcomes if outcome.answer])
            usage[work.model.id] = sampled.plus(usage.get(work.model.id, Usage(0, 0, 0)))
        items = list(map(partial(self._record, work), outcomes, results, statuses))
        tally = evalitems.tally(statuses, results, usage)
        return partial(runbook.keep, claim=work.claim, items=items, tally=tally)

    def _record(
        self, work: Work, outcome: Outcome, results: Sequence[Mapping[str, Any]], status: str
    ) -> Record:
        created = int(self._store.now())
        body: dict[str, Any] = {
            "id": work.item_id(outcome.row.index),
            "object": "eval.run.output_item",
            "created_at": created,
            "run_id": work.claim.run_id,
            "eval_id": work.claim.eval_id,
            "status": status,
            "datasource_item_id": outcome.row.index,
            "datasource_item": outcome.row.item,
            "results": results,
            "sample": evalitems.wire_sample(outcome, work.model.id if work.model else "", work.sampling),
        }
        if outcome.latency_ms is not None:
            body["reconciler"] = {"latency_ms": outcome.latency_ms}  # of the batch that held the item
        return Record(
            type=runbook.ITEM,
            id=body["id"],
            project=work.claim.project,
            parent=work.claim.run_id,
            status=status,
            body=body,
            created_at=created,
        )


def _outcome(asked: Outcome, answer: Answer | EngineError, model: Served, latency_ms: float) -> Outcome:
    if not isinstance(answer, EngineError):
        namespace = evalitems.namespace_of(answer, model.id)
        return replace(asked, answer=answer, namespace=namespace, latency_ms=latency_ms)
    if answer.code == "engine_unavailable":
        raise RunFailed(answer.code, answer.message)
    return replace(asked, fault={"code": answer.code, "message": answer.message}, latency_ms=latency_ms)
