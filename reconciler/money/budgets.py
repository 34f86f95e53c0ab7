"""
Whether something may still be paid for: budgets against what is spent and what is reserved. Pure.

Reserved is the most that something may cost, spent is what it did cost. What nobody can price is refused,
unless a budget allows it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from reconciler.cost import Estimate
from reconciler.kinds.project import BudgetSpec


class Amount(NamedTuple):
    """None is unknown."""

    usd: float | None
    hours: float | None


@dataclass(frozen=True)
class Entry:
    """One thing that was asked for. `amount` is the most it may cost, and what it did cost once it is settled."""

    at: float  # unix seconds, when it was reserved
    labels: Mapping[str, str]
    amount: Amount
    settled: bool = False


class Standing(NamedTuple):
    """How a budget stands in one unit."""

    spent: float
    reserved: float
    unknown: int  # entries that nobody can price, and that are in no sum


def most(estimate: Estimate) -> Amount:
    """What has to be reserved for something."""
    seconds = estimate.seconds
    return Amount(estimate.usd.high if estimate.usd else None, seconds.high / 3600 if seconds else None)


def refusal(
    budgets: Iterable[BudgetSpec],
    entries: Sequence[Entry],
    labels: Mapping[str, str],
    estimate: Estimate,
    now: float,
) -> str | None:
    """Why it may not be paid for now, with the numbers; None when it may."""
    for budget in budgets:
        if budget.labels.items() <= labels.items():
            for unit, limit in limits(budget):
                asked: float | None = getattr(most(estimate), unit)
                if asked is None:
                    if budget.unknown == "refuse":
                        return _unknown(budget, unit, estimate)
                    continue
                stands = standing(budget, unit, entries, now)
                if stands.spent + stands.reserved + asked > limit * (1 + 1e-12):
                    return _over(budget, unit, limit, asked, stands)
    return None


def standing(budget: BudgetSpec, unit: str, entries: Iterable[Entry], now: float) -> Standing:
    """What of a budget is spent and reserved; `unit` is usd or hours."""
    theirs = (entry for entry in entries if budget.labels.items() <= entry.labels.items())
    lately = (entry for entry in theirs if budget.per == "total" or month(entry.at) == month(now))
    return together(unit, lately)


def together(unit: str, entries: Iterable[Entry]) -> Standing:
    """The sums of entries."""
    spent, reserved, unknown = 0.0, 0.0, 0
    for entry in entries:
        amount: float | None = getattr(entry.amount, unit)
        if amount is None:
            unknown += 1
        elif entry.settled:
            spent += amount
        else:
            reserved += amount
    return Standing(spent, reserved, unknown)


def month(at: float) -> str:
    """The calendar month of a time, in UTC: `2026-11`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m")


def called(budget: BudgetSpec) -> str:
    """`$100 a month for team=support`."""
    amounts = " and ".join(amount(unit, limit) for unit, limit in limits(budget))
    labels = ", ".join(f"{key}={value}" for key, value in budget.labels.items())
    return f"{amounts} {'a month' if budget.per == 'month' else 'in all'}" + (
        f" for {labels}" if labels else ""
    )


def limits(budget: BudgetSpec) -> list[tuple[str, float]]:
    """Units and what may be spent in them."""
    both = [("usd", budget.usd), ("hours", budget.hours)]
    return [(unit, limit) for unit, limit in both if limit is not None]


def _over(budget: BudgetSpec, unit: str, limit: float, asked: float, stands: Standing) -> str:
    left = max(0.0, limit - stands.spent - stands.reserved)
    later = ", or wait for next month" if budget.per == "month" and asked <= limit else ""
    return (
        f"over budget: it may cost {amount(unit, asked)}, and of {called(budget)} {amount(unit, left)} are left "
        f"({amount(unit, stands.spent)} spent, {amount(unit, stands.reserved)} reserved); "
        f"raise it in spec.budgets{later}"
    )


def _unknown(budget: BudgetSpec, unit: str, estimate: Estimate) -> str:
    what = "what it costs" if unit == "usd" else "how long it takes"
    lacks = unit == "usd" and "price" in estimate.why
    how = "give it a price in spec.prices, or say" if lacks else "say"
    return (
        f"over budget: {what} is unknown ({estimate.why}), and {called(budget)} pays only for what is known; "
        f"{how} unknown: allow in that budget"
    )


def amount(unit: str, value: float) -> str:
    """`$1,234.50` or `1.50 h`."""
    return f"${value:,.2f}" if unit == "usd" else f"{value:,.2f} h"
