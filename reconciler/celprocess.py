"""
Rules in CEL, asked of a process of their own that may be killed.

It starts when the first rule is asked about and ends with us. A rule that took too much time or memory is
not asked again: whoever asks is told so, and takes it as broken.
"""

import importlib.util
import json
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from reconciler.errors import ReconcilerError

PATIENCE = 20.0  # seconds that one rule may take, the start of the process included
TOO_MUCH = "it took too much time or memory"


class Cel:
    """One such process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._spent: set[str] = set()  # rules that it died of
        self._lock = threading.Lock()

    def check(self, rules: Sequence[str]) -> list[str]:
        """What is wrong with each of the rules; empty where it can be judged. Raises ReconcilerError."""
        return ["" if answer is True else str(answer) for answer in self._ask(rules, None)]

    def judge(self, rules: Sequence[str], known: Mapping[str, Any]) -> list[bool | str]:
        """Whether each of the rules holds, or why nobody can tell. `now` is in unix seconds. Raises ReconcilerError."""
        return self._ask(rules, known)

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.kill()
            self._process.wait()
            for end in (self._process.stdin, self._process.stdout):
                if end:
                    end.close()
            self._process = None

    def _ask(self, rules: Sequence[str], known: Mapping[str, Any] | None) -> list[bool | str]:
        answers: list[bool | str] = []
        with self._lock:
            while len(answers) < len(rules):
                left = rules[len(answers) :]
                if left[0] in self._spent:
                    answers.append(TOO_MUCH)
                    continue
                fresh = next((n for n, rule in enumerate(left) if rule in self._spent), len(left))
                told = self._answers(left[:fresh], known)
                answers += told
                if len(told) < fresh:
                    self._spent.add(left[len(told)])
                    self.close()
        return answers

    def _answers(self, rules: Sequence[str], known: Mapping[str, Any] | None) -> list[bool | str]:
        """As many answers as came before it died or took too long."""
        process = self._running()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps({"rules": list(rules), "known": known}).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            return []
        told: list[bool | str] = []
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            for _ in rules:
                if not waiting.select(PATIENCE) or not (line := process.stdout.readline()):
                    return told
                told.append(json.loads(line))
        return told

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            if importlib.util.find_spec("cel_expr_python") is None:
                raise ReconcilerError(
                    "policies are written in CEL; install reconciler with its extra `policies` to use them"
                )
            kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "LANG") if key in os.environ}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "reconciler.celchild"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, env=kept, start_new_session=True,
            )  # fmt: skip
        return self._process


@cache
def shared() -> Cel:
    """The one of this process."""
    return Cel()
