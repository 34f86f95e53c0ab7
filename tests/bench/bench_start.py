"""
How long `reconciler --version` and `validate` take, as whole processes, against a bare interpreter.

`python -m tests.bench start`
"""

import statistics
import subprocess
import sys
import time

WANTED = 0.15  # seconds for --version


def main(smoke: bool) -> None:
    runs = 2 if smoke else 9
    bare = seconds([sys.executable, "-c", "pass"], runs)
    for words in (["--version"], ["validate", "manifests"]):
        took = seconds([sys.executable, "-m", "reconciler", *words], runs)
        floor = f"{took / bare:.1f} × python -c pass, {bare * 1000:.0f} ms"
        print(f"reconciler {' '.join(words):20} {took * 1000:5.0f} ms  ({floor})")
    print(f"wanted: --version ≤ {WANTED * 1000:.0f} ms")


def seconds(command: list[str], runs: int) -> float:
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - start)
    return statistics.median(took)
