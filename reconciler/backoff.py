"""
Pauses that grow with failures in a row, and start small again after a success. Pure.

Chance spreads them, so that many who failed together do not come back together.
"""


def backoff(failures: int, chance: float, first: float = 1.0, longest: float = 300.0) -> float:
    """Seconds to wait after so many failures; `chance` in 0..1 takes up to half of that away."""
    return min(longest, first * 2.0 ** min(failures - 1, 30)) * (1 - chance / 2)


def jittered(interval: float, chance: float) -> float:
    """About `interval` seconds, a tenth more or less."""
    return interval * (0.9 + chance / 5)
