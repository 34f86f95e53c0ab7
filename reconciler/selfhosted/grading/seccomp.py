"""
Which system calls a grader may make: a list of what is allowed, as BPF, compiled by libseccomp.

Two filters. `worker` holds for everything inside the sandbox: computing, reading files, and what the
worker needs to start one process per item. `item` is laid over it before a grader's own code runs: no new
process or thread, no signal, no socket, no executing, nothing that reaches another process.
Anything not listed fails with EPERM. libseccomp knows the numbers of each processor; we know only names.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Literal, NamedTuple

_ALLOW = 0x7FFF0000
_EPERM = 0x00050000 | 1
_ENOSYS = 0x00050000 | 38
_EQUAL, _MASKED_EQUAL = 4, 7

COMPUTING = """
read pread64 readv write writev close close_range lseek open openat dup dup2 dup3 pipe2 fadvise64 umask
fstat stat lstat newfstatat statx statfs fstatfs access faccessat faccessat2
getdents getdents64 readlink readlinkat getcwd chdir
mmap munmap mremap mprotect madvise brk futex get_robust_list set_robust_list set_tid_address rseq membarrier
rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
poll ppoll select pselect6 nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times
getpid getppid gettid getpgrp getpgid getsid getuid geteuid getgid getegid getgroups getresuid getresgid
getrandom uname sysinfo getrusage getrlimit sched_yield sched_getaffinity getcpu arch_prctl exit exit_group
""".split()  # noqa: SIM905, ninety names read better as text

# What the worker itself does between items, and bwrap's last step, which executes it.
WORKING = "execve fork wait4 kill prctl setrlimit pipe".split()  # noqa: SIM905

# fcntl and ioctl only as far as plain files need them: some commands send signals to other processes.
_FCNTL = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC
_IOCTL = (0x5401, 0x5450, 0x5451)  # TCGETS, FIONCLEX, FIOCLEX
_THREAD_OR_NAMESPACE = 0x00010000 | 0x7E020000 | 0x00000080  # CLONE_THREAD, CLONE_NEW*


class _Argument(ctypes.Structure):
    _fields_ = (
        ("number", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class Rule(NamedTuple):
    """One system call that is allowed, when its argument `number` compares equal (after the mask)."""

    call: str
    number: int | None = None
    equals: int = 0
    mask: int | None = None


class NoSeccomp(Exception):
    """libseccomp is not there, or does not do what we ask; the message says what to install."""


@cache
def program(which: Literal["worker", "item"]) -> bytes:
    """The filter as the kernel reads it (an array of sock_filter). Raises NoSeccomp."""
    rules = [Rule(call) for call in COMPUTING]
    rules += [Rule("fcntl", 1, command) for command in _FCNTL]
    rules += [Rule("ioctl", 1, command) for command in _IOCTL]
    rules.append(Rule("prlimit64", 0, 0))  # of the caller itself only
    if which == "worker":
        rules += [Rule(call) for call in WORKING]
        rules.append(Rule("clone", 0, 0, _THREAD_OR_NAMESPACE))
    return _compile(rules)


def _compile(rules: list[Rule]) -> bytes:
    library = _library()
    context = library.seccomp_init(_EPERM)
    if not context:
        raise NoSeccomp("libseccomp could not start a filter: check its installation")
    try:
        for rule in rules:
            _add(library, context, _ALLOW, rule)
        _add(
            library, context, _ENOSYS, Rule("clone3")
        )  # so that libc falls back to clone, whose flags we see
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, action: int, rule: Rule) -> None:
    number = library.seccomp_syscall_resolve_name(rule.call.encode())
    if number < 0:  # this processor has no such call
        return
    arguments = (_Argument * 1)()
    count = 0
    if rule.number is not None:
        count = 1
        if rule.mask is None:
            arguments[0] = _Argument(rule.number, _EQUAL, rule.equals, 0)
        else:
            arguments[0] = _Argument(rule.number, _MASKED_EQUAL, rule.mask, rule.equals)
    code = library.seccomp_rule_add_array(context, action, number, count, arguments)
    if code != 0:
        raise NoSeccomp(f"libseccomp refused the rule for {rule.call} with code {code}: update libseccomp2")


def _export(library: ctypes.CDLL, context: int) -> bytes:
    file = os.memfd_create("filter")
    try:
        code = library.seccomp_export_bpf(context, file)
        if code != 0:
            raise NoSeccomp(f"libseccomp could not write its filter, code {code}: update libseccomp2")
        size = os.lseek(file, 0, os.SEEK_END)
        return os.pread(file, size, 0)
    finally:
        os.close(file)


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise NoSeccomp("libseccomp.so.2 is not installed: apt-get install libseccomp2") from None
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Argument),
    ]
    return library
