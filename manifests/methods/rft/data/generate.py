"""
Write the rows of the example: letters, and the team that each one belongs to.

The first job learns from a file in which half of the labels are wrong, so it is right only sometimes; the
second one learns from rewards alone. Run `python manifests/methods/rft/data/generate.py` to write the rows
beside this file, or name another folder. The same bytes come out every time, and no letter is in two files.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

NOISY, TRAIN, VALIDATION, HELD_OUT = 160, 256, 32, 150  # rows
WRONG = 0.5  # share of wrong labels in the noisy file
SYSTEM = "Which team? JSON: team."
GOODS = (
    "chair", "table", "sofa", "desk", "shelf", "bed", "lamp", "stool", "shirt", "coat", "jacket", "hat",
    "scarf", "dress", "saw", "drill", "rake", "piano", "violin", "guitar", "flute", "drum", "kettle", "phone",
    "camera", "laptop", "printer", "blender", "heater", "speaker", "clock", "mirror", "tent", "radio",
)  # fmt: skip
TEAMS = {
    "delivery": ("My {item} has not arrived", "Where is my {item}?", "The courier lost my {item}"),
    "repair": ("My {item} arrived broken", "The {item} does not work", "The {item} has a deep scratch"),
    "billing": ("You charged me twice for the {item}", "The price of the {item} is wrong",
                "Send me a receipt for the {item}"),
}  # fmt: skip


class Letter(NamedTuple):
    text: str
    team: str


def letters(rng: random.Random) -> Iterator[Letter]:
    """Endless letters, no two of the same text."""
    seen = set[str]()
    while True:
        team = rng.choice(list(TEAMS))
        said = rng.choice(TEAMS[team]).format(item=rng.choice(GOODS))
        order = f"{rng.choice('ABCDEFGHKLMNPRSTVX')}{rng.randrange(1000, 10000)}"
        text = f"{said} Order {order}." if said.endswith("?") else f"{said}. Order {order}."
        if text not in seen:
            seen.add(text)
            yield Letter(text, team)


def prompt(letter: Letter) -> list[dict[str, str]]:
    return [{"role": "developer", "content": SYSTEM}, {"role": "user", "content": letter.text}]


def noisy_row(letter: Letter, rng: random.Random) -> dict[str, Any]:
    wrong = rng.choice([team for team in TEAMS if team != letter.team])
    answer = json.dumps({"team": wrong if rng.random() < WRONG else letter.team})
    return {"messages": [*prompt(letter), {"role": "assistant", "content": answer}]}


def graded_row(letter: Letter) -> dict[str, Any]:
    return {"messages": prompt(letter), "team": letter.team}


def files(seed: int = 20261124) -> dict[str, str]:
    """The content of every file by its name. Pure."""
    rng = random.Random(seed)
    stream = letters(rng)
    heldout = [next(stream) for _ in range(HELD_OUT)]
    return {
        "heldout.jsonl": lines({"item": {"letter": one.text, "team": one.team}} for one in heldout),
        "noisy.jsonl": lines(noisy_row(next(stream), rng) for _ in range(NOISY)),
        "validation.jsonl": lines(graded_row(next(stream)) for _ in range(VALIDATION)),
        "train.jsonl": lines(graded_row(next(stream)) for _ in range(TRAIN)),
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
