"""Several questions at once: each pays for the company it keeps."""

from collections.abc import Sequence


def holm(ps: Sequence[float], level: float) -> list[float]:
    """
    The level each p-value is held against so that at most a share `level` of true nulls is ever rejected.

    Holm (1979): the smallest against level / k, the next against level / (k - 1), and so on to the first
    that is too large; the rest are held against what that one was. One is rejected when p <= its level.
    """
    found = [0.0] * len(ps)
    divisor = len(ps)
    for index in sorted(range(len(ps)), key=ps.__getitem__):
        found[index] = level / divisor
        if ps[index] <= found[index]:
            divisor -= 1
    return found


def adjusted(ps: Sequence[float]) -> float:
    """The smallest level at which Holm rejects any of them: k times the smallest."""
    return min(1.0, len(ps) * min(ps))
