"""
How fast datasets are judged and digested, against plain SHA-256 over the same bytes in the same run.

    python -m tests.bench rows

Prints MB/s of the pass and of SHA-256 alone, and how much more memory a file ten times as large took.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reconciler import rows

TICKET = "order {n} has not come yet, the tracking page says nothing, and nobody answers the phone. "
SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "label": {"enum": ["delivery", "refund"]}},
    "required": ["text", "label"],
}


def chat(n: int) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": "Answer with JSON of category, priority and order."},
            {"role": "user", "content": TICKET.format(n=n) * (1 + n % 5)},
            {"role": "assistant", "content": json.dumps({"category": "delivery", "order": n})},
        ]
    }


def with_tools(n: int) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
    call = {"name": "find_order", "arguments": json.dumps({"order": n})}
    return {
        "messages": [
            {"role": "user", "content": TICKET.format(n=n)},
            {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": call}]},
        ],
        "tools": [{"type": "function", "function": {"name": "find_order", "parameters": parameters}}],
    }


def preference(n: int) -> dict[str, Any]:
    answer = [{"role": "assistant", "content": TICKET.format(n=n) * 2}]
    return {
        "input": {"messages": chat(n)["messages"][:2]},
        "preferred_output": answer,
        "non_preferred_output": answer,
    }


def reinforcement(n: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": TICKET.format(n=n) * 3}], "reference": {"order": n}}


def items(n: int) -> dict[str, Any]:
    return {"item": {"text": TICKET.format(n=n) * 3, "label": "delivery"}}


CASES: dict[str, tuple[str, Callable[[int], dict[str, Any]], dict[str, Any] | None]] = {
    "chat": ("chat", chat, None),
    "chat with tools": ("chat", with_tools, None),
    "preference": ("preference", preference, None),
    "reinforcement": ("reinforcement", reinforcement, None),
    "items": ("items", items, None),
    "items with schema": ("items", items, SCHEMA),
}


def write(path: Path, row: Callable[[int], dict[str, Any]], size: int) -> None:
    with path.open("w") as file:
        while file.tell() < size:
            file.writelines(json.dumps(row(n)) + "\n" for n in range(1000))


def seconds(work: Callable[[], object]) -> float:
    """The best of three, in CPU seconds of this process."""

    def once() -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    return min(once() for _ in range(3))


def peak_mb(path: Path, fmt: str) -> float:
    """The largest resident set of a fresh process that scans `path`. Linux."""
    code = (
        "import sys; from reconciler import rows; rows.scan(sys.argv[1], sys.argv[2]);"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), fmt], capture_output=True, check=True)
    return float(done.stdout) / 1024


def measure(name: str, path: Path, fmt: str, schema: dict[str, Any] | None) -> str:
    found = rows.scan(path, fmt, item_schema=schema)
    assert not found.problems, found.problems[0]
    data = path.read_bytes()
    floor = seconds(lambda: hashlib.sha256(data).digest())
    took = seconds(lambda: rows.scan(path, fmt, item_schema=schema))
    megabytes = found.bytes / 1e6
    return (
        f"{name:18} {found.bytes / found.rows:5.0f} B/row  {megabytes / took:6.0f} MB/s  "
        f"sha256 alone {megabytes / floor:6.0f} MB/s  ratio {took / floor:5.1f}"
    )


def main(smoke: bool) -> None:
    size = 1_000_000 if smoke else 40_000_000  # bytes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        for name, (fmt, row, schema) in CASES.items():
            write(path, row, size)
            print(measure(name, path, fmt, schema))
        write(path, chat, size)
        once = peak_mb(path, "chat")
        write(path, chat, 10 * size)
        print(f"peak memory: {once:.0f} MB; of ten times the file: {peak_mb(path, 'chat'):.0f} MB")
