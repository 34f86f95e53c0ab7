"""SIGTERM ends a daemon whichever of its threads the kernel gives it to."""

import ctypes
import os
import signal
import sys
from pathlib import Path

import pytest
from core_base import write
from daemon_base import PATIENCE, PROJECT, running
from memory_server import MemoryServer

TGKILL = 234  # the system call on x86-64; others have other numbers
HERE = sys.platform == "linux" and os.uname().machine == "x86_64"


@pytest.mark.skipif(not HERE, reason="the number of the system call tgkill is known for Linux on x86-64 only")
def test_a_signal_that_another_thread_gets_is_heard(tmp_path: Path, server: MemoryServer) -> None:
    tree = write(tmp_path / "manifests")
    (tree / "project.yaml").write_text(PROJECT.format(url=server.url, more=""))
    with running(tmp_path / "log", tree, "--interval", "3600") as daemon:
        daemon.until("pass.done")
        pid = daemon.process.pid
        other = next(int(each) for each in os.listdir(f"/proc/{pid}/task") if int(each) != pid)

        assert 0 == ctypes.CDLL(None).syscall(TGKILL, pid, other, signal.SIGTERM)

        assert 0 == daemon.process.wait(PATIENCE)
        assert daemon.named("daemon.stopped")
