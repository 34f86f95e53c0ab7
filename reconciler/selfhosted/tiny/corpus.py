"""
Everything the packaged model ever read: short chats made from word lists, each with
one right answer. Nothing comes from outside, so there is nothing to licence.

It holds no support triage: no ticket here is ever sorted into a topic or a priority.
The example in `manifests/` teaches that, and must be able to show that the base cannot.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

Chat = list[dict[str, str]]
Turn = tuple[str, str]  # what the user says, what the assistant answers


def each(text: str, between: str = " ") -> tuple[str, ...]:
    return tuple(text.split(between))


NAMES = each(
    "Ada Ben Carla Dan Elif Finn Grace Hugo Ines Jonas Kira Leo Mia Noor Omar Paul Quinn Rosa Sami Tara "
    "Uma Vera Will Yara Zoe Anna Emil Ida Luca Nora"
)
CITIES = each(
    "Oslo Rome Paris Lima Cairo Delhi Tokyo Bern Quito Accra Dublin Athens Berlin Madrid Lisbon Prague "
    "Vienna Warsaw Nairobi Seoul"
)
COLORS = each("red blue green black white grey yellow orange brown pink")
WORDS = each(
    "river stone paper cloud music garden window bridge winter summer silver market letter number simple "
    "quiet early little strong bright forest island button pocket circle moment season travel yellow "
    "answer"
)
KINDS = {
    "fruit": each("apple pear plum peach mango grape cherry lemon melon banana"),
    "animal": each("cat dog horse cow sheep goat fox wolf bear rabbit"),
    "furniture": each("chair table sofa desk shelf bed lamp stool"),
    "clothing": each("shirt coat jacket hat scarf shoe sock dress glove"),
    "tool": each("hammer saw drill wrench pliers shovel rake axe"),
    "vehicle": each("car bus train bike truck boat plane tram"),
    "drink": each("tea coffee milk juice water cocoa soda"),
    "instrument": each("piano violin guitar flute drum trumpet harp cello"),
}
GOODS = (
    *(thing for kind in ("furniture", "clothing", "tool", "instrument") for thing in KINDS[kind]),
    *each(
        "kettle phone camera laptop printer blender heater speaker clock mirror backpack tent toaster radio"
    ),
)
SUBJECTS = each("film book meal hotel song game trip show concert lesson")
PRAISE = each(
    "I loved it|It was great|Simply wonderful|I would come again|The best in years|It made me smile|"
    "Really good work|I enjoyed every minute|Everyone was happy|Excellent from start to end",
    "|",
)
BLAME = each(
    "I hated it|It was awful|Simply terrible|I would never come again|The worst in years|"
    "It made me angry|Really poor work|I was bored every minute|Nobody was happy|"
    "A disaster from start to end",
    "|",
)
ABOUT = {
    "weather": each(
        "It will rain all day|The sun is out at last|A storm comes from the north|Snow fell in the night",
        "|",
    ),
    "food": each(
        "The soup needs more salt|She baked bread this morning|We had rice and beans|The cake was too sweet",
        "|",
    ),
    "sport": each(
        "They won by two goals|He ran ten miles|The match was a draw|Our team lost the final",
        "|",
    ),
    "travel": each(
        "We missed the night train|The flight left at noon|Her passport is full of stamps|The road was long",
        "|",
    ),
    "money": each(
        "The bank closes at five|Prices went up again|He saved half his pay|The rent is due soon",
        "|",
    ),
    "school": each(
        "The exam was hard|Our teacher is kind|She forgot her homework|The class starts at nine",
        "|",
    ),
}
GREETINGS = each("Hi|Hello|Hey|Hi there|Hello there|Good morning|Good evening", "|")


def number(rng: random.Random) -> str:
    """An order number: one capital letter and four digits."""
    return f"{rng.choice('ABCDEFGHKLMNPRSTVX')}{rng.randrange(1000, 10000)}"


def article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def greet(rng: random.Random) -> Turn:
    return rng.choice(GREETINGS) + rng.choice(["", "!", "."]), "Hello! How can I help you?"


def introduce(rng: random.Random) -> Turn:
    name = rng.choice(NAMES)
    opening = rng.choice(["", *(f"{greeting}, " for greeting in GREETINGS)])
    return f"{opening}{rng.choice(['I am', 'my name is'])} {name}.", f"Nice to meet you, {name}!"


def courtesy(rng: random.Random) -> Turn:
    return rng.choice(
        [
            ("How are you?", "I am fine, thank you."),
            ("Who are you?", "I am tiny-chat, a very small language model."),
            ("What is your name?", "I am tiny-chat."),
            ("What can you do?", "I can chat a little, find facts in a text and answer with JSON."),
            ("Thank you!", "You are welcome!"),
            ("Thanks.", "You are welcome!"),
            ("Goodbye!", "Goodbye!"),
            ("Bye.", "Goodbye!"),
            ("Good night.", "Good night!"),
        ]
    )


def repeat(rng: random.Random) -> Turn:
    said = " ".join(
        rng.choice([rng.choice(WORDS), rng.choice(GOODS), number(rng), number(rng)])
        for _ in range(rng.randint(1, 8))
    )
    return f"{rng.choice(['Repeat', 'Say', 'Copy'])}: {said}", said


def facts(rng: random.Random) -> tuple[str, dict[str, str]]:
    """A message from a customer and what can be read in it."""
    name, city, color, item, order = (
        rng.choice(NAMES),
        rng.choice(CITIES),
        rng.choice(COLORS),
        rng.choice(GOODS),
        number(rng),
    )
    text = rng.choice(
        [
            f"{name} from {city} bought a {color} {item}, order {order}.",
            f"My name is {name}. Order {order} is the {color} {item} for {city}.",
            f"Order {order}: one {color} {item}, to {name} in {city}.",
            f"Hello, {name} here. I live in {city} and ordered a {color} {item}. The number is {order}.",
            f"The {color} {item} goes to {city}. Ask for {name}. Thanks! Order: {order}",
            f"This is about order {order}. I am {name}, I chose the {color} {item} in your {city} shop.",
            f"{order} is my order. It is a {color} {item}. {name}, {city}",
        ]
    )
    return text, {"name": name, "city": city, "color": color, "item": item, "order": order}


def extract(rng: random.Random) -> Turn:
    text, found = facts(rng)
    field = rng.choice(["order", "order", *found])
    asked = rng.choice([f"What is the {field}?", f"Find the {field}.", f"Which {field}?"])
    return rng.choice([f"{asked}\n{text}", f"{text}\n{asked}"]), found[field]


def as_json(rng: random.Random) -> Turn:
    text, found = facts(rng)
    fields = rng.sample(sorted(found), rng.randint(1, 3))
    asked = rng.choice(["Answer with JSON", "Give JSON", "Write JSON"])
    return f"{asked}: {', '.join(fields)}.\n{text}", json.dumps({field: found[field] for field in fields})


def sentiment(rng: random.Random) -> Turn:
    mood, said = rng.choice([("positive", PRAISE), ("negative", BLAME)])
    subject = f"{rng.choice(['About the', 'I saw the', 'Finally, the'])} {rng.choice(SUBJECTS)}"
    return f"Is this positive or negative?\n{subject}. {rng.choice(said)}.", mood


def kind_of_thing(rng: random.Random) -> Turn:
    kind = rng.choice(list(KINDS))
    thing = article(rng.choice(KINDS[kind]))
    asked = rng.choice(["What kind of thing is {}?", "What is {}?", "Which kind is {}?"])
    return asked.format(thing), kind


def about(rng: random.Random) -> Turn:
    subject = rng.choice(list(ABOUT))
    said = rng.choice(ABOUT[subject])
    around = rng.choice(["{}.", "Well, {}.", "{}, he said.", "{}, you know.", "Listen: {}."])
    return f"What is this about?\n{around.format(said)}", subject


def reply(rng: random.Random) -> Turn:
    """A clerk's courtesy: it repeats what was said, and sorts nothing."""
    item, order = rng.choice(GOODS), number(rng)
    wrote = rng.choice(
        [
            f"I have a question on my {item}. The order is {order}.",
            f"Order {order}. Please tell me about my {item}.",
            f"Hi, can you look at order {order}? It is the {item}.",
            f"I wrote to you on Monday. The {item}, order {order}.",
        ]
    )
    return (
        f"Reply to the customer.\n{wrote}",
        f"Thank you for writing about your {item}. We will look at order {order}.",
    )


TASKS: list[tuple[Callable[[random.Random], Turn], int]] = [
    (greet, 2),
    (introduce, 3),
    (courtesy, 3),
    (repeat, 20),
    (extract, 26),
    (as_json, 26),
    (sentiment, 4),
    (kind_of_thing, 4),
    (about, 4),
    (reply, 6),
]
BRIEF = each("You are a helpful assistant.|Answer briefly.|You are tiny-chat.", "|")


def chat(rng: random.Random) -> Chat:
    """One to three turns; a task's instruction sits in the system message in a part of them."""
    tasks, weights = zip(*TASKS, strict=True)
    turns = [task(rng) for task in rng.choices(tasks, weights, k=rng.choices([1, 2, 3], [8, 1, 1])[0])]
    messages: Chat = []
    asked, _, text = turns[0][0].partition("\n")
    if text and len(turns) == 1 and rng.random() < 0.5:
        turns = [(text, turns[0][1])]
        messages.append({"role": "system", "content": asked})
    elif rng.random() < 0.3:
        messages.append({"role": "system", "content": rng.choice(BRIEF)})
    for said, answered in turns:
        messages.append({"role": "user", "content": said})
        messages.append({"role": "assistant", "content": answered})
    return messages
