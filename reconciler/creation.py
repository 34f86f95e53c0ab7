"""
How one object comes to be, paid for once.

Claim, then an intent made durable, then one request, then one of four ends: *made*; *rejected*, which
never will be; *busy*, which may be later; *unclear*, which may exist. Unclear is resolved by looking
for the stamp in later passes, and by asking again with the same key where the platform honours it.

The claim is kept alive for as long as the request takes, so only who died or slept ever loses it.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from reconciler.backoff import backoff
from reconciler.errors import Busy, ReconcilerError, Refused, Rejected, Unclear, Unreachable
from reconciler.intent import LEASE, Claim, Intent
from reconciler.kind import Ask
from reconciler.resource import Wanted
from reconciler.world import Object, Platform

if TYPE_CHECKING:  # the database library is only loaded by those who write
    from reconciler.journal import Journal
    from reconciler.money.ledger import Reserve

REFUSED = 300.0  # seconds before one process asks again for what was refused
WINDOW = 150.0  # seconds after which what was asked for and is not seen does not exist: a lease, a call, and some more


class Made(NamedTuple):
    object: Object


class Deferred(NamedTuple):
    """Not now; `pause` in seconds is when to try again."""

    why: str
    pause: float = 1.0


class Failed(NamedTuple):
    why: str


class Declined(NamedTuple):
    """Nothing was asked for: there is no money for it."""

    why: str


class Rest(NamedTuple):
    """A request that its platform does not want to hear again before `until` (unix seconds)."""

    until: float
    end: Deferred | Failed
    failures: int = 1  # in a row


class Doubt(StrEnum):
    """What to do about an intent whose end nobody saw."""

    ASK = "ask"
    WAIT = "wait"


def doubt(intent: Intent, idempotent: bool, now: float, window: float = WINDOW) -> Doubt:
    """Ask again only where a second request cannot make a second object, or once it surely does not exist. Pure."""
    return Doubt.ASK if idempotent or now >= intent.opened_at + window else Doubt.WAIT


@dataclass(frozen=True)
class Creator:
    """Makes objects on one platform, one request each."""

    platform: Platform
    journal: "Journal"
    holder: str
    now: Callable[[], float]
    series: str = ""  # the journal's own name: its first request is not another journal's first
    resting: dict[str, Rest] = field(default_factory=dict)  # by fingerprint
    chance: Callable[[], float] = lambda: 0.0  # spreads the pauses of many; 0..1

    def make(
        self,
        wanted: Wanted,
        ask: Ask,
        open_intent: Intent | None,
        token: int,
        reserve: "Reserve | None" = None,
    ) -> Made | Deferred | Failed | Declined:
        """
        `token` is how often the claim had been taken before we looked and saw nothing. `reserve` writes down
        what it will cost, with the intent; or raises Refused.
        """
        rest = self.resting.get(wanted.fingerprint)
        if rest and rest.until > self.now():
            return rest.end
        idempotent = "idempotency" in self.platform.capabilities
        if open_intent and doubt(open_intent, idempotent, self.now()) is Doubt.WAIT:
            left = open_intent.opened_at + WINDOW - self.now()
            return Deferred(
                f"may exist already: asked for, no answer; looking for {left:.0f} s more", min(left, 5.0)
            )
        since = self.now()
        claim = self.journal.claim(self.platform.name, wanted.fingerprint, self.holder, since)
        if not isinstance(claim, Claim):
            return Deferred(f"being made by {claim.holder.rpartition(':')[0]}", 1.0)
        try:
            if claim.token != token + 1:
                return Deferred("another process was at it since we looked; looking again", 0.0)
            return self._ask(wanted, ask, claim, since, open_intent, reserve)
        except Refused as error:
            return Declined(str(error))
        finally:
            self.journal.release(claim)

    def _ask(
        self,
        wanted: Wanted,
        ask: Ask,
        claim: Claim,
        since: float,
        doubted: Intent | None,
        reserve: "Reserve | None",
    ) -> Made | Deferred | Failed:
        intent = self.journal.open_intent(claim, wanted.address, self.now(), doubted, reserve)
        if intent is None:
            return Deferred("the claim was lost to another process", 1.0)
        if self.now() >= since + LEASE:  # we slept, and somebody else may be at it
            if not doubted:
                self.journal.close_intent(intent, "unsent", self.now(), under=claim)
            return Deferred("this process was held up before it asked; looking again", 0.0)
        try:
            with self._kept(claim):
                key = f"{ask.project}.{wanted.fingerprint}.{self.series}.{intent.id}"
                made = self.platform.create(ask.collection, ask.body, key=key)
        except Rejected as error:
            self.journal.close_intent(intent, "rejected", self.now(), under=claim)
            return self._rest(wanted, Failed(str(error)), REFUSED)
        except Busy as error:
            self.journal.close_intent(intent, "busy", self.now(), under=claim)
            pause = error.retry_after or self._growing(wanted, first=5.0)
            return self._rest(wanted, Deferred(str(error), pause), pause)
        except Unreachable as error:
            self.journal.close_intent(intent, "unreachable", self.now(), under=claim)
            pause = self._growing(wanted, first=2.0)
            return self._rest(wanted, Deferred(str(error), pause), pause)
        except Unclear as error:
            self.journal.renew_intent(intent, self.now())
            pause = self._growing(wanted, first=0.5, longest=30.0)
            return self._rest(wanted, Deferred(f"{error}; looking whether it was made", pause), pause)
        self.journal.close_intent(intent, "made", self.now(), made.get("id") or made.get("name"))
        self.resting.pop(wanted.fingerprint, None)
        return Made(made)

    @contextlib.contextmanager
    def _kept(self, claim: Claim) -> Iterator[None]:
        """A claim that is renewed for as long as something is in flight."""
        over = threading.Event()

        def keep() -> None:
            while not over.wait(LEASE / 3):
                with contextlib.suppress(ReconcilerError):  # it is tried again, and the intent stands
                    self.journal.renew(claim, self.now())

        keeper = threading.Thread(target=keep, name="claim", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join()

    def _rest(self, wanted: Wanted, end: Deferred | Failed, pause: float) -> Deferred | Failed:
        self.resting[wanted.fingerprint] = Rest(self.now() + pause, end, self._failures(wanted))
        return end

    def _growing(self, wanted: Wanted, first: float, longest: float = 300.0) -> float:
        return backoff(self._failures(wanted), self.chance(), first, longest)

    def _failures(self, wanted: Wanted) -> int:
        """How often in a row it has not been made, this time included."""
        rest = self.resting.get(wanted.fingerprint)
        return rest.failures + 1 if rest else 1
