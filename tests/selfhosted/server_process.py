"""Starts the real server process, with the stub engine and the stub trainer. Arguments as for `serve`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from server_stubs import StubEngine

from reconciler.selfhosted import serve
from reconciler.selfhosted.__main__ import parser

if __name__ == "__main__":
    try:
        sys.exit(serve.serve(parser().parse_args(["serve", *sys.argv[1:]]), StubEngine()))
    except serve.Refused as refused:
        sys.exit(f"error: {refused}")
