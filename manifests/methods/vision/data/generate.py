"""
Write the rows of the example: pictures of one shape each, and the JSON that describes them.

Run `python manifests/methods/vision/data/generate.py` to write them beside this file, or name another folder.
The same pictures come out every time, pixel for pixel, and no picture is in two files.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from reconciler.selfhosted.tiny.shapes import Picture, picture

TRAIN, VALIDATION, HELD_OUT = 320, 32, 150  # rows
ASKED = "Describe it. JSON: colour, shape."


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Endless pictures, no two of the same pixels."""
    seen = set[bytes]()
    while True:
        one = picture(rng)
        if (pixels := one.image.tobytes()) not in seen:
            seen.add(pixels)
            yield one


def answer(one: Picture) -> str:
    return json.dumps({"colour": one.colour, "shape": one.shape})


def asked(one: Picture) -> dict[str, Any]:
    shown = {"type": "image_url", "image_url": {"url": one.data_uri()}}
    return {"role": "user", "content": [shown, {"type": "text", "text": ASKED}]}


def vision_row(one: Picture) -> dict[str, Any]:
    return {"messages": [asked(one), {"role": "assistant", "content": answer(one)}]}


def files(seed: int = 20261124) -> dict[str, str]:
    """The content of every file by its name. Pure."""
    stream = pictures(random.Random(seed))
    heldout = [next(stream) for _ in range(HELD_OUT)]
    return {
        "heldout.jsonl": lines({"item": {"input": [asked(one)], "expected": answer(one)}} for one in heldout),
        "validation.jsonl": lines(vision_row(next(stream)) for _ in range(VALIDATION)),
        "train.jsonl": lines(vision_row(next(stream)) for _ in range(TRAIN)),
    }


def lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
