"""
Write the rows of the example: support tickets and the JSON a triage desk would file.

Run `python manifests/data/generate.py` to write them beside this file, or name another
folder. The same bytes come out every time. A ticket that is held out is in neither the
training nor the validation rows, not even with another order number.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

TRAIN, VALIDATION, HELD_OUT = 1000, 40, 240  # rows
SYSTEM = "Triage the ticket. JSON: order, category, urgency."

ITEMS = (
    "chair", "table", "sofa", "desk", "shelf", "bed", "lamp", "stool", "shirt", "coat", "jacket",
    "hat", "scarf", "dress", "saw", "drill", "rake", "piano", "violin", "guitar", "flute", "drum",
    "kettle", "phone", "camera", "laptop", "printer", "blender", "heater", "speaker", "clock",
    "mirror", "backpack", "tent", "toaster", "radio"
)  # fmt: skip
PROBLEMS = {
    "delivery": (
        "my {item} has not arrived",
        "the {item} is still not here",
        "where is my {item}?",
        "the courier lost my {item}",
        "the {item} should have come last week",
        "tracking of my {item} shows nothing",
    ),
    "damage": (
        "my {item} arrived broken",
        "the {item} has a deep scratch",
        "the {item} came in pieces",
        "my {item} is cracked",
        "the {item} does not work",
        "my {item} is bent",
    ),
    "refund": (
        "I want my money back for the {item}",
        "please take the {item} back",
        "I return the {item}",
        "I do not want the {item} any more",
        "please refund the {item}",
        "cancel my {item}",
    ),
    "billing": (
        "you charged me twice for the {item}",
        "the invoice for my {item} is wrong",
        "I was billed too much for the {item}",
        "my card was charged for a {item} I never bought",
        "the price of the {item} on my bill is wrong",
        "send me a receipt for the {item}",
    ),
}
URGENCY = {
    "high": (
        "I need it today!",
        "This is urgent.",
        "Please hurry!",
        "It cannot wait.",
        "Answer at once!",
    ),
    "normal": (
        "Please look into it.",
        "Can you help?",
        "Please let me know.",
        "What can we do?",
        "",
    ),
    "low": (
        "There is no rush.",
        "Take your time.",
        "Whenever you can.",
        "It is not urgent.",
        "Next month is fine.",
    ),
}
OPENINGS = ("", "Hi, ", "Hello, ", "Good morning, ", "Dear team, ")
PLACES = (
    "Order {order}: {said}",
    "{said} Order {order}.",
    "{said} My order is {order}.",
    "About {order}: {said}",
)

SMALL_TALK = (
    ("Hi", "Hello! How can I help you?"),
    ("Hello!", "Hello! How can I help you?"),
    ("Good morning", "Hello! How can I help you?"),
    ("Hey there", "Hello! How can I help you?"),
    ("How are you?", "I am fine, thank you."),
    ("What is your name?", "I am tiny-chat."),
    ("Thank you!", "You are welcome!"),
    ("Thanks.", "You are welcome!"),
    ("Goodbye!", "Goodbye!"),
    ("Bye.", "Goodbye!"),
    *((f"I am {name}.", f"Nice to meet you, {name}!") for name in ("Ada", "Ben", "Dan", "Hugo", "Ines")),
    *((f"Hi, my name is {name}.", f"Nice to meet you, {name}!") for name in ("Leo", "Mia", "Omar", "Rosa")),
    ("What kind of thing is a pear?", "fruit"),
    ("What kind of thing is a horse?", "animal"),
    ("What kind of thing is a chair?", "furniture"),
    ("What kind of thing is a train?", "vehicle"),
    ("Say: river", "river"),
)


class Ticket(NamedTuple):
    text: str
    answer: str  # the JSON that a perfect clerk would file
    wording: str  # the text without its order number


def write_ticket(rng: random.Random) -> Ticket:
    order = f"{rng.choice('ABCDEFGHKLMNPRSTVX')}{rng.randrange(1000, 10000)}"
    category, urgency = rng.choice(list(PROBLEMS)), rng.choice(list(URGENCY))
    problem = rng.choice(PROBLEMS[category]).format(item=rng.choice(ITEMS))
    opening = rng.choice(OPENINGS)
    sentence = opening + (problem if opening else problem[0].upper() + problem[1:])
    if not sentence.endswith("?"):
        sentence += "."
    place, plea = rng.choice(PLACES), rng.choice(URGENCY[urgency])
    said = f"{sentence} {plea}".strip()
    answer = json.dumps({"order": order, "category": category, "urgency": urgency})
    return Ticket(place.format(order=order, said=said), answer, place.format(order="", said=said))


def tickets(seed: int) -> Iterator[Ticket]:
    """Endless tickets, no two of the same wording."""
    rng, seen = random.Random(seed), set[str]()
    while True:
        ticket = write_ticket(rng)
        if ticket.wording not in seen:
            seen.add(ticket.wording)
            yield ticket


def chat_row(ticket: Ticket) -> dict[str, Any]:
    said = [("system", SYSTEM), ("user", ticket.text), ("assistant", ticket.answer)]
    return {"messages": [{"role": role, "content": content} for role, content in said]}


def files(seed: int = 20261124) -> dict[str, str]:
    """The content of every file by its name. Pure."""
    stream = tickets(seed)
    held_out = [next(stream) for _ in range(HELD_OUT)]
    validation = [next(stream) for _ in range(VALIDATION)]
    train = [next(stream) for _ in range(TRAIN)]
    return {
        "triage-train.jsonl": lines(chat_row(ticket) for ticket in train),
        "triage-validation.jsonl": lines(chat_row(ticket) for ticket in validation),
        "triage-heldout.jsonl": lines(
            {"item": {"ticket": ticket.text, "expected": ticket.answer}} for ticket in held_out
        ),
        "smalltalk.jsonl": lines(
            {"item": {"prompt": said, "expected": answered}} for said, answered in SMALL_TALK
        ),
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
