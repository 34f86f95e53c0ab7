"""
The model thread: takes calls from the queue and brings all running batches forward, one token each in turn.

`stream` calls for one model share a batch, whoever makes them. A `generate` call is a unit of its own: its
rows meet no others, so the same list gives the same answers whatever else goes on. One unit runs at a time.
"""

from __future__ import annotations

import logging
import queue
from collections import deque
from collections.abc import Callable, Sequence

import torch
from transformers.utils import logging as transformers_logging

from reconciler.selfhosted.engine import wire
from reconciler.selfhosted.engine.batch import Batch
from reconciler.selfhosted.engine.embedding import Embedder
from reconciler.selfhosted.engine.front import Command, Key, Message
from reconciler.selfhosted.engine.row import Row
from reconciler.selfhosted.engine.shelf import Shelf
from reconciler.selfhosted.engine.values import Answer, Ask, EngineError

log = logging.getLogger(__name__)

READY_ROWS = 64  # rows of a unit that are prepared ahead of their turn


class Unit:
    """One `generate` call: what it asked, how far it is, and the batches (one per model) that work on it."""

    def __init__(self, key: Key, asks: Sequence[Ask]) -> None:
        self.key = key
        self.asks = asks
        self.outcomes: list[wire.Outcome | None] = [None] * len(asks)
        self.batches: dict[str, Batch] = {}
        self.refused: dict[str, EngineError] = {}  # models that cannot be loaded
        self.next = 0

    @property
    def hungry(self) -> bool:
        waiting = sum(len(batch.waiting) for batch in self.batches.values())
        return self.next < len(self.asks) and waiting < READY_ROWS

    @property
    def done(self) -> bool:
        return self.next == len(self.asks) and not any(self.batches.values())


class Scheduler:
    def __init__(
        self,
        inbox: queue.SimpleQueue[Command],
        post: Callable[[Sequence[Message]], None],
        *,
        threads: int | None,
        memory: int,
    ) -> None:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        if threads:
            torch.set_num_threads(threads)
        self._inbox = inbox
        self._post = post
        self._shelf = Shelf(memory)
        self._shared: dict[str, Batch] = {}
        self._units: deque[Unit] = deque()
        self._embedders: deque[Embedder] = deque()
        self._out: list[Message] = []

    def run(self) -> None:
        """Work until the process ends."""
        with torch.inference_mode():
            while True:
                self._listen()
                self._forward_shared()
                self._forward_unit()
                self._forward_embedder()
                if self._out:
                    self._post(self._out)
                    self._out = []

    def _listen(self) -> None:
        """Take all commands there are; wait for one when there is nothing else to do."""
        idle = not self._shared and not self._units and not self._embedders
        try:
            while True:
                self._obey(self._inbox.get(block=idle))
                idle = False
        except queue.Empty:
            return

    def _obey(self, command: Command) -> None:
        key, request = command
        try:
            match request:
                case None:
                    self._cancel(lambda other: other.connection == key.connection)
                case wire.Cancel():
                    self._cancel(lambda other: other == key)
                case wire.Load(model=model):
                    self._shelf.get(model, self._busy())
                    self._say(key, wire.Done(key.call))
                case wire.Stream(ask=ask):
                    self._join(key, ask)
                case wire.Generate(asks=asks):
                    self._units.append(Unit(key, asks))
                case wire.Embed(model=model, texts=texts):
                    served = self._shelf.get(model, self._busy())
                    self._embedders.append(Embedder(key, model, served, texts))
        except EngineError as error:
            self._say(key, wire.Failed(key.call, _failure(error)))

    def _join(self, key: Key, ask: Ask) -> None:
        served = self._shelf.get(ask.model, self._busy())
        row = Row(key, 0, ask, served)
        self._shared.setdefault(ask.model, Batch(served)).add([row])

    def _cancel(self, gone: Callable[[Key], bool]) -> None:
        for batch in self._shared.values():
            batch.cancel(gone)
        self._shared = {model: batch for model, batch in self._shared.items() if batch}
        self._units = deque(unit for unit in self._units if not gone(unit.key))
        self._embedders = deque(one for one in self._embedders if not gone(one.key))

    def _busy(self) -> set[str]:
        """Models that something is running on."""
        generating = set(self._shared) | {model for unit in self._units for model in unit.batches}
        return generating | {one.model for one in self._embedders}

    def _forward_shared(self) -> None:
        for model, batch in list(self._shared.items()):
            for row in _step(batch):
                if delta := row.delta():
                    self._say(row.key, wire.Delta(row.key.call, delta))
                if row.failure:
                    self._say(row.key, wire.Failed(row.key.call, _failure(row.failure)))
                elif row.finish:
                    self._say(row.key, wire.Done(row.key.call, [_outcome(row.answer())]))
            if not batch:
                del self._shared[model]

    def _forward_unit(self) -> None:
        if not self._units:
            return
        unit = self._units[0]
        while unit.hungry:
            self._feed(unit)
        for batch in unit.batches.values():
            for row in _step(batch) if batch else ():
                if row.done:
                    unit.outcomes[row.place] = _outcome(row.failure or row.answer())
        if unit.done:
            self._units.popleft()
            self._say(unit.key, wire.Done(unit.key.call, [outcome for outcome in unit.outcomes if outcome]))

    def _forward_embedder(self) -> None:
        if not self._embedders:
            return
        one = self._embedders[0]
        try:
            one.step()
        # whatever a model's forward pass raises, memory included, it ends this call and not the engine
        except Exception as error:
            log.exception("embedding.failed")
            self._embedders.popleft()
            failure = EngineError(
                "engine_failed", f"the embedding failed in the model: {type(error).__name__}"
            )
            self._say(one.key, wire.Failed(one.key.call, _failure(failure)))
            return
        if not one:
            self._embedders.popleft()
            self._say(one.key, wire.Done(one.key.call, embeddings=one.done))

    def _feed(self, unit: Unit) -> None:
        """Make a row of the unit's next ask."""
        place = unit.next
        ask = unit.asks[place]
        unit.next += 1
        try:
            if ask.model in unit.refused:
                raise unit.refused[ask.model]
            if ask.model not in unit.batches:
                try:
                    unit.batches[ask.model] = Batch(self._shelf.get(ask.model, self._busy()))
                except EngineError as error:
                    unit.refused[ask.model] = error
                    raise
            batch = unit.batches[ask.model]
            batch.add([Row(unit.key, place, ask, batch.served)])
        except EngineError as error:
            unit.outcomes[place] = _outcome(error)

    def _say(self, key: Key, reply: wire.Reply) -> None:
        self._out.append(Message(key, reply))


def _step(batch: Batch) -> list[Row]:
    """The rows that a step of `batch` moved; when the step breaks, all its rows, failed."""
    try:
        return batch.step()
    # whatever a model's forward pass raises, memory included, it ends these rows and not the engine
    except Exception as error:
        log.exception("batch.failed")
        rows = [*batch.rows, *batch.waiting]
        for row in rows:
            row.failure = EngineError(
                "engine_failed", f"the generation failed in the model: {type(error).__name__}"
            )
        batch.clear()
        return rows


def _outcome(result: Answer | EngineError) -> wire.Outcome:
    if isinstance(result, EngineError):
        return wire.Outcome(failure=_failure(result))
    return wire.Outcome(answer=result)


def _failure(error: EngineError) -> wire.Failure:
    return wire.Failure(error.code, error.message)
