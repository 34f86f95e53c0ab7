"""
Intervals as inline SVG: the point, the interval, the gate's line and the side that passes. Pure.

Positions are percentages of the width, so a figure fits a phone without shrinking its text.
"""

import math
from typing import NamedTuple

from reconciler.evidence import Rule
from reconciler.gates import Judgement
from reconciler.report.markup import Markup, tag

MARGIN = 2.0  # per cent of the width, on both sides
SHARES = ("pass_rate", "fail_rate")
UNITS = {"p95_latency_ms": "{:,.0f} ms", "cost_per_1k_items": "${:.3g}"}  # of metrics that are never below 0


class Scale(NamedTuple):
    """What the width shows, from left to right."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """The position of a value, in per cent of the width."""
        share = (value - self.low) / (self.high - self.low)
        return MARGIN + (100 - 2 * MARGIN) * min(1.0, max(0.0, share))

    def x(self, value: float) -> str:
        return f"{self.at(value):.2f}%"


def scale_of(judgement: Judgement) -> Scale:
    """All of a rate, or as much around a difference as the eye needs. Pure."""
    rule = judgement.rule
    if rule.metric in SHARES and not rule.compares:
        return Scale(0.0, 1.0)
    ends = (judgement.low, judgement.estimate, judgement.high, rule.line, 0.0)
    shown = [value for value in ends if math.isfinite(value)]
    low, high = min(shown), max(shown)
    room = 0.12 * (high - low or 1.0)
    bound = 1.0 if rule.metric in SHARES else math.inf
    return Scale(0.0 if rule.metric in UNITS else max(-bound, low - room), min(bound, high + room))


def interval(judgement: Judgement) -> Markup:
    """One gate: where it passes, its line, and what was measured."""
    rule, scale = judgement.rule, scale_of(judgement)
    at_line = scale.at(rule.line)
    passes = (MARGIN, at_line) if rule.bound == "at_most" else (at_line, 100 - MARGIN)
    parts = [
        tag("rect", x=f"{passes[0]:.2f}%", y=14, width=f"{passes[1] - passes[0]:.2f}%", height=22, class_="good"),
        tag("line", x1=f"{MARGIN}%", x2=f"{100 - MARGIN}%", y1=36, y2=36, class_="axis"),
        *(_tick(scale, value, rule) for value in ticks(scale)),
        *([tag("line", x1=scale.x(0), x2=scale.x(0), y1=14, y2=40, class_="same")] if rule.compares else []),
        tag("line", x1=f"{at_line:.2f}%", x2=f"{at_line:.2f}%", y1=10, y2=40, class_="gate"),
        tag("text", f"gate {number(rule.line, rule)}", x=f"{at_line:.2f}%", y=8, text_anchor=anchor(at_line),
            class_="gate-label"),
    ]  # fmt: skip
    if not math.isnan(judgement.estimate):
        parts += _measured(scale, judgement.low, judgement.estimate, judgement.high, 25)
    value, low, high = (number(each, rule) for each in (judgement.estimate, judgement.low, judgement.high))
    said = f"{value}, interval {low} to {high}"
    return tag(
        "svg", tag("title", f"{said}; the gate's line is at {number(rule.line, rule)}"), *parts,
        class_=f"interval {judgement.verdict}", width="100%", height=54, role="img",
    )  # fmt: skip


def bar(low: float, value: float, high: float) -> Markup:
    """A rate and its interval between 0 and 1, small enough for a table's cell."""
    scale = Scale(0.0, 1.0)
    middle = [] if math.isnan(value) else _measured(scale, low, value, high, 8)
    axis = tag("line", x1=f"{MARGIN}%", x2=f"{100 - MARGIN}%", y1=8, y2=8, class_="axis")
    return tag(
        "svg", axis, *middle, class_="bar", width="100%", height=16, aria_hidden="true", focusable="false"
    )


def ticks(scale: Scale) -> list[float]:
    """Round values that divide the scale into three to six parts. Pure."""
    width = scale.high - scale.low
    step = 10 ** math.floor(math.log10(width))
    step = next(s for s in (step / 5, step / 4, step / 2, step, 2 * step) if width / s <= 5)
    first = math.ceil(scale.low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(scale.high / step + 1e-9) + 1)]


def number(value: float, rule: Rule) -> str:
    """A value in the unit of its gate."""
    if not math.isfinite(value):
        return "unknown" if math.isnan(value) else "no bound"
    if rule.metric in UNITS:
        return UNITS[rule.metric].format(value)
    if rule.metric not in SHARES:
        return f"{value:+.3g}" if rule.compares else f"{value:.3g}"
    return f"{100 * value:+.3g} points" if rule.compares else f"{100 * value:.3g} %"


def anchor(at: float) -> str:
    """How to hang a label so that it stays inside."""
    return "start" if at < 12 else "end" if at > 88 else "middle"


def _tick(scale: Scale, value: float, rule: Rule) -> Markup:
    at = scale.at(value)
    text = (
        number(value, rule).removesuffix(" points")
        if value
        else number(0.0, rule).lstrip("+").removesuffix(" points")
    )
    return tag("text", text, x=f"{at:.2f}%", y=50, text_anchor=anchor(at), class_="tick")


def _measured(scale: Scale, low: float, value: float, high: float, y: int) -> list[Markup]:
    ends = [
        tag("line", x1=scale.x(end), x2=scale.x(end), y1=y - 4, y2=y + 4, class_="whisker")
        for end in (low, high)
    ]
    return [
        tag("line", x1=scale.x(low), x2=scale.x(high), y1=y, y2=y, class_="whisker"),
        *ends,
        tag("circle", cx=scale.x(value), cy=y, r=5 if y > 8 else 3.5, class_="point"),
    ]
