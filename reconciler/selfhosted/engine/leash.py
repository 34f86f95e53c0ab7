"""
`python -m reconciler.selfhosted.engine.leash PARENT COMMAND ...`: a program that never outlives who started it.

Programs of others do not ask the kernel to end them with their parent, and start processes of their own. So
they run in a session of theirs, and all of it is killed when the process PARENT ends, when we are told to stop
(SIGTERM), and when the program itself ends and leaves something behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run(parent: int, command: list[str]) -> int:
    """The exit status of the command, as a shell has it."""
    session: list[int] = []
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        for leader in session:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which stops us
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 1
    try:
        program = subprocess.Popen(command, start_new_session=True)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return 127
    session.append(program.pid)
    if stopped:  # while it was being started
        stop()
    code = program.wait()
    stop()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
