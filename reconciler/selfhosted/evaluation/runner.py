"""
Works through eval runs: sample a chunk, grade it, store it; while one is graded the next is sampled.
Where an upstream is asked, as many chunks as it takes are sampled at once; they are stored in order.

Chunks are fixed slices of the file, so a run that was killed makes the same batches again and
ends with the same numbers. Only a few chunks are ever in memory. Nothing is decided here about
what passes, and nothing is remembered here that a restart would miss.
"""

import asyncio
import contextlib
import traceback
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import cast

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request

from reconciler.selfhosted import beside, grading
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.engine.values import EngineError
from reconciler.selfhosted.evaluation import evalbody, evalrows, runbook
from reconciler.selfhosted.evaluation.evalwork import Chunk, RunFailed, Work
from reconciler.selfhosted.evaluation.runbook import Claim, Lost
from reconciler.selfhosted.serving.sampling import DEFAULT_MAX_TOKENS, Sampler, Served, read_sampling, served
from reconciler.selfhosted.storage.blobs import Blobs
from reconciler.selfhosted.storage.store import Store
from reconciler.selfhosted.upstream.upstreams import Upstream
from reconciler.selfhosted.wire import WireError

log = structlog.get_logger("reconciler.selfhosted")

CHUNK = 64  # items that are sampled as one batch
RUNS_AT_ONCE = 4
LEASE = 30.0  # seconds until a run whose server died may be taken by another server
BREATH = 5.0  # seconds before a run is tried again whose results could not be stored


@contextlib.asynccontextmanager
async def running(here: Context) -> AsyncIterator["Runner"]:
    """A runner at work, with the sandbox that its graders and the grader endpoints use."""
    sandbox = grading.Sandbox(unsafe=here.unsafe_graders)
    await sandbox.start()
    runner = Runner(
        here.store, here.blobs, Sampler(here.engine), sandbox, worker=here.worker, upstreams=here.upstreams
    )
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
        upstreams: Sequence[Upstream] = (),
    ) -> None:
        self._store, self._blobs, self._worker = store, blobs, worker
        self.sampler, self.sandbox, self._upstreams = sampler, sandbox, upstreams
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
            await beside.woken(self._wake, LEASE / 2)

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
        found = await asyncio.to_thread(work.census)
        await self._store.write(partial(runbook.count, claim=claim, total=found.total))
        sampled, ahead = work.at_once(CHUNK)
        turns, made = asyncio.Semaphore(sampled), deque[asyncio.Task[Chunk]]()
        storing: asyncio.Task[None] | None = None
        with contextlib.closing(work.stream()) as rows:  # type: ignore[type-var]
            chunks = evalrows.chunks(rows, CHUNK, claim.chunks)
            try:
                while True:
                    for _, chunk in islice(chunks, ahead - len(made)):
                        made.append(asyncio.create_task(work.make(chunk, turns, int(self._store.now()))))
                    if not made:
                        break
                    await asyncio.wait({made[0]})  # which leaves it to us to cancel all of them at once
                    done = made.popleft().result()
                    if storing is not None:
                        await storing
                    keep = partial(runbook.keep, claim=claim, items=done.items, tally=done.tally)
                    storing = asyncio.create_task(self._store.write(keep))
                if storing is not None:
                    await storing
            finally:
                left = [*made, *([storing] if storing is not None else [])]
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)

    async def _prepare(self, claim: Claim) -> Work:
        source = claim.data_source
        named: dict[str, Served] = {}
        for name, concrete in claim.models.items():
            try:
                find = partial(served, project=claim.project, name=concrete, listed=self._upstreams)
                named[name] = await self._store.read(find)
            except WireError as gone:
                raise RunFailed("model_not_found", f"the model {concrete} is not there any more") from gone
        name_asked = evalbody.asked_model(source)
        model = named[name_asked] if name_asked else None
        if model is not None:
            try:
                await self.sampler.load(model)
            except EngineError as error:
                raise RunFailed(error.code, error.message) from error
        own = source["source"]["type"] != "file_id"  # the run keeps its rows itself
        sampling, _ = read_sampling(evalbody.sampling_params(source))
        return Work(
            claim=claim,
            rows=self._blobs.path(claim.run_id if own else source["source"]["id"]),
            model=model,
            sampling=replace(
                sampling, max_completion_tokens=sampling.max_completion_tokens or DEFAULT_MAX_TOKENS
            ),
            judges=named,
            sampler=self.sampler,
            sandbox=self.sandbox,
        )
