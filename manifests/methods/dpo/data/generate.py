"""
Write the rows of the example: replies to customers, with and without the sign-off that the house likes.

Run `python manifests/methods/dpo/data/generate.py` to write them beside this file, or name another folder.
The same bytes come out every time. Held-out customers ask about goods that no training row names.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

TRAIN, VALIDATION, HELD_OUT = 240, 32, 150  # rows
SYSTEM = "Reply to the customer."
SIGN_OFF = "Kind regards, your shop"
GOODS = (
    "table", "sofa", "shelf", "bed", "stool", "shirt", "coat", "jacket", "hat", "scarf", "dress",
    "saw", "drill", "rake", "piano", "guitar", "flute", "drum", "kettle", "phone", "laptop", "printer",
    "heater", "speaker", "clock", "mirror", "tent", "radio",
)  # fmt: skip
UNSEEN = ("chair", "desk", "lamp", "violin", "camera", "blender", "backpack", "toaster")
LETTERS = (
    "I have a question on my {item}. The order is {order}.",
    "Order {order}. Please tell me about my {item}.",
    "Hi, can you look at order {order}? It is the {item}.",
    "I wrote to you on Monday. The {item}, order {order}.",
)


class Letter(NamedTuple):
    text: str
    order: str
    reply: str


def letter(rng: random.Random, goods: Iterable[str]) -> Letter:
    order = f"{rng.choice('ABCDEFGHKLMNPRSTVX')}{rng.randrange(1000, 10000)}"
    item = rng.choice(list(goods))
    text = rng.choice(LETTERS).format(item=item, order=order)
    return Letter(text, order, f"Thank you for writing about your {item}. We will look at order {order}.")


def preference_row(one: Letter) -> dict[str, Any]:
    said = [("system", SYSTEM), ("user", one.text)]
    return {
        "input": {"messages": [{"role": role, "content": content} for role, content in said]},
        "preferred_output": [{"role": "assistant", "content": f"{one.reply} {SIGN_OFF}"}],
        "non_preferred_output": [{"role": "assistant", "content": one.reply}],
    }


def files(seed: int = 20261124) -> dict[str, str]:
    """The content of every file by its name. Pure."""
    rng = random.Random(seed)
    heldout = [letter(rng, UNSEEN) for _ in range(HELD_OUT)]
    return {
        "heldout.jsonl": lines({"item": {"letter": one.text, "order": one.order}} for one in heldout),
        "validation.jsonl": lines(preference_row(letter(rng, GOODS)) for _ in range(VALIDATION)),
        "train.jsonl": lines(preference_row(letter(rng, GOODS)) for _ in range(TRAIN)),
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
