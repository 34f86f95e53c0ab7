"""What something is expected to take, as far as anybody knows beforehand. Pure."""

from dataclasses import dataclass
from typing import NamedTuple


class Range(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """`why` says how it was counted, or why something is unknown."""

    usd: Range | None = None
    seconds: Range | None = None
    why: str = ""
