"""
One job, from its folder to its result.

Exit code 0: `result.json` is written, whatever it says. 75: stopped by SIGTERM, start again to go on.
Anything else is a crash; the traceback is in the log and the folder is fit to go on from. With a rank behind
the folder it is one of several processes of a job, and ends as `launch` says.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from safetensors import SafetensorError

from reconciler.selfhosted.training import bases, formats, hardware, job, rows
from reconciler.selfhosted.training.failures import Failure, Stopped, explain
from reconciler.selfhosted.training.folder import JobFolder, Story
from reconciler.selfhosted.training.launch import STOPPED, Crashed, Rank, together

_PR_SET_PDEATHSIG = 1
_LOW = (Failure, MemoryError, OSError, RuntimeError, SafetensorError)  # what `explain` may know


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 4):
        print("usage: python -m reconciler.selfhosted.training JOB_DIR", file=sys.stderr)
        return 2
    _die_with_parent()
    signal.signal(signal.SIGTERM, _leave)
    folder = JobFolder(Path(arguments[0]))
    if len(arguments) == 4:
        return _run_rank(folder, Rank(*map(int, arguments[1:])))
    try:
        with folder.locked() as lock:
            return _run(folder, lock)
    except BlockingIOError:
        print(f"another process trains in {folder.root}; wait for it or end it", file=sys.stderr)
        return 1


def _run(folder: JobFolder, lock: int) -> int:
    folder.sweep()
    if not folder.result.exists():
        try:
            _work(folder, lock)
        except Stopped:
            return STOPPED
        except Crashed as crash:
            print(crash, file=sys.stderr)
            return crash.code
        except _LOW as error:
            failure = explain(error)
            if failure is None:
                raise
            folder.clear()  # first, for it makes room on a full disk
            folder.write_failure(failure)
    folder.clear()
    return 0


def _run_rank(folder: JobFolder, rank: Rank) -> int:
    try:
        asked = job.read(folder.job)
        _prepare_environment(folder, asked, rank.number, rank.of)
        story = Story(folder, silent=rank.number > 0)
        _train(folder, story, asked, bases.find(asked.model.path), rank.number)
    except Stopped:
        return STOPPED
    except _LOW as error:
        failure = explain(error)
        if failure is None:
            raise
        return rank.refuse(failure)
    return 0


def _work(folder: JobFolder, lock: int) -> None:
    asked = job.read(folder.job)
    story = Story(folder)
    formats.check_job(asked)
    base = bases.find(asked.model.path)
    check_row = formats.check_for(asked.method, sees=base.sees)
    rows.check(asked.training_file, "training_file", check_row)
    if asked.validation_file:
        rows.check(asked.validation_file, "validation_file", check_row)
    story.say("validated", "Files validated, moving job to queued state")
    _prepare_environment(folder, asked)
    gpus = hardware.gpus()
    processes = hardware.processes(asked.processes, gpus)
    visible = hardware.devices(os.environ.get("CUDA_VISIBLE_DEVICES"), gpus, processes)
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    if processes > 1:
        together(folder, processes, lock)
    else:
        _train(folder, story, asked, base)


def _train(folder: JobFolder, story: Story, asked: job.Job, base: bases.Base, rank: int = 0) -> None:
    """Train in this process; the first of several writes the result."""
    from reconciler.selfhosted.training import methods, ranks  # seconds of imports, after every cheap refusal

    try:
        trained = methods.train(folder, story, asked, base)
    except ranks.NotNeeded:
        return
    if rank > 0:
        return
    folder.finish_model(trained.plan.total_steps)
    folder.write_metrics(story.metrics, trained.columns)
    story.sync()
    folder.write_result(
        {
            "status": "succeeded",
            "trained_tokens": trained.tokens,
            "model": folder.model.name,
            "metrics_csv": "metrics.csv",
            "hyperparameters": {**trained.plan.resolved(), **trained.resolved},
        }
    )


def _prepare_environment(folder: JobFolder, asked: job.Job, rank: int = 0, of: int = 1) -> None:
    """What the libraries read from the environment when they are imported."""
    os.environ |= {
        "HF_HUB_OFFLINE": "1",  # the base is a local folder
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_DATASETS_CACHE": str(folder.cache),
        "TOKENIZERS_PARALLELISM": "true",
        "TQDM_DISABLE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # idle threads do not burn the cores of others
    if threads := hardware.threads(asked.threads, of, os.cpu_count() or 1):
        os.environ["OMP_NUM_THREADS"] = str(threads)
    for name in _OTHERS:  # we may have been started among processes that are none of ours
        os.environ.pop(name, None)
    if of > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(of)}


_OTHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def _die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(STOPPED)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """Before training starts there is nothing to save."""
    sys.exit(STOPPED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
