"""
What runs inside the sandbox: the standard library alone, started by its path, imported by nothing.

The worker (process 1 of its own namespace) reads one source, then answers frames: one item in, one number
out. Each item runs in a child forked for it, which gives up everything before the grader's code starts:
descriptors, processor time without end, and all system calls but those of computing. The child's answer counts
only with a word that the worker tells it after `grade` returned, so nothing printed or written earlier can
pass for one. (Code inside a grader can still send whatever it could have returned: that is its own score.)

Frames: 4 bytes of length, then JSON.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import gc
import json
import math
import os
import resource
import select
import signal
import sys
import time
from types import CodeType
from typing import Any, NoReturn

MAX_ANSWER = 4_096
MAX_DETAILS = 1_000

# Imported ahead when a source asks for them, so that a fork per item does not import them again.
PRELOADED = """
ast collections copy dataclasses datetime decimal deepdiff difflib enum fractions functools itertools
json jsonschema math nltk numpy operator pandas pydantic random rapidfuzz rdkit re rouge_score scipy
skbio sklearn sqlparse statistics string sympy textwrap typing unicodedata yaml
""".split()  # noqa: SIM905, a list of names reads better as text


PRCTL = ctypes.CDLL(None, use_errno=True).prctl
PR_SET_PDEATHSIG, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 1, 22, 2


class SockFprog(ctypes.Structure):
    """A seccomp program as prctl takes it: how many instructions of 8 bytes, and where."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def main() -> None:
    PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)
    host_in, host_out = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    hello = json.loads(read_frame(host_in) or b"")
    limits = hello["limits"]
    limit(
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_NOFILE, 64),
    )
    sys.path.extend(hello["libraries"])
    program, problem = compiled(hello["source"])
    instructions = bytes.fromhex(hello["filter"])
    item_filter = SockFprog(len(instructions) // 8, instructions)
    gc.collect()
    gc.freeze()
    write_frame(host_out, json.dumps({"ready": problem is None, "details": problem}).encode())
    while (frame := read_frame(host_in)) is not None:
        answer = graded(program, frame, limits, item_filter)
        write_frame(host_out, json.dumps(answer).encode())


def compiled(source: str) -> tuple[CodeType | None, str | None]:
    """The source as code, its known imports done; or the sentence that says why it is not Python."""
    try:
        tree = ast.parse(source, "<grader>")
        program = compile(tree, "<grader>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as wrong:
        what, line = getattr(wrong, "msg", wrong), getattr(wrong, "lineno", None)
        return None, f"source is not Python: {what}"[:MAX_DETAILS] + (f" (line {line})" if line else "")
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            names = [statement.module or ""]
        else:
            continue
        for name in names:
            if name.partition(".")[0] in PRELOADED:
                with contextlib.suppress(
                    Exception, SystemExit
                ):  # the grader meets it again, as its own error
                    __import__(name)
    return program, None


def graded(
    program: CodeType | None, frame: bytes, limits: dict[str, Any], item_filter: SockFprog
) -> dict[str, Any]:
    """One item's answer: {"score": number} or {"failed": kind, "details": sentence}."""
    ask, tell = os.pipe()
    listen, answer = os.pipe()
    child = os.fork()
    if child == 0:
        run_item(program, frame, limits, item_filter, ask, answer)
    os.close(ask)
    os.close(answer)
    try:
        return heard(listen, tell, time.monotonic() + limits["wall_seconds"], limits["wall_seconds"])
    except Ended:
        return ended(child)
    finally:
        os.close(listen)
        os.close(tell)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


class Ended(Exception):
    """The item's process closed its pipe without an answer."""


class TookTooLong(Exception):
    """The item's process did not answer before the deadline."""


def heard(listen: int, tell: int, deadline: float, seconds: float) -> dict[str, Any]:
    """What the child says: `d`, then our word and a number; or `E` and the text of an error."""
    word = os.urandom(16).hex().encode()
    try:
        first = hear(listen, 1, deadline)
        if first == b"E":
            return {"failed": "raised", "details": rest(listen, deadline).decode("utf-8", "replace")}
        if first != b"d":
            return {"failed": "forged", "details": "the grader wrote to the sandbox's own pipe"}
        with contextlib.suppress(BrokenPipeError):
            os.write(tell, word)
        said = rest(listen, deadline)
    except TookTooLong:
        return {"failed": "timeout", "details": f"the grader ran longer than {seconds:g} s"}
    if not said.startswith(word):
        return {"failed": "forged", "details": "the grader wrote to the sandbox's own pipe"}
    try:
        score = float(said[len(word) :])
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        return {"failed": "not_a_number", "details": "the grader did not return a finite number"}
    return {"score": score}


def hear(listen: int, size: int, deadline: float) -> bytes:
    """At most `size` bytes, at least one."""
    ready, _, _ = select.select([listen], [], [], max(0.0, deadline - time.monotonic()))
    if not ready:
        raise TookTooLong
    piece = os.read(listen, size)
    if not piece:
        raise Ended
    return piece


def rest(listen: int, deadline: float) -> bytes:
    """All that is left to read, at most MAX_ANSWER bytes."""
    said = b""
    with contextlib.suppress(Ended):
        while len(said) < MAX_ANSWER:
            said += hear(listen, MAX_ANSWER - len(said), deadline)
    return said


def ended(child: int) -> dict[str, Any]:
    """How a child that did not answer came to its end."""
    os.kill(child, signal.SIGKILL)  # it may have closed the pipe and gone on
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        how = f"was ended by signal {number}"
        if number == signal.SIGSEGV:
            how += " (a crash or a stack overflow)"
        if number == signal.SIGXCPU:
            how += " (out of CPU time)"
    else:
        how = f"left with exit code {os.WEXITSTATUS(status)}"
    return {"failed": "no_answer", "details": f"the grader {how} before it returned a score"}


def run_item(
    program: CodeType | None,
    frame: bytes,
    limits: dict[str, Any],
    item_filter: SockFprog,
    ask: int,
    answer: int,
) -> NoReturn:
    """In the child: become harmless, run the grader, answer, leave. Never returns."""
    try:
        give_up(limits, item_filter, ask, answer)
        os.write(answer, message(program, json.loads(frame), ask, answer))
    finally:
        os._exit(0)


def message(program: CodeType | None, row: dict[str, Any], ask: int, answer: int) -> bytes:
    """`E` and an error; or, once the score is known, the worker's word and the score."""
    try:
        names: dict[str, Any] = {"__name__": "grader", "__builtins__": __builtins__}
        exec(program or "", names)
        grade = names.get("grade")
        if not callable(grade):
            raise NameError("the source defines no function named grade")
        score = number(grade(row["sample"], row["item"])).encode()
    except BaseException as wrong:  # also SystemExit and KeyboardInterrupt: it is a stranger's code
        return b"E" + told(wrong).encode("utf-8", "replace")
    os.write(answer, b"d")
    return os.read(ask, 32) + score


def give_up(limits: dict[str, Any], item_filter: SockFprog, ask: int, answer: int) -> None:
    """Everything a grader does not need, for good."""
    PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)  # the item never outlives its worker
    limit((resource.RLIMIT_CPU, math.ceil(limits["wall_seconds"]) + 1), (resource.RLIMIT_NPROC, 0))
    low, high = sorted((ask, answer))
    os.closerange(3, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, 64)
    if item_filter.length:
        restrict(item_filter)


def limit(*limits: tuple[int, int]) -> None:
    for which, value in limits:
        resource.setrlimit(which, (value, value))


def restrict(item_filter: SockFprog) -> None:
    """Lay a seccomp filter over the worker's own; bwrap has set no_new_privs, which this needs."""
    if PRCTL(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(item_filter), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the seccomp filter of the item was refused")


def number(result: Any) -> str:
    """A result as decimal text. Raises TypeError or ValueError for what is not a finite number."""
    if isinstance(result, str | bytes | bytearray):
        raise TypeError(f"grade returned {type(result).__name__}, not a number")
    try:
        value = float(result)
    except OverflowError:
        raise ValueError("grade returned a number too large for a float") from None
    except (TypeError, ValueError):
        raise TypeError(f"grade returned {type(result).__name__}, not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"grade returned {value}, not a finite number")
    return float.__repr__(value)


def told(wrong: BaseException) -> str:
    """An exception in one line, with the line of the source it came from."""
    try:
        text = f"{type(wrong).__name__}: {wrong}"
    except BaseException:  # a stranger's __str__
        text = type(wrong).__name__
    line, trace = None, wrong.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<grader>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return text[:MAX_DETAILS] + (f" (line {line})" if line else "")


def read_frame(source: int) -> bytes | None:
    """The next frame's bytes, or None at the end."""
    head = read_exactly(source, 4)
    return read_exactly(source, int.from_bytes(head, "big")) if head else None


def read_exactly(source: int, size: int) -> bytes | None:
    pieces, left = [], size
    while left:
        piece = os.read(source, min(left, 1 << 20))
        if not piece:
            return None
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def write_frame(sink: int, body: bytes) -> None:
    left = len(body).to_bytes(4, "big") + body
    while left:
        left = left[os.write(sink, left) :]


if __name__ == "__main__":
    main()
