"""`python -m tests.bench [NAME ...] [--smoke]`: measure against floors of the same run; smoke only runs it, small."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

NAMES = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="which; all if left out")
    parser.add_argument("--smoke", action="store_true", help="small sizes, to see that it runs")
    asked = parser.parse_args()
    names = asked.names or NAMES
    if len(names) == 1:
        print(f"== {names[0]}", flush=True)
        importlib.import_module(f"tests.bench.bench_{names[0]}").main(asked.smoke)
        return
    for name in names:  # each in a process of its own, or its peak of memory would be that of all before it
        command = [sys.executable, "-m", "tests.bench", name, *(["--smoke"] if asked.smoke else [])]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
