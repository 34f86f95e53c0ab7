"""
How many items a second the sandbox grades, against the floor of this machine: a bare fork and wait per item.

    pytest -s tests/bench/bench_sandbox.py
"""

import asyncio
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.selfhosted.grading import Sandbox

ITEMS = 2_000
SOURCES = {
    "plain": "def grade(sample, item):\n    return 1.0 if sample['output_text'] == item['label'] else 0.0",
    "json": "import json\ndef grade(sample, item):\n    return float(json.loads(sample['output_text']) == 1)",
    "numpy": "import numpy as np\ndef grade(sample, item):\n    return float(np.mean([1.0, 1.0]))",
}
ROW = ({"label": "1"}, {"output_text": "1"})


def forks(count: int) -> None:
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)


def floor() -> float:
    """Forks per second of this very process, two at a time where there are two processors."""
    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(forks, [ITEMS // (os.cpu_count() or 1)] * (os.cpu_count() or 1)))
    return ITEMS / (time.perf_counter() - started)


async def items_per_second(source: str) -> float:
    sandbox = Sandbox()
    await asyncio.gather(*(sandbox.run(source, *ROW) for _ in range(8)))  # workers start
    started = time.perf_counter()
    scores = await asyncio.gather(*(sandbox.run(source, *ROW) for _ in range(ITEMS)))
    seconds = time.perf_counter() - started
    await sandbox.close()
    assert [1.0] * ITEMS == scores
    return ITEMS / seconds


@pytest.mark.bench
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
@pytest.mark.parametrize("name", SOURCES)
def test_the_pool_grades_500_items_a_second(name: str) -> None:
    bare = floor()

    speed = asyncio.run(items_per_second(SOURCES[name]))

    print(f"\n{name}: {speed:,.0f} items/s; {bare:,.0f} bare forks/s; {bare / speed:.1f} times the floor")
    assert speed >= 500
