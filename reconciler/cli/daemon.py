"""`run`: what a daemon is put together from."""

import math
import os
from pathlib import Path

from reconciler.cli import session
from reconciler.daemon import start
from reconciler.daemon.start import Git, Http, Options
from reconciler.errors import ReconcilerError
from reconciler.selection import ALL, Choice

KEPT = "reconciler-home"  # below the working folder
LEAST = 0.1  # seconds between passes when nothing moves


def run(
    folder: Path,
    platform: str | None,
    interval: float,
    home: Path | None,
    git: Git | None,
    http: Http | None,
    choice: Choice = ALL,
) -> int:
    if not LEAST <= interval < math.inf:
        raise ReconcilerError(f"--interval is {LEAST:g} s or more, not {interval:g}")
    if git is None and home is not None:
        raise ReconcilerError("--home goes with --git; without it everything is kept with the manifests")
    kept = (home or Path(os.environ.get("STATE_DIRECTORY") or KEPT)) if git else folder
    start.run(Options(kept, platform, interval, git, http, choice), session)
    return 0
