"""
Rows of one model that go forward together; they join when there is room and leave when they are done.

Joining waits until it is worth a pass of its own, or for a few steps at most. What a batch does follows
from what was added to it and when; a batch that gets all its rows at the start repeats exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from reconciler.selfhosted.engine.front import Key
from reconciler.selfhosted.engine.network import Served
from reconciler.selfhosted.engine.row import Row
from reconciler.selfhosted.engine.sampling import choose

MOST_ROWS = 128
CACHE = 2 << 30  # bytes of keys and values that rows may be expected to need
PREFILL = 8192  # padded prompt tokens per pass; running rows wait for it
PATIENCE = 4  # steps that a few rows wait for more to join with
EXPECTED_ANSWER = 256  # tokens; a limit is rarely reached


class Batch:
    def __init__(self, served: Served) -> None:
        self.served = served
        self.rows: list[Row] = []
        self.waiting: deque[Row] = deque()
        self._slots = served.slots()
        self._waited = 0

    def __bool__(self) -> bool:
        return bool(self.rows or self.waiting)

    def add(self, rows: Iterable[Row]) -> None:
        self.waiting.extend(rows)

    def cancel(self, gone: Callable[[Key], bool]) -> None:
        """Take the rows of calls that are `gone` out, wherever they are."""
        self.waiting = deque(row for row in self.waiting if not gone(row.key))
        for i in reversed(range(len(self.rows))):
            if gone(self.rows[i].key):
                self._leave(i)

    def clear(self) -> None:
        """Forget all rows, and the cache with them."""
        self.rows, self.waiting = [], deque()
        self._slots = self.served.slots()

    def step(self) -> list[Row]:
        """Bring every row one token forward; the rows that moved, done ones included, for the last time."""
        self._join()
        logits = self.served.step([row.next_input for row in self.rows], self._slots)
        allowed = logits
        if any(row.shaped for row in self.rows):
            allowed = logits.clone()
            for row, mine in zip(self.rows, allowed, strict=True):
                row.shape(mine)
        tokens = choose(allowed, [row.sampling for row in self.rows])
        moved = list(self.rows)
        for row, token, mine in zip(moved, tokens, logits, strict=True):
            row.take(token, mine)
        for i in reversed(range(len(self.rows))):
            if self.rows[i].done:
                self._leave(i)
        return moved

    def _leave(self, i: int) -> None:
        self._slots.leave(i)
        self.rows[i] = self.rows[-1]
        self.rows.pop()

    def _join(self) -> None:
        group = self._group()
        if not group:
            self._waited = 0
            return
        self._waited += 1
        if len(group) * 4 < len(self.rows) and self._waited <= PATIENCE:
            return
        self._waited = 0
        while group:
            self.served.prefill(
                [row.prompt for row in group],
                self._slots,
                [row.pixels for row in group if row.pixels is not None],
            )
            for row in group:
                self.rows.append(row)
                self.waiting.popleft()
            # a small batch is worth filling before it moves; a large one should not wait for more
            group = self._group() if len(self.rows) < MOST_ROWS // 2 else []

    def _group(self) -> list[Row]:
        """The waiting rows that fit in now, first come first; never none when nothing runs."""
        group: list[Row] = []
        widest = max((_expected(row) for row in self.rows), default=0)
        longest = 0
        for row in self.waiting:
            widest, longest = max(widest, _expected(row)), max(longest, len(row.prompt))
            rows = len(self.rows) + len(group) + 1
            fits = rows <= MOST_ROWS and rows * widest * self.served.base.token_size <= CACHE
            if (group or self.rows) and not (fits and (len(group) + 1) * longest <= PREFILL):
                break
            group.append(row)
        return group


def _expected(row: Row) -> int:
    return len(row.prompt) + min(row.limit, EXPECTED_ANSWER)
