"""
Keeps jobs moving: claims one, runs a trainer process over its folder, and enters what that process reports.

A trainer may die at any moment and is started again; it resumes from its own checkpoints. So may this
server: the folder and the books are all there is to know. A job succeeds only after the serving engine
has loaded its model and answered under its chat template.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError

from reconciler.selfhosted import beside, idempotency
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.engine import Answer, Ask, EngineError
from reconciler.selfhosted.storage import files, uploads
from reconciler.selfhosted.storage.store import Tx
from reconciler.selfhosted.tuning import jobbook
from reconciler.selfhosted.tuning.jobbook import Claim, Lost
from reconciler.selfhosted.tuning.jobfolder import JobFolder
from reconciler.selfhosted.tuning.trainer import Trainer

LOOK = 0.2  # seconds between two looks at what a trainer has reported
IDLE = 10.0  # seconds between two looks for work that nobody announced
SWEEP = 3600.0  # seconds between two removals of what is past its time
RENEW = 10.0  # seconds after which a silent trainer's lease is renewed
PAUSE = 0.2  # seconds before a trainer is started again
LAST_STEP = 600.0  # seconds that a trainer may take to stop after its current step
CRASHES = 3  # in a row and without progress; then the job fails
KILLED = (-9, 137)  # how a trainer ends that was killed, and one of whose processes was

log = structlog.get_logger("reconciler.selfhosted")


@contextlib.asynccontextmanager
async def running(here: Context) -> AsyncIterator[None]:
    """Supervise while the server runs; on leaving, trainers are stopped and their jobs stay as they are."""
    async with beside.running(_oversee(here)):
        yield


async def _oversee(here: Context) -> None:
    work: dict[str, asyncio.Task[None]] = {}
    swept = float("-inf")
    try:
        while True:
            here.wake.clear()
            work = {job: task for job, task in work.items() if not task.done()}
            try:
                await _take_up(here, work)
                if here.now() - swept > SWEEP:
                    swept = here.now()
                    await sweep(here)
            except SQLAlchemyError as error:
                log.error("supervisor.store_failed", reason=type(error).__name__)
            await beside.woken(here.wake, IDLE)
    finally:
        for task in work.values():
            task.cancel()
        await asyncio.gather(*work.values(), return_exceptions=True)


async def _take_up(here: Context, work: dict[str, asyncio.Task[None]]) -> None:
    if not await here.store.read(_has_work):
        return
    while len(work) < here.jobs_at_once:
        busy = frozenset(work)
        claim = await here.store.write(lambda tx, busy=busy: jobbook.claim(tx, here.worker, busy))  # type: ignore[misc]
        if claim is None:
            break
        work[claim.job] = asyncio.create_task(_attend(here, claim))
        work[claim.job].add_done_callback(lambda _task: here.wake.set())
    await here.store.write(lambda tx: jobbook.queue(tx, frozenset(work)))


def _has_work(tx: Tx) -> bool:
    return bool(tx.all("job", *jobbook.WAITING))


async def sweep(here: Context) -> None:
    """Remove what is past its time, and bytes that a crash left nameless."""

    def forget(tx: Tx) -> list[str]:
        idempotency.forget_old(tx)
        tx.delete_expired("response")
        return tx.delete_expired("file", but=files.users(tx))  # nobody finds one, whoever reads it goes on

    await uploads.sweep(here)
    for id in await here.store.write(forget):
        here.blobs.delete(id)
    old = await asyncio.to_thread(here.blobs.older_than, here.now() - SWEEP)
    named = await here.store.read(lambda tx: tx.ids("file", "run", "part"))
    for id in set(old) - named:
        here.blobs.delete(id)


async def _attend(here: Context, claim: Claim) -> None:
    """Work on one job until it ends, is paused or is lost; never raises but when cancelled."""
    try:
        await Attendant(here, claim).work()
    except Lost:
        log.info("job.left", job=claim.job)
        await _clear_if_ended(here, claim)
    except (OSError, SQLAlchemyError) as error:
        log.error("job.broke", job=claim.job, reason=str(error)[:300])
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        await _fail(
            here, claim, "platform_error", f"the platform could not keep the job's records: {reason.lower()}"
        )


async def _clear_if_ended(here: Context, claim: Claim) -> None:
    """A cancelled job is not resumed: its resume state goes, its checkpoints stay."""
    row = await here.store.read(lambda tx: tx.get(claim.project, "job", claim.job))
    if row is not None and row.status in jobbook.ENDED:
        resume = here.data / "jobs" / claim.job / "checkpoints"
        await asyncio.to_thread(shutil.rmtree, resume, ignore_errors=True)


async def _fail(here: Context, claim: Claim, code: str, message: str) -> None:
    with contextlib.suppress(Lost, SQLAlchemyError):  # without a store the job is taken up again later
        await here.store.write(lambda tx: jobbook.fail(tx, claim, code, message))


def _given_up(crashes: int, code: int, reason: str | None) -> tuple[str, str]:
    """The code and the sentence of a job whose trainer gets nowhere. Pure."""
    if code in KILLED:
        advice = "choose a smaller batch_size, shorter rows, lora tuning or a smaller model"
        sentence = f"the training process was killed {crashes} times without progress, as a rule because"
        return "out_of_memory", f"{sentence} the machine ran out of memory; {advice}"
    sentence = f"the training process ended {crashes} times without progress"
    return "trainer_crashed", f"{sentence} ({reason or f'exit code {code}'})"


class Attendant:
    """One job from claim to end."""

    def __init__(self, here: Context, claim: Claim) -> None:
        self._here, self._claim = here, claim
        self._folder = JobFolder(here.data / "jobs" / claim.job)
        self._renewed = float("-inf")

    async def work(self) -> None:
        row = await self._here.store.write(lambda tx: jobbook.held(tx, self._claim))
        self._folder.prepare(
            row,
            self._here.blobs,
            unsafe_graders=self._here.unsafe_graders,
            listed=self._here.upstreams,
            processes=self._here.processes,
        )
        warm = asyncio.create_task(self._warm_engine())  # ready by the time the model is
        crashes, reached = 0, ""
        while row.status == jobbook.PAUSED or self._folder.result() is None:
            code = None if row.status == jobbook.PAUSED else await self._train()
            if code is None:
                await self._here.store.write(lambda tx: jobbook.release(tx, self._claim))
                log.info("job.paused", job=self._claim.job)
                return
            if self._folder.result() is not None:
                break
            now_at = self._folder.progress()
            crashes, reached = (1 if now_at != reached else crashes + 1), now_at
            reason = self._folder.last_exception()
            log.warning("trainer.ended", job=self._claim.job, code=code, crashes=crashes, reason=reason)
            if crashes >= CRASHES:
                await self._fail(*_given_up(crashes, code, reason))
                return
            await asyncio.sleep(PAUSE)
        await warm
        await self._conclude()

    async def _warm_engine(self) -> None:
        with contextlib.suppress(EngineError):  # why it cannot start is told when the model is to be served
            await self._here.engine.start()

    async def _train(self) -> int | None:
        """One trainer process from start to end; its exit code, or None when the job was paused."""
        async with Trainer.started(self._here.trainer, self._folder.path) as trainer:
            while True:
                code = await trainer.wait(LOOK)
                if await self._enter_news() == jobbook.PAUSED:
                    await self._stop(trainer)
                    return None
                if code is not None:
                    return code

    async def _stop(self, trainer: Trainer) -> None:
        """Stop for a pause, and enter the last news: the checkpoint that the trainer leaves."""
        self._folder.pause()
        trainer.ask_to_stop()
        stopping = self._here.now()
        while await trainer.wait(LOOK) is None and self._here.now() - stopping < LAST_STEP:
            await self._enter_news()
        await self._enter_news()

    async def _enter_news(self) -> str:
        """
        Enter what the trainer reported since the last look; the job's status before it.

        Raises Lost when the job is not ours any more.
        """
        row = await self._here.store.read(lambda tx: tx.get(self._claim.project, "job", self._claim.job))
        if row is None or row.status in jobbook.ENDED:
            raise Lost(self._claim.job)
        read = row.hidden()["read"]
        news = self._folder.news(read.get("events", 0), read.get("checkpoints", 0))
        now = self._here.now()
        if not news and now - self._renewed < RENEW:
            return row.status
        self._renewed = now
        gone = self._folder.missing_models() if news.checkpoints else frozenset()

        def enter(tx: Tx) -> None:
            row = jobbook.held(tx, self._claim)
            jobbook.add_events(tx, self._claim, news.events)
            for line in news.checkpoints:
                folder = self._folder.path / line["path"]
                if str(folder) not in gone:
                    jobbook.add_checkpoint(tx, row, line, folder)
            jobbook.drop_checkpoints(tx, row, gone)
            private = row.hidden() | {
                "read": {"events": news.events_end, "checkpoints": news.checkpoints_end}
            }
            jobbook.change(tx, row, private=private, **news.job_changes(row.status, now))

        if news:
            await self._here.store.write(enter)
        else:
            await self._here.store.write(lambda tx: jobbook.held(tx, self._claim))
        return row.status

    async def _conclude(self) -> None:
        """End the job as its trainer's result says, if its model can be served."""
        await self._enter_news()
        gone = self._folder.missing_models()  # also those that went after the last checkpoint was told
        await self._here.store.write(
            lambda tx: jobbook.drop_checkpoints(tx, jobbook.held(tx, self._claim), gone)
        )
        result = self._folder.result()
        assert result is not None
        if result["status"] != "succeeded":
            error = result["error"]
            await self._fail(str(error["code"]), str(error["message"]), error.get("param"))
            return
        model = self._folder.path / result["model"]
        problem = await self._serving_problem(model)
        if problem is not None:
            await self._fail("model_not_servable", f"the trained model cannot be served: {problem}")
            return
        csv = await self._result_file(result.get("metrics_csv"))
        await self._here.store.write(lambda tx: jobbook.succeed(tx, self._claim, result, model, csv))
        await asyncio.to_thread(shutil.rmtree, self._folder.path / "checkpoints", ignore_errors=True)
        log.info("job.succeeded", job=self._claim.job)

    async def _serving_problem(self, model: Path) -> str | None:
        """Why the model cannot answer one message under its own chat template, or None when it can."""
        ask = Ask(str(model), [{"role": "user", "content": "Hello"}], temperature=0.0, max_tokens=8)
        try:
            await self._here.engine.load(str(model))
            [answered] = await self._here.engine.generate([ask])
        except EngineError as error:
            return error.message
        return None if isinstance(answered, Answer) else answered.message

    async def _result_file(self, name: str | None) -> tuple[str, int, str] | None:
        if name is None:
            return None
        id = jobbook.result_file_id(self._claim.job)
        stored = await self._here.blobs.store(id, (self._folder.path / name).read_bytes())
        return id, stored.bytes, stored.sha256

    async def _fail(self, code: str, message: str, param: str | None = None) -> None:
        await self._here.store.write(lambda tx: jobbook.fail(tx, self._claim, code, message, param))
        await asyncio.to_thread(shutil.rmtree, self._folder.path / "checkpoints", ignore_errors=True)
        log.info("job.failed", job=self._claim.job, code=code)
