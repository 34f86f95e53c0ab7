"""
How many requests one upstream has in flight: as many as it takes well.

It begins with 20. Until the first trouble every answer makes room for four more. Models take long to answer,
and whoever refuses does so at once: so before the first answer, a silence that is longer than a refusal takes
speaks for as much room as an answer to everything in flight would. (A thousand questions to an upstream that
takes 128 at once cost a third more than with all of that room from the start; with the silence, an eighth.)
Each trouble halves the room; afterwards it grows by one with each round trip. What was sent before a halving
does not halve again: one burst of refusals is one trouble.
"""

from __future__ import annotations

import asyncio
from collections import deque

START = 20
GROWTH = 4  # for each answer, until the first trouble
QUIET = 0.05  # seconds in which a refusal would have come, where connecting took no longer


class Pace:
    """The turns of one upstream. Whoever enters must leave."""

    def __init__(self, most: int, quiet: float = QUIET) -> None:
        self._most, self._quiet = most, quiet
        self._heard = False  # an answer or a trouble
        self._clock: asyncio.TimerHandle | None = None  # runs while a silence is listened to
        self._room = float(min(START, most))
        self._in_flight = 0
        self._troubles = 0
        self._open_at = 0.0  # the loop's time before which nothing is sent
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def room(self) -> int:
        return int(self._room)

    def connected(self, took: float) -> None:
        """A connection was made in so many seconds; what is sent over it may be refused from now on."""
        self._quiet = max(self._quiet, took)
        if self._clock is None and not self._heard:
            self._clock = asyncio.get_running_loop().call_later(self._quiet, self._was_silent)

    async def enter(self) -> int:
        """Wait for a turn; give the number that comes back to the method by which you leave."""
        if self._waiting or not self._is_open():
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # the turn came together with the cancel: pass it on
                    self.leave()
                raise
        else:
            self._in_flight += 1
        return self._troubles

    def leave(self) -> None:
        """Leave without having learned anything."""
        self._in_flight -= 1
        self._admit()

    def leave_well(self) -> None:
        """Leave with an answer."""
        self._heard = True
        if self._waiting or self._in_flight >= self.room:  # room that nobody needed proves nothing
            self._room = min(self._most, self._room + (1 / self._room if self._troubles else GROWTH))
        self.leave()

    def leave_in_trouble(self, entered: int, pause: float = 0) -> None:
        """Leave refused or unanswered; nothing is sent for `pause` seconds."""
        self._heard = True
        if entered == self._troubles:
            self._room = max(1.0, self._room / 2)
            self._troubles += 1
        if pause:
            loop = asyncio.get_running_loop()
            self._open_at = max(self._open_at, loop.time() + pause)
            loop.call_at(self._open_at, self._admit)
        self.leave()

    def _was_silent(self) -> None:
        self._clock = None
        if self._heard or not self._waiting:
            return
        self._room = min(self._most, self._room + GROWTH * self._in_flight)
        self._admit()
        self._clock = asyncio.get_running_loop().call_later(self._quiet, self._was_silent)

    def _is_open(self) -> bool:
        return self._in_flight < self.room and asyncio.get_running_loop().time() >= self._open_at

    def _admit(self) -> None:
        while self._waiting and self._is_open():
            turn = self._waiting.popleft()
            if not turn.done():  # or whoever waited has gone
                self._in_flight += 1
                turn.set_result(None)
