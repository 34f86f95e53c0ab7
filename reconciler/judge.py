"""
How far a judge agrees with people, counted on answers whose truth they wrote down. Pure.

An answer that the judge could not grade is neither for it nor against it: every grade that it might have
got is tried, and the one that is worst for the candidate counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from reconciler.stats.proportions import Calibration


@dataclass(frozen=True)
class Judge:
    """Of the good answers it passed some, of the bad it failed some; `lost` are those that it could not grade."""

    good: int
    good_passed: int
    good_lost: int
    bad: int
    bad_failed: int
    bad_lost: int
    unknown: int = 0  # answers that came back without a truth, or not at all

    def flaw(self, most_lost: float) -> str | None:
        """Why nothing can be corrected with it."""
        total = self.good + self.bad + self.unknown
        lost = self.good_lost + self.bad_lost + self.unknown
        if lost > most_lost * total or not total:
            share = f"{lost / total:.0%}" if total else "all"
            return (
                f"not comparable: {share} of the calibration's answers got no grade or have no label, "
                f"at most {most_lost:.0%} may"
            )
        if not self.good or not self.bad:
            kind = "bad" if self.good else "good"
            return f"not comparable: people call none of the calibration's answers {kind}; add some"
        if any(each.sharpness <= 0 for each in self.possible):
            return (
                f"not comparable: the judge passes {self.good_passed} of {self.good} good answers and fails "
                f"{self.bad_failed} of {self.bad} bad ones, which is no better than guessing"
            )
        return None

    @property
    def possible(self) -> list[Calibration]:
        """What its counts may be, by the grades of what it could not grade."""
        ends = product(sorted({0, self.good_lost}), sorted({0, self.bad_lost}))
        return [
            Calibration(self.good, self.good_passed + more, self.bad, self.bad_failed + also)
            for more, also in ends
        ]


def counted(items: Iterable[Mapping[str, Any]], total: int, criterion: str | None, label: str) -> Judge:
    """
    The output items of a run over answers that people judged, as counts.

    `criterion` is the grader that counts, all together if None; `label` the item's field with the truth,
    true or false. `total` is how many items there should be.
    """
    good = bad = (0, 0, 0)  # answers, judged as people do, not judged
    for item in items:
        truth = (item.get("datasource_item") or {}).get(label)
        if not isinstance(truth, bool):
            continue
        graded = [r for r in item["results"] if criterion is None or r.get("name") == criterion]
        lost = item["status"] not in ("pass", "fail") or not graded
        alike = not lost and all(r["passed"] for r in graded) is truth
        if truth:
            good = good[0] + 1, good[1] + alike, good[2] + lost
        else:
            bad = bad[0] + 1, bad[1] + alike, bad[2] + lost
    return Judge(*good, *bad, max(0, total - good[0] - bad[0]))
