"""
One job, from its folder to its result.

Exit code 0: `result.json` is written, whatever it says. 75: stopped by SIGTERM, start again to go on.
Anything else is a crash; the traceback is in the log and the folder is fit to go on from.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from safetensors import SafetensorError

from reconciler.selfhosted.training import bases, formats, job, rows
from reconciler.selfhosted.training.failures import Failure, Stopped, explain
from reconciler.selfhosted.training.folder import JobFolder, Story

STOPPED = 75  # EX_TEMPFAIL: try again
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m reconciler.selfhosted.training JOB_DIR", file=sys.stderr)
        return 2
    _die_with_parent()
    folder = JobFolder(Path(arguments[0]))
    try:
        with folder.locked():
            return _run(folder)
    except BlockingIOError:
        print(f"another process trains in {folder.root}; wait for it or end it", file=sys.stderr)
        return 1


def _run(folder: JobFolder) -> int:
    signal.signal(signal.SIGTERM, _leave)
    folder.sweep()
    if not folder.result.exists():
        try:
            _work(folder)
        except Stopped:
            return STOPPED
        except (Failure, MemoryError, OSError, RuntimeError, SafetensorError) as error:
            failure = explain(error)
            if failure is None:
                raise
            folder.clear()  # first, for it makes room on a full disk
            folder.write_failure(failure)
    folder.clear()
    return 0


def _work(folder: JobFolder) -> None:
    asked = job.read(folder.job)
    story = Story(folder)
    formats.check_job(asked)
    base = bases.find(asked.model.path)
    check_row = formats.check_for(asked.method, sees=base.sees)
    rows.check(asked.training_file, "training_file", check_row)
    if asked.validation_file:
        rows.check(asked.validation_file, "validation_file", check_row)
    story.say("validated", "Files validated, moving job to queued state")
    _prepare_environment(folder, asked.threads)
    from reconciler.selfhosted.training import methods  # seconds of imports, after every cheap refusal

    trained = methods.train(folder, story, asked, base)
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


def _prepare_environment(folder: JobFolder, threads: int | None) -> None:
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
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    # One job is one process on one GPU; Transformers would spread over all it sees.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


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
