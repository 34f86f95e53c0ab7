"""
`python -m reconciler.selfhosted.engine --uds PATH`: the engine process.

The socket answers at once while torch is still being imported on the model thread; calls wait for it.
One line, `ready`, goes to standard output when the socket listens. The process dies with its parent.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from pathlib import Path

from reconciler.selfhosted.engine.front import serve

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when `parent` ends, and stop now when it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m reconciler.selfhosted.engine", description="the serving engine"
    )
    parser.add_argument("--uds", type=Path, required=True, help="the Unix socket to listen on")
    parser.add_argument("--threads", type=int, default=None, help="threads of one forward pass")
    parser.add_argument(
        "--memory", type=int, default=None, help="bytes of weights to keep loaded (half of the RAM)"
    )
    parser.add_argument(
        "--parent", type=int, default=None, help="the process to die with (the one that started us)"
    )
    options = parser.parse_args()

    os.umask(0o077)  # the socket is its owner's alone
    os.environ["HF_HUB_OFFLINE"] = "1"  # models come from folders, never from the network
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # idle OpenMP threads must not starve a trainer beside us
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which stops us
    die_with_parent(options.parent or os.getppid())
    memory = options.memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    asyncio.run(serve(options.uds, threads=options.threads, memory=memory))


if __name__ == "__main__":
    main()
