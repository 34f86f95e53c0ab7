"""
A creator that does not make a pass wait: what takes long to send is sent beside the passes.

A large upload is in flight from one pass to a later one. Its claim and its intent are those of any create;
while it is under way nobody here asks for it again. It ends early only when the daemon is stopped, and
then nothing was stored.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.creation import Creator, Declined, Deferred, Failed, Made
from reconciler.intent import Intent
from reconciler.kind import Ask
from reconciler.resource import Wanted
from reconciler.world import Upload

if TYPE_CHECKING:
    from reconciler.money.ledger import Reserve

LARGE = 4 << 20  # bytes; what is smaller is sent within a second by any line worth the name
PAUSE = 5.0  # seconds; the end of an upload is told at once


@dataclass(frozen=True)
class Hand(Creator):
    """`landed` is called when something in flight has ended, well or not."""

    landed: Callable[[], None] = lambda: None
    flying: dict[str, threading.Thread] = field(default_factory=dict)  # by fingerprint

    def make(
        self,
        wanted: Wanted,
        ask: Ask,
        open_intent: Intent | None,
        token: int,
        reserve: "Reserve | None" = None,
    ) -> Made | Deferred | Failed | Declined:
        upload = ask.body.get("file")
        if not isinstance(upload, Upload) or upload.path.stat().st_size < LARGE:
            return super().make(wanted, ask, open_intent, token, reserve)
        if wanted.fingerprint in self.flying:
            return Deferred("is being uploaded", PAUSE)
        rest = self.resting.get(wanted.fingerprint)
        if rest and rest.until > self.now():
            return rest.end

        def fly() -> None:
            try:
                super(Hand, self).make(wanted, ask, open_intent, token, reserve)
            finally:
                self.flying.pop(wanted.fingerprint, None)
                self.landed()

        thread = threading.Thread(target=fly, name=f"upload {wanted.address}", daemon=True)
        self.flying[wanted.fingerprint] = thread
        thread.start()
        return Deferred("is being uploaded", PAUSE)

    def land(self, patience: float) -> None:
        """Wait for what is in flight, `patience` seconds for each."""
        for thread in list(self.flying.values()):
            thread.join(patience)
