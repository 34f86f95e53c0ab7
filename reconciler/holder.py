"""Who holds a claim, and whether they still can: a process of some host, told apart from a later one with its pid."""

import os
import re
import socket
from pathlib import Path

WRITE_LOCK = 120  # the byte of SQLite's shared memory that a writer locks


def me() -> str:
    """This process, as others can tell whether it still lives: host, pid and the pid's start time."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def alive(holder: str) -> bool:
    """Whether a holder may still be working. Certain only for processes of this host."""
    host, _, rest = holder.partition(":")
    pid, _, started = rest.partition(":")
    return host != socket.gethostname() or _started(int(pid)) == started


def writers(database: Path) -> list[int]:
    """The processes of this host that are writing to a SQLite database in WAL mode; none where that cannot be told."""
    try:
        inode = os.stat(f"{database}-shm").st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return []
    writing = re.compile(rf"POSIX +\S+ +WRITE +(\d+) +\S+:{inode} {WRITE_LOCK} {WRITE_LOCK}$", re.MULTILINE)
    return sorted({int(pid) for pid in writing.findall(locks) if int(pid) > 0})


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "?"
