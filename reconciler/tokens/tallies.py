"""
What a few rows come to, in tokens: with a tokenizer exactly as the trainer counts, without one a range
from the bytes of their text.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from reconciler.tokens.messages import Message, filled, pictures_of, text_of

if TYPE_CHECKING:
    from reconciler.tokens.tokenizer import Tokenizer

BYTES = (6, 2)  # of text to one token: the most, as in plain English, and the least
AROUND = (3, 8)  # tokens that a template puts around a message
PICTURE = (85, 1105)  # tokens of one
PREFERRED = ("preferred_output", "preferred_completion")
NOT_PREFERRED = ("non_preferred_output", "non_preferred_completion")

Rows = Sequence[Mapping[str, Any]]


class Count(NamedTuple):
    """Between `low` and `high` tokens in `examples` examples; `how` says why it is a range, or nothing."""

    low: int
    high: int
    examples: int
    how: str = ""


def added(counts: Iterable[Count]) -> Count:
    """All together."""
    all_ = list(counts)
    how = "; ".join(dict.fromkeys(filter(None, (each.how for each in all_))))
    return Count(
        sum(each.low for each in all_),
        sum(each.high for each in all_),
        sum(each.examples for each in all_),
        how,
    )


def examples(rows: Rows, tokenizer: "Tokenizer") -> Count:
    """What chat rows train on in an epoch. Raises Refused."""
    found = [each for row in rows for each in tokenizer.template.examples(row)]
    lengths = tokenizer.lengths([each.text for each in found])
    doubtful = [
        i for i, each in enumerate(found)
        if lengths[i] > tokenizer.longest or not any(first < last for first, last in each.spans)
    ]  # fmt: skip
    silent = 0  # cut before anything to learn came, or without anything to learn
    for i, (*learned, _) in zip(doubtful, tokenizer.learned([found[i] for i in doubtful]), strict=True):
        sees_too_much = tokenizer.template.picture and tokenizer.template.picture in found[i].text
        cut = [at for at in learned if 1 <= at < tokenizer.longest]
        lengths[i] = 0 if not cut or (sees_too_much and lengths[i] > tokenizer.longest) else lengths[i]
        silent += lengths[i] == 0
    total = sum(min(length, tokenizer.longest) for length in lengths)
    return Count(total, total, len(found) - silent)


def pairs(rows: Rows, tokenizer: "Tokenizer") -> Count:
    """What preference rows train on in an epoch: both answers, each behind its prompt. Raises Refused."""
    total = left_out = 0
    for sides in zip(*(tokenizer.learned([_side(row, names, tokenizer) for row in rows])
                       for names in (PREFERRED, NOT_PREFERRED)), strict=True):  # fmt: skip
        ends = [learned[-1] + 1 if learned else length for *learned, length in sides]
        begins = [learned[0] if learned else length for *learned, length in sides]
        if min(begins) >= tokenizer.longest or any(map(int.__ge__, begins, ends)):
            left_out += 1
            continue
        total += sum(min(end, tokenizer.longest) for end in ends)
    return Count(total, total, len(rows) - left_out)


def _side(row: Mapping[str, Any], names: Sequence[str], tokenizer: "Tokenizer") -> Any:
    prompt = [{**m, "weight": 0} if m["role"] == "assistant" else m for m in row["input"]["messages"]]
    answer = {**_one_of(row, names)[0], "weight": 1}
    return tokenizer.template.examples({**row["input"], "messages": [*prompt, answer]})[0]


def _one_of(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name)), [])


def questions(rows: Rows, tokenizer: "Tokenizer | str", asked: Sequence[Message] | str | None) -> Count:
    """What a model reads that is asked once for every row. Raises Refused."""
    said = [filled(asked, row) for row in rows]
    if isinstance(tokenizer, str):
        return added([*(by_bytes(messages) for messages in said), Count(0, 0, 0, tokenizer)])
    total = sum(tokenizer.lengths([tokenizer.template.prompt(messages) for messages in said]))
    return Count(total, total, len(said))


def trained_by_bytes(rows: Rows, why: str) -> Count:
    """What rows of any training format come to where no tokenizer is at hand."""
    counts = []
    for row in rows:
        if "input" in row:
            prompt = row["input"].get("messages") or ()
            answers = [_one_of(row, names) for names in (PREFERRED, NOT_PREFERRED)]
            both = added([by_bytes(prompt), *map(by_bytes, answers)])
            counts.append(Count(both.low, both.high + by_bytes(prompt).high, 1))
        else:
            counts.append(by_bytes(row.get("messages") or (), row.get("tools") or row.get("functions") or ()))
    return added([*counts, Count(0, 0, 0, why)])


def by_bytes(messages: Sequence[Message], tools: Sequence[Any] = ()) -> Count:
    """One conversation."""
    size = sum(len(str(tool).encode()) for tool in tools) + sum(
        len(text_of(m.get("content")).encode())
        + sum(len(str(call).encode()) for call in m.get("tool_calls") or ())
        for m in messages
    )
    shown = pictures_of(messages)
    low, high = (size // BYTES[i] + len(messages) * AROUND[i] + shown * PICTURE[i] for i in (0, 1))
    return Count(low, high, 1)
