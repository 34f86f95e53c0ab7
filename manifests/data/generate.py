"""
Write the rows of the example: support tickets and the JSON a triage desk would file, and
the small talk that the base model must not forget over them.

Run `python manifests/data/generate.py` to write them beside this file, or name another
folder. The same bytes come out every time. What is held out is in neither the training nor
the validation rows: a ticket not even with another order number, a word of small talk not
even with another full stop.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.selfhosted.tiny import corpus

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

# Of each kind of small talk, so many to measure and so many to rehearse: what is only measured is forgotten.
SMALL_TALK: dict[Callable[[random.Random], corpus.Turn], tuple[int, int]] = {
    corpus.greet: (3, 4),
    corpus.courtesy: (4, 5),
    corpus.introduce: (33, 101),
    corpus.kind_of_thing: (30, 130),
    corpus.sentiment: (30, 100),
    corpus.about: (20, 60),
}
TURNS = 4  # in one row of rehearsal


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


def small_talk(seed: int) -> tuple[list[corpus.Turn], list[corpus.Turn]]:
    """What is said and answered to measure, and to rehearse; no two of the same wording."""
    rng, seen = random.Random(seed), set[str]()
    held_out: list[corpus.Turn] = []
    rehearsed: list[corpus.Turn] = []
    for task, (measured, trained) in SMALL_TALK.items():
        turns: list[corpus.Turn] = []
        while len(turns) < measured + trained:
            turn = task(rng)
            if wording(turn[0]) not in seen:
                seen.add(wording(turn[0]))
                turns.append(turn)
        held_out += turns[:measured]
        rehearsed += turns[measured:]
    rng.shuffle(rehearsed)
    return held_out, rehearsed


def wording(said: str) -> str:
    """The words alone. Pure."""
    return " ".join("".join(letter if letter.isalpha() else " " for letter in said.lower()).split())


def chat_row(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def talk_rows(turns: Sequence[corpus.Turn]) -> Iterator[dict[str, Any]]:
    """Several turns a row, which costs a trainer little more than one."""
    for at in range(0, len(turns), TURNS):
        said = turns[at : at + TURNS]
        yield chat_row(
            *(pair for asked, answered in said for pair in (("user", asked), ("assistant", answered)))
        )


def ticket_row(ticket: Ticket) -> dict[str, Any]:
    return chat_row(("system", SYSTEM), ("user", ticket.text), ("assistant", ticket.answer))


def files(seed: int = 20261124) -> dict[str, str]:
    """The content of every file by its name. Pure."""
    stream = tickets(seed)
    held_out = [next(stream) for _ in range(HELD_OUT)]
    validation = [next(stream) for _ in range(VALIDATION)]
    train = [next(stream) for _ in range(TRAIN)]
    talk, rehearsed = small_talk(seed)
    return {
        "triage-train.jsonl": lines(
            [
                *(ticket_row(ticket) for ticket in train),
                *talk_rows(rehearsed),
            ]
        ),
        "triage-validation.jsonl": lines(ticket_row(ticket) for ticket in validation),
        "triage-heldout.jsonl": lines(
            {"item": {"ticket": ticket.text, "expected": ticket.answer}} for ticket in held_out
        ),
        "smalltalk.jsonl": lines({"item": {"prompt": said, "expected": answered}} for said, answered in talk),
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
