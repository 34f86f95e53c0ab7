"""`python -m tests.bench [NAME ...] [--smoke]`: measure against floors of the same run; smoke only runs it, small."""

import argparse
import importlib
from pathlib import Path

NAMES = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="which; all if left out")
    parser.add_argument("--smoke", action="store_true", help="small sizes, to see that it runs")
    asked = parser.parse_args()
    for name in asked.names or NAMES:
        print(f"== {name}", flush=True)
        importlib.import_module(f"tests.bench.bench_{name}").main(asked.smoke)


if __name__ == "__main__":
    main()
