"""One gate of a promotion rule, as its author writes it: a metric, a bound, and how far its judge can be trusted."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from reconciler import gates
from reconciler.evidence import BOUNDS, Rule
from reconciler.resource import COSMETIC, Ref, Spec
from reconciler.stats import proportions

GRADER = Ref("Grader", or_text=True)


class Expected(Spec):
    """What the author expects; only for what a plan says about chances, never for a verdict."""

    effect: float | None = Field(None, description="by how much the candidate is better than the baseline")
    rate: float | None = Field(None, description="what the candidate reaches on an absolute gate")
    disagreement: float = Field(0.2, gt=0, le=1, description="share of items that only one of the two passes")
    spread: float = Field(0.3, gt=0, description="standard deviation of scores, or of paired differences")


class Calibration(Spec):
    """How the judge of this gate did on items whose truth people know; corrects what it says."""

    good: int = Field(gt=0, description="items that are good")
    good_passed: int = Field(ge=0, description="of these, how many the judge passed")
    bad: int = Field(gt=0, description="items that are bad")
    bad_failed: int = Field(ge=0, description="of these, how many the judge failed")

    @model_validator(mode="after")
    def _better_than_guessing(self) -> "Calibration":
        if self.good_passed > self.good or self.bad_failed > self.bad:
            raise ValueError("good_passed is a part of good, bad_failed a part of bad")
        if self.values.sharpness <= 0:
            raise ValueError("this judge is no better than guessing; no number of items makes up for that")
        return self

    @property
    def values(self) -> proportions.Calibration:
        return proportions.Calibration(self.good, self.good_passed, self.bad, self.bad_failed)


class JudgedItems(Spec):
    """
    Answers whose truth people wrote down. The judge grades them too, and where it differs from people
    corrects what it says of others.
    """

    dataset: Annotated[str, Ref("Dataset")] = Field(
        description="rows of format items, each with its answer as `sample`"
    )
    label: str = Field(description="the item field that says whether the answer is good: true or false")


def _form(body: Any) -> str:
    """Whether a calibration says what was counted, or where it can be counted."""
    dataset = body.get("dataset") if isinstance(body, Mapping) else getattr(body, "dataset", None)
    return "items" if dataset is not None else "counts"


class Gate(Spec):
    eval: Annotated[str, Ref("Eval")]
    metric: Literal["pass_rate", "fail_rate", "mean_score", "p95_latency_ms", "cost_per_1k_items"] = (
        "pass_rate"
    )
    grader: Annotated[str | None, GRADER] = Field(
        None,
        description="judge this grader of the eval alone (Grader/name, or an inline one's name); all if unset",
    )
    at_least: float | None = Field(None, description="the lower end of the interval must reach it")
    at_most: float | None = Field(None, description="the upper end of the interval must stay under it")
    improves_by: float | None = Field(
        None, ge=0, description="better than the baseline by more than this, paired"
    )
    not_worse_than: float | None = Field(
        None, gt=0, description="not worse than the baseline by more than this, paired"
    )
    primary: bool = Field(
        False,
        description="of several primary gates one has to pass, at a level that pays for the choice (Holm)",
    )
    calibration: (
        Annotated[
            Annotated[Calibration, Tag("counts")] | Annotated[JudgedItems, Tag("items")], Discriminator(_form)
        ]
        | None
    ) = Field(
        None,
        description="how far the judge that passes this gate's items agrees with people: "
        "{dataset, label}, or counts by hand",
    )
    expect: Annotated[Expected, COSMETIC] = Expected()

    @model_validator(mode="after")
    def _one_bound(self) -> "Gate":
        bounds = [bound for bound in BOUNDS if getattr(self, bound) is not None]
        if len(bounds) != 1:
            raise ValueError(f"a gate has exactly one of {', '.join(BOUNDS)}; this one has {len(bounds)}")
        if bounds[0] in ("improves_by", "not_worse_than") and self.metric == "fail_rate":
            raise ValueError(f"{bounds[0]} compares a pass_rate or a mean_score; turn the fail_rate around")
        if self.primary and bounds[0] != "improves_by":
            raise ValueError("primary marks what has to improve; it goes with improves_by")
        if self.metric in gates.UNITS:
            if bounds[0] != "at_most" or self.at_most is None or self.at_most <= 0:
                raise ValueError(f"{self.metric} goes with at_most, and something above 0")
            if self.grader or self.calibration:
                raise ValueError(
                    f"{self.metric} is of whole answers; it goes with no grader and no calibration"
                )
            return self
        if self.metric == "mean_score" and self.calibration:
            raise ValueError("a calibration corrects a pass_rate or a fail_rate, not a mean_score")
        if self.metric != "mean_score" and not self.compares and not 0 < self.rule().value < 1:
            raise ValueError(
                f"{bounds[0]} lies between 0 and 1: a finite number of items never shows {self.rule().value:g}"
            )
        return self

    def rule(self, most_errors: float = 0.05, anytime: bool = False) -> Rule:
        bound = next(bound for bound in BOUNDS if getattr(self, bound) is not None)
        judge = self.calibration.values if isinstance(self.calibration, Calibration) else None
        return Rule(self.metric, bound, getattr(self, bound), self.primary, most_errors, anytime, judge)

    @property
    def compares(self) -> bool:
        return self.rule().compares

    @property
    def judged(self) -> JudgedItems | None:
        """The answers that its judge is measured on."""
        return self.calibration if isinstance(self.calibration, JudgedItems) else None
