"""A sandbox and the loop it lives on, so that many tests meet the same workers."""

import asyncio
import shutil
import subprocess
from collections.abc import Coroutine
from typing import Any

import pytest

from reconciler.selfhosted.grading import Sandbox

HONEST = "def grade(sample, item):\n    return 1.0 if sample['output_text'] == item['label'] else 0.25"


def missing() -> str | None:
    """Why isolation cannot be tested here, asked of bubblewrap itself: our own mistakes must not skip."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return "bubblewrap is not installed: apt-get install bubblewrap"
    tried = subprocess.run(
        [bwrap, "--unshare-all", "--unshare-user", "--ro-bind", "/", "/", "true"], capture_output=True
    )
    return f"bubblewrap cannot make namespaces here: {tried.stderr!r}" if tried.returncode else None


NO_BWRAP = missing()
needs_bwrap = pytest.mark.skipif(NO_BWRAP is not None, reason=str(NO_BWRAP))


class Pool:
    """A sandbox and the loop it lives on, so that many tests meet the same workers."""

    def __init__(self, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.sandbox = Sandbox(**options)
        self.do(self.sandbox.start())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def run(self, source: str, item: dict[str, Any] | None = None, text: str = "") -> float:
        score: float = self.do(self.sandbox.run(source, item or {}, {"output_text": text}))
        return score

    def close(self) -> None:
        self.do(self.sandbox.close())
        self.loop.close()
