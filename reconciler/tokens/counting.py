"""
Tokens of datasets: those trained on, and those of the questions an eval asks.

A count is kept in the data folder under the digests of all it rests on, so that a file is read once. A
look at a huge file that was never counted reads parts of it and says a range; an apply reads it whole.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from reconciler.tokens import tallies
from reconciler.tokens.messages import Message, Refused
from reconciler.tokens.tallies import Count, Rows
from reconciler.tokens.tokenizer import Tokenizer, folder_of, load

VERSION = 1  # of the way of counting
CHUNK = 1000  # rows tokenized together
WHOLE = 8 * 2**20  # bytes of a file that a look reads whole
SAMPLES, SAMPLE = 16, 2**16  # how many places of a larger one it reads, and bytes of each


class Source(NamedTuple):
    """A dataset on disk; `sha256` is of its bytes."""

    path: Path
    sha256: str
    bytes: int
    format: str
    rows: int


@dataclass(frozen=True)
class Counter:
    """Counts with the tokenizers of this machine. `whole` reads files of any size to their end."""

    data: Path  # the project's data folder; nothing is kept while there is none
    hubs: Sequence[Path] = ()
    whole: bool = False
    _loaded: dict[Path, Tokenizer | str] = field(default_factory=dict)

    def tokenizer(self, model: Mapping[str, Any], facts: Mapping[str, Any]) -> Tokenizer | str:
        """That of a Model, given as its spec and facts; or why there is none here."""
        folder = folder_of(model, facts, self.hubs)
        if folder is None:
            return f"the tokenizer of {model.get('id')} is not on this machine"
        if folder not in self._loaded:
            self._loaded[folder] = load(folder)
        return self._loaded[folder]

    def training(self, source: Source, tokenizer: Tokenizer | str) -> Count:
        """What one epoch trains on; of reinforcement, its prompts."""
        if source.format == "reinforcement":
            return self.asking(source, tokenizer, None)
        exact = tallies.pairs if source.format == "preference" else tallies.examples
        return self._count(source, tokenizer, ["training", source.format], exact, tallies.trained_by_bytes)

    def asking(
        self, source: Source, tokenizer: Tokenizer | str, asked: Sequence[Message] | str | None
    ) -> Count:
        """
        A question to every row: `asked` as messages with holes, as the path of an item's messages, or None
        where a row holds its messages itself.
        """

        def tally(rows: Rows, with_: Tokenizer | str) -> Count:
            return tallies.questions(rows, with_, asked)

        return self._count(source, tokenizer, ["asking", asked], tally, tally)

    def _count(
        self,
        source: Source,
        tokenizer: Tokenizer | str,
        what: Any,
        exact: Callable[[Rows, Tokenizer], Count],
        rough: Callable[[Rows, str], Count],
    ) -> Count:
        why = tokenizer if isinstance(tokenizer, str) else ""
        key = [VERSION, source.sha256, why or tokenizer.digest, what]  # type: ignore[union-attr]  # or why
        place = self.data / "tokens" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"
        with suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(place.read_bytes(), type=Count)

        def tally(rows: Rows) -> Count:
            return rough(rows, tokenizer) if isinstance(tokenizer, str) else exact(rows, tokenizer)

        try:
            if source.bytes > WHOLE and not self.whole:
                return _sampled(source, tally)
            counted = tallies.added(map(tally, _chunks(source.path)))
        except Refused as refused:
            said = f"the model's chat template refuses a row ({refused})"
            counted = tallies.added(rough(rows, said) for rows in _chunks(source.path))
        self._keep(place, counted)
        return counted

    def _keep(self, place: Path, counted: Count) -> None:
        if not self.data.is_dir():
            return
        with suppress(OSError):  # a full disk costs the next look some time, and nothing else
            place.parent.mkdir(exist_ok=True)
            temporary = place.with_suffix(f".{os.getpid()}")
            temporary.write_bytes(msgspec.json.encode(counted))
            temporary.replace(place)


def _chunks(path: Path) -> Iterator[Rows]:
    with path.open("rb") as lines:
        rows = (msgspec.json.decode(line) for line in lines if line.strip())
        while chunk := list(islice(rows, CHUNK)):
            yield chunk


def _sampled(source: Source, tally: Callable[[Rows], Count]) -> Count:
    """From evenly spaced places: the least and the most tokens a byte found there, for all bytes."""
    rates = []
    with source.path.open("rb") as file:
        for place in range(SAMPLES):
            start = place * (source.bytes - SAMPLE) // (SAMPLES - 1)
            file.seek(start)
            text = file.read(SAMPLE)
            lines = text.split(b"\n")[1 if start else 0 : -1]  # whole ones
            if rows := [msgspec.json.decode(line) for line in lines if line.strip()]:
                rates.append((tally(rows), sum(map(len, lines)) + len(lines)))
    if not rates:
        return Count(
            0, source.bytes, source.rows, "rows too long to look at parts of the file; apply counts them"
        )
    low = min(count.low / size for count, size in rates)
    high = max(count.high / size for count, size in rates)
    how = f"from {len(rates)} places of a file of {source.bytes >> 20} MiB; apply counts it whole"
    whys = dict.fromkeys(filter(None, [rates[0][0].how, how]))
    return Count(int(low * source.bytes), int(high * source.bytes) + 1, source.rows, "; ".join(whys))
