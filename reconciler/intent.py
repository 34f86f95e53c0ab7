"""What stands between wanting an object and seeing it: a claim to ask for it, and an intent once we do."""

from dataclasses import dataclass
from typing import NamedTuple

LEASE = 15.0  # seconds a claim is held without being renewed; who works renews it


@dataclass(frozen=True)
class Intent:
    """A create that was about to be asked for, and whose end we have not seen."""

    id: int
    platform: str
    fingerprint: str
    address: str
    opened_at: float  # unix seconds


class Claim(NamedTuple):
    platform: str
    fingerprint: str
    holder: str
    token: int


class Held(NamedTuple):
    """Somebody else is at it."""

    holder: str
    until: float  # unix seconds
