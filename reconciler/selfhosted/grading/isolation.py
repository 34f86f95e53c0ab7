"""
How a sandbox worker is started: under bubblewrap in namespaces of its own, or, only when told so, plainly.

Inside bubblewrap a worker sees the system's libraries, the interpreter and its site-packages, all read-only,
and `/dev/null`. There is no network, no /proc, no /tmp, no home, no /etc but the linker's cache, nothing of
our environment, no capability, not even root's identity. A worker is process 1 of its own process namespace:
no signal from inside ends it, and its end takes everything with it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from . import seccomp

INMATE = Path(__file__).with_name("inmate.py")

ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the order of a set must not change a score
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

# A worker is the first thing the kernel should end when memory runs out.
_EXPENDABLE = ("/bin/sh", "-c", 'echo 1000 2>/dev/null >/proc/self/oom_score_adj; exec "$@"', "sh")

HOW_TO_ALLOW = (
    "python graders run strangers' code and are refused without isolation: {why}; "
    "or start the platform with --unsafe-graders to run them as plain processes of this user"
)


class NoIsolation(Exception):
    """Workers cannot be isolated here; the message says what to install, and how to do without."""


class Launch(NamedTuple):
    """What to execute, and what the worker is to be told about its surroundings."""

    command: tuple[str, ...]
    environment: dict[str, str]
    libraries: list[str]  # as the worker sees them
    worker_filter: bytes  # b"" for none
    item_filter: bytes


def launch(*, unsafe: bool, seccomp_file: int) -> Launch:
    """How to start a worker; `seccomp_file` is the descriptor at which bwrap will find its filter."""
    if not sys.platform.startswith("linux"):
        raise NoIsolation("python graders need Linux; the other graders work here")
    if unsafe:
        command: tuple[str, ...] = (*_EXPENDABLE, _interpreter(), *_FLAGS, str(INMATE))
        return Launch(command, ENVIRONMENT, _libraries(), b"", b"")
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise NoIsolation(HOW_TO_ALLOW.format(why="bubblewrap is not installed (apt-get install bubblewrap)"))
    try:
        filters = seccomp.program("worker"), seccomp.program("item")
    except seccomp.NoSeccomp as missing:
        raise NoIsolation(HOW_TO_ALLOW.format(why=str(missing))) from missing
    inside = [f"/libraries/{number}" for number in range(len(_libraries()))]
    command = (
        *_EXPENDABLE,
        bwrap,
        *_walls(inside, seccomp_file),
        "--",
        _interpreter(),
        *_FLAGS,
        "/inmate.py",
    )
    return Launch(command, {}, inside, *filters)


_FLAGS = ("-S", "-s", "-P", "-B")  # no site, no user site, no script folder on the path, no bytecode written


def _walls(inside: list[str], seccomp_file: int) -> Iterator[str]:
    yield from ("--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--hostname", "grader")
    yield from ("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--clearenv")
    for name, value in ENVIRONMENT.items():
        yield from ("--setenv", name, value)
    for path in _readable():
        yield from ("--ro-bind", path, path)
    for path in ("/lib", "/lib64", "/lib32"):
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
    yield from ("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache")
    for outside, path in zip(_libraries(), inside, strict=True):
        yield from ("--ro-bind", outside, path)
    yield from ("--ro-bind", str(INMATE), "/inmate.py", "--dev-bind", "/dev/null", "/dev/null")
    yield from ("--remount-ro", "/", "--chdir", "/", "--seccomp", str(seccomp_file))


def _readable() -> list[str]:
    """The interpreter, its library and the system's; not all of /usr, where containers keep applications."""
    prefix = os.path.realpath(sys.base_prefix)
    wanted = [_interpreter(), f"{prefix}/lib", f"{prefix}/lib64", "/usr/lib", "/usr/lib64", "/usr/lib32"]
    wanted += [path for path in ("/lib", "/lib64", "/lib32") if not os.path.islink(path)]
    return [path for path in dict.fromkeys(wanted) if os.path.exists(path)]


def _interpreter() -> str:
    """The interpreter itself, whatever virtual environment it was started through."""
    started: str = sys._base_executable  # type: ignore[attr-defined]
    return os.path.realpath(started)


def _libraries() -> list[str]:
    """The folders of installed packages that this interpreter uses; a project's own is not among them."""
    folders = (os.path.realpath(path) for path in sys.path)
    found = [path for path in folders if Path(path).name in ("site-packages", "dist-packages")]
    return [path for path in dict.fromkeys(found) if os.path.isdir(path)]
