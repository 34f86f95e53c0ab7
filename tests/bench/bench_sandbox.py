"""
How many items a second the sandbox grades, against a floor of the same run: bare forks of an empty interpreter.

    python -m tests.bench sandbox
"""

import asyncio
import os
import subprocess
import sys
import time

from reconciler.selfhosted.grading import Sandbox

SOURCES = {
    "plain": "def grade(sample, item):\n    return 1.0 if sample['output_text'] == item['label'] else 0.0",
    "json": "import json\ndef grade(sample, item):\n    return float(json.loads(sample['output_text']) == 1)",
    "numpy": "import numpy as np\ndef grade(sample, item):\n    return float(np.mean([1.0, 1.0]))",
}
ROW = ({"label": "1"}, {"output_text": "1"})


FORKS = """
import os, sys
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
"""


def floor(items: int) -> float:
    """Forks per second of a bare interpreter on every processor: what a process per item costs at the least."""
    abreast = os.cpu_count() or 1
    command = [sys.executable, "-S", "-c", FORKS, str(items // abreast)]
    started = time.perf_counter()
    running = [subprocess.Popen(command) for _ in range(abreast)]
    assert [0] * abreast == [one.wait() for one in running]
    return items / (time.perf_counter() - started)


async def items_per_second(source: str, items: int) -> float:
    sandbox = Sandbox()
    await asyncio.gather(*(sandbox.run(source, *ROW) for _ in range(8)))  # the workers start
    started = time.perf_counter()
    scores = await asyncio.gather(*(sandbox.run(source, *ROW) for _ in range(items)))
    seconds = time.perf_counter() - started
    await sandbox.close()
    assert [1.0] * items == scores
    return items / seconds


async def refusal() -> str | None:
    return await Sandbox().refusal()


def main(smoke: bool) -> None:
    items = 50 if smoke else 2_000
    refused = asyncio.run(refusal())
    if refused is not None:
        print(f"skipped: {refused}")
        return
    for name, source in SOURCES.items():
        bare = floor(items)
        speed = asyncio.run(items_per_second(source, items))
        print(f"{name:6} {speed:6,.0f} items/s  bare forks {bare:6,.0f}/s  ratio {bare / speed:4.1f}")


if __name__ == "__main__":
    main(smoke=False)
