"""
The text of one generation as its tokens arrive: never half a character, never any part of a stop string.

Tokens are decoded in a short window, because decoding one alone loses what its neighbours decide (a character
split over tokens, a leading space). A trailing U+FFFD may be the start of a character, so it waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "\ufffd"  # what decoders put in the place of an incomplete character
LONGEST_BROKEN = 3  # bytes of a character that can be missing their end, one BROKEN each at most
LONGEST_WINDOW = 32  # tokens; text broken for longer than this is broken for good


class Transcript:
    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str]) -> None:
        self.tokens: list[int] = []
        self.text = ""
        self.stopped = False  # a stop string came; it and what follows is not in `text`
        self._decode = decode
        self._stops = [stop for stop in stops if stop]
        self._longest = max(map(len, self._stops), default=0)
        self._start = self._settled = 0  # the window, and how many of its tokens are complete
        self._taken = 0  # characters of the window's text that are in `text`

    def add(self, token: int) -> None:
        self.tokens.append(token)
        window = self._decode(self.tokens[self._start :])
        broken = min(LONGEST_BROKEN, len(window) - len(window.rstrip(BROKEN)))
        if broken and len(self.tokens) - self._start > LONGEST_WINDOW:
            broken = 0
        ready = len(window) - broken
        if ready > self._taken:
            self._append(window[self._taken : ready])
            self._taken = ready
        if not broken:
            self._start, self._settled = self._settled, len(self.tokens)
            self._taken = len(self._decode(self.tokens[self._start :]))

    def _append(self, more: str) -> None:
        before = max(0, len(self.text) - self._longest + 1)
        self.text += more
        found = [at for stop in self._stops if (at := self.text.find(stop, before)) >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)], True

    def sure(self) -> int:
        """How many characters of `text` no later token can take back."""
        return len(self.text) if self.stopped else held_back(self.text, self._stops)


def held_back(text: str, markers: Sequence[str]) -> int:
    """The length of `text` without the longest end that may become one of `markers`. Pure."""
    for start in range(max(0, len(text) - max(map(len, markers), default=0) + 1), len(text)):
        if any(marker.startswith(text[start:]) for marker in markers):
            return start
    return len(text)
