"""200 MB leave in flat memory, measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

from platform_stub import Stub

SIZE = 200_000_000
UPLOAD = """
import resource, sys
from pathlib import Path
from reconciler.platforms.openai import OpenAI
from reconciler.world import Upload

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def upload(path):
    platform.create("files", {"purpose": "evals", "file": Upload(Path(path), "big.jsonl")}, key="k")

platform = OpenAI(sys.argv[1])
upload(__file__)
before = peak()
upload(sys.argv[2])
print(peak() - before)
"""


def test_an_upload_of_200_mb_takes_no_memory_and_arrives_as_it_was(stub: Stub, tmp_path: Path) -> None:
    big, small = tmp_path / "big.jsonl", tmp_path / "small.py"
    small.write_text(UPLOAD)
    with big.open("wb") as file:
        file.truncate(SIZE)

    done = subprocess.run(
        [sys.executable, str(small), stub.url, str(big)], capture_output=True, text=True, check=True
    )

    sent = stub.requests("POST files")[1]
    assert SIZE < sent.size
    assert 16_000_000 > int(done.stdout), f"the peak grew by {done.stdout} bytes"
