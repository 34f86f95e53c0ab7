"""Many of us at once: real processes, forked from one that has imported everything, that start together."""

import contextlib
import gc
import multiprocessing
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import reconciler.cli.commands
import reconciler.daemon
import reconciler.journal
import reconciler.platforms.openai  # noqa: F401  (all of them before the first fork)
from reconciler.cli.main import main

CONTEXT = multiprocessing.get_context("fork")
LIMIT = 60.0  # seconds for what takes less than one


def _become(arguments: Sequence[str], said: Path, gate: Any) -> None:
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = ["reconciler", *arguments]
    gate.wait(LIMIT)
    code: Any = 1
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code or 0))


@contextlib.contextmanager
def together(folder: Path, **commands: Sequence[str]) -> Iterator[dict[str, BaseProcess]]:
    """`reconciler` with each of these arguments, let go at the same moment; what each says is in `<folder>/<name>`."""
    gate = CONTEXT.Barrier(len(commands))
    started = {
        name: CONTEXT.Process(target=_become, args=(arguments, folder / name, gate), name=name)
        for name, arguments in commands.items()
    }
    gc.freeze()  # or every child would look through all that this process has, and copy it doing so
    for process in started.values():
        process.start()
    try:
        yield dict(started)
    finally:
        gc.unfreeze()
        for process in started.values():
            process.kill()
            process.join()
