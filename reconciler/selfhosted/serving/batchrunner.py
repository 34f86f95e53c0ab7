"""
Works through batches: every request goes through its own endpoint, many at once, and its answer to disk.

A server that dies goes on where it was: answered requests are on disk, and a request that keeps something
has an Idempotency-Key of its own, so that not even the one in flight happens twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import Request

from reconciler.selfhosted import beside, inside, wire
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.serving import batchbook, batchfile
from reconciler.selfhosted.serving.batchbook import Claim, Lost
from reconciler.selfhosted.serving.batchfile import Answers, Row
from reconciler.selfhosted.serving.sampling import served
from reconciler.selfhosted.storage import files
from reconciler.selfhosted.storage.store import Tx
from reconciler.selfhosted.wire import WireError

BATCHES_AT_ONCE = 4
ROWS_AT_ONCE = 32  # of one batch
TICK = 1.0  # seconds between two entries of how far a batch is
IDLE = 10.0  # seconds between two looks for work that nobody announced
BREATH = 5.0  # seconds before a batch is tried again whose answers could not be kept
EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}

log = structlog.get_logger("reconciler.selfhosted")


@contextlib.asynccontextmanager
async def running(here: Context, app: Starlette) -> AsyncIterator[BatchRunner]:
    """Work while the server runs."""
    runner = BatchRunner(here, app)
    async with beside.running(runner.work()):
        yield runner


def of(request: Request) -> BatchRunner:
    return cast(BatchRunner, request.app.state.batches)


class BatchRunner:
    """The batches of one server."""

    def __init__(self, here: Context, app: Starlette) -> None:
        self._here, self._app = here, app
        self._wake = asyncio.Event()
        self._active: dict[str, tuple[Worker, asyncio.Task[None]]] = {}

    def wake(self) -> None:
        """Something changed: a batch is new, or is to be cancelled."""
        self._wake.set()
        for worker, _ in self._active.values():
            worker.look.set()

    async def work(self) -> None:
        try:
            while True:
                self._wake.clear()
                try:
                    await self._claim()
                except SQLAlchemyError as error:
                    log.error("batch.claim_failed", reason=type(error).__name__)
                await beside.woken(self._wake, IDLE)
        finally:
            tasks = [task for _, task in self._active.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _claim(self) -> None:
        while len(self._active) < BATCHES_AT_ONCE:
            held = frozenset(self._active)
            if not await self._here.store.read(lambda tx, held=held: _waiting(tx, held)):  # type: ignore[misc]
                return
            take = partial(batchbook.claim, worker=self._here.worker, held=held)
            claim = await self._here.store.write(take)
            if claim is None:
                return
            worker = Worker(self._here, self._app, claim)
            task = asyncio.create_task(_attend(self._here, worker, claim))
            self._active[claim.id] = (worker, task)
            task.add_done_callback(partial(self._left, claim.id))

    def _left(self, id: str, _task: asyncio.Task[None]) -> None:
        del self._active[id]
        self._wake.set()


def _waiting(tx: Tx, held: frozenset[str]) -> bool:
    return any(row.id not in held for row in tx.all(batchbook.BATCH, *batchbook.UNFINISHED))


async def _attend(here: Context, worker: Worker, claim: Claim) -> None:
    """Work on one batch until it ends or is lost; never raises but when cancelled."""
    try:
        await worker.work()
    except Lost:
        log.info("batch.lost", batch=claim.id)
    except asyncio.CancelledError:
        with contextlib.suppress(Lost):
            await here.store.write(partial(batchbook.release, claim=claim))
        raise
    except (SQLAlchemyError, OSError) as error:  # a full disk: the batch goes on when there is room
        log.error("batch.store_failed", batch=claim.id, reason=type(error).__name__)
        await asyncio.sleep(BREATH)
    except Exception:  # the batch's outermost frame: one that always breaks must end, not be tried for ever
        log.exception("batch.broke", batch=claim.id)
        broke = {"code": "server_error", "message": "the server had an error while it worked on this batch"}
        errors = {"object": "list", "data": [{**broke, "param": None, "line": None}]}
        with contextlib.suppress(Lost):
            await here.store.write(partial(batchbook.enter, claim=claim, status="failed", errors=errors))


class Worker:
    """One batch from its claim to its end."""

    def __init__(self, here: Context, app: Starlette, claim: Claim) -> None:
        self._here, self._app, self._claim = here, app, claim
        self._input = here.blobs.path(claim.body["input_file_id"])
        self._total = int(claim.body["request_counts"]["total"])
        self._model = claim.body.get("model")
        self.look = asyncio.Event()  # set when the batch should be looked at before the next tick

    async def work(self) -> None:
        if "in_progress_at" not in self._claim.body and not await self._validated():
            return
        answers = await asyncio.to_thread(Answers.open, self._here.data / "batches" / self._claim.id)
        ending = await self._rows(answers)
        await self._finish(answers, ending)

    async def _validated(self) -> bool:
        """Whether the batch can begin; otherwise it has ended."""
        endpoint = self._claim.body["endpoint"]
        try:
            found = await asyncio.to_thread(batchfile.census, self._input, endpoint)
        except FileNotFoundError:
            gone = {"code": "invalid_input_file", "message": "the input file is not there any more"}
            found = batchfile.Census(0, "", [{**gone, "param": "input_file_id", "line": None}])
        errors = found.errors
        if not errors:
            find = partial(served, project=self._claim.project, name=found.model, listed=self._here.upstreams)
            try:
                self._model = (await self._here.store.read(find)).id
            except WireError as missing:
                errors = [
                    {"code": missing.code, "message": missing.message, "param": "body.model", "line": 1}
                ]
        if errors:
            listed = {"object": "list", "data": errors}
            await self._enter(status="failed", errors=listed)
            log.info("batch.failed", batch=self._claim.id, errors=len(errors))
            return False
        self._total = found.total
        counts = {"total": found.total, "completed": 0, "failed": 0}

        def begin(tx: Tx) -> None:
            cancelling = batchbook.enter(tx, self._claim).status == "cancelling"
            changes = {} if cancelling else {"status": "in_progress"}
            batchbook.enter(tx, self._claim, model=self._model, request_counts=counts, **changes)

        await self._here.store.write(begin)
        return True

    async def _rows(self, answers: Answers) -> str:
        """Answer what is not answered yet; how the batch ends: completed, cancelled or expired."""
        ending = self._ending(await self._enter())
        if ending is not None:
            return ending
        watching = asyncio.create_task(self._watch(answers))
        feeding = asyncio.create_task(self._feed(answers))
        try:
            await asyncio.wait({watching, feeding}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                return watching.result()
            feeding.result()
            return "completed"
        finally:
            for task in (watching, feeding):
                task.cancel()
            await asyncio.gather(watching, feeding, return_exceptions=True)

    async def _watch(self, answers: Answers) -> str:
        """Enter how far we are, until the batch is to be cancelled or its day is over. Raises Lost."""
        while True:
            self.look.clear()
            counts = {"total": self._total, **answers.counts()}
            ending = self._ending(await self._enter(request_counts=counts))
            if ending is not None:
                return ending
            await beside.woken(self.look, TICK)

    def _ending(self, status: str) -> str | None:
        if status == "cancelling":
            return "cancelled"
        return "expired" if self._here.now() >= self._claim.body["expires_at"] else None

    async def _feed(self, answers: Answers) -> None:
        turns = asyncio.Semaphore(ROWS_AT_ONCE)

        async def answer(row: Row) -> None:
            try:
                await self._answer(answers, row)
            finally:
                turns.release()

        try:
            async with asyncio.TaskGroup() as group:
                for row in batchfile.rows(self._input):
                    if row.custom_id not in answers.done:
                        await turns.acquire()
                        group.create_task(answer(row))
        except* OSError as failed:
            raise OSError("an answer could not be kept") from failed

    async def _answer(self, answers: Answers, row: Row) -> None:
        claim = self._claim
        body = {**row.body, "model": self._model}  # what its name meant when the batch began
        key = hashlib.sha256(f"{claim.id}/{row.custom_id}".encode()).hexdigest()
        reply = await inside.post(self._app, claim.project, claim.body["endpoint"], body, key)
        response = {"status_code": reply.status, "request_id": reply.request_id, "body": reply.body}
        answers.add(_line(row, response=response), succeeded=reply.status < 300)

    async def _finish(self, answers: Answers, ending: str) -> None:
        if ending == "completed":
            await self._enter(status="finalizing", request_counts={"total": self._total, **answers.counts()})
        if ending == "expired":
            for row in batchfile.rows(self._input):
                if row.custom_id not in answers.done:
                    answers.add(_line(row, error=EXPIRED), succeeded=False)
        keep_output = await self._as_file(answers.output, "output")
        keep_errors = await self._as_file(answers.errors, "error")

        def end(tx: Tx) -> None:
            batchbook.enter(
                tx,
                self._claim,
                status=ending,
                output_file_id=keep_output(tx),
                error_file_id=keep_errors(tx),
                request_counts={"total": self._total, **answers.counts()},
                usage=answers.usage(),
            )

        await self._here.store.write(end)
        await asyncio.to_thread(shutil.rmtree, answers.folder, ignore_errors=True)
        log.info("batch.ended", batch=self._claim.id, status=ending)

    async def _as_file(self, path: Path, kind: str) -> Callable[[Tx], str | None]:
        """The bytes kept; what comes back enters them as a file, if there are any."""
        if not path.exists() or not path.stat().st_size:
            return lambda _tx: None
        id = wire.new_id("file-")
        async with self._here.blobs.receive(id) as incoming:
            with path.open("rb") as lines:
                while chunk := await asyncio.to_thread(lines.read, 1 << 20):
                    await incoming.write(chunk)
            stored = await incoming.keep()
        name, now = f"{self._claim.id}_{kind}.jsonl", self._here.seconds()
        file = files.wire_file(id, stored.bytes, now, name, "batch_output", now + self._claim.output_life)

        def keep(tx: Tx) -> str:
            tx.insert(files.file_record(file, self._claim.project, stored.sha256))
            return id

        return keep

    async def _enter(self, **changes: Any) -> str:
        """Enter changes; the status of the batch before them. Raises Lost."""
        row = await self._here.store.write(lambda tx: batchbook.enter(tx, self._claim, **changes))
        return row.status


def _line(row: Row, response: Any = None, error: Any = None) -> dict[str, Any]:
    id = wire.new_id("batch_req_")
    return {"id": id, "custom_id": row.custom_id, "response": response, "error": error}
