"""
From what something comes to, the prices and what was seen before: what it will cost and how long it takes;
and from what a platform reports of something that finished: what it did cost. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.cost import Estimate, Range
from reconciler.kind import Observed, State
from reconciler.money import pace
from reconciler.money.pace import Like, Pace
from reconciler.money.work import Work
from reconciler.prices import Book


class Rates(NamedTuple):
    """What a platform costs: tokens by the book; time where the hardware is our own."""

    book: Book
    own: bool


class Actual(NamedTuple):
    """What it did cost; None is unknown, and `why` says why."""

    usd: float | None
    seconds: float | None
    size: float | None = None
    answered: float | None = None  # tokens of an answer, on average
    why: str = ""


def estimate(work: Work, rates: Rates, paces: Sequence[Pace]) -> Estimate:
    """What it will take."""
    time = pace.seconds(work.like, work.size, paces)
    usd, why = (
        _training(work, rates, time.range) if work.trains else _measuring(work, rates, time.range, paces)
    )
    if work.untold:
        usd, why = None, work.untold
    return Estimate(usd, time.range, "; ".join(filter(None, [time.why, why, work.how])))


def actual(work: Work, observed: Observed, seconds: float | None, rates: Rates) -> Actual:
    """
    What it took, by what its platform reports; `seconds` is how long somebody saw it work.

    Of something that failed and reports nothing, what it cost is unknown.
    """
    body = observed.body
    if body.get("finished_at") and body.get("created_at"):
        seconds = max(1.0, body["finished_at"] - body["created_at"])  # told in whole ones
    time = None if seconds is None else Range(seconds, seconds)
    if work.trains:
        tokens = body.get("trained_tokens")
        told = Work(work.like, work.size, work.trains, Range(tokens, tokens) if tokens else None)
        by_tokens = work.trained is not None
        if (
            by_tokens
            and not tokens
            and (price := rates.book.price(work.trains))
            and price.training is not None
        ):
            return Actual(None, seconds, why="the platform does not say on how many tokens it trained")
        usd, why = _training(told, rates, time)
        size = float(tokens) if by_tokens and tokens else None if by_tokens else work.size.high
        ended = observed.state is State.READY
        return Actual(usd.high if usd else None, seconds, size if ended else None, why=why)
    return _measured(body, seconds, rates, time, observed.state is State.READY)


def reported(like: Like, observed: Observed) -> Iterator[Pace]:
    """What a platform itself tells of the pace of something that finished, if it tells anything."""
    body = observed.body
    if like.kind == "FineTuneJob":
        tokens, begun, ended = (body.get(key) for key in ("trained_tokens", "created_at", "finished_at"))
        if tokens and begun and ended and like.method != "reinforcement":
            yield Pace(like, tokens, max(ended - begun, 1))
        return
    total = (body.get("result_counts") or {}).get("total")
    answered = _answered(body)
    if total and answered:
        yield Pace(like, total, None, answered)


def _training(work: Work, rates: Rates, time: Range | None) -> tuple[Range | None, str]:
    price = rates.book.price(work.trains)
    if price and price.training is not None and work.trained is not None:
        return work.trained.times(price.training / 1e6), ""
    if price and price.training_hour is not None:
        return (time.times(price.training_hour / 3600), "") if time else (None, "it is paid by the hour")
    return _hardware(rates, time, work.trains)


def _measuring(
    work: Work, rates: Rates, time: Range | None, paces: Sequence[Pace]
) -> tuple[Range | None, str]:
    answer = Range(1, 1)
    if work.asks:
        seen = pace.answered(work.like, paces)
        most = float(work.asks.most)
        answer = (
            Range(min(seen.low / pace.NOISE, most), min(seen.high * pace.NOISE, most))
            if seen
            else Range(1, most)
        )
    sums, local = Range(0, 0), not work.asks and not work.judges
    usages = [(work.asks, answer)] if work.asks else []
    for usage, each in [*usages, *((judge, Range(1, judge.most)) for judge in work.judges)]:
        price = rates.book.price(usage.model)
        if price is None:
            if not rates.own:
                return _hardware(rates, time, usage.model)
            local = True
            continue
        asked = usage.asked.plus(answer.times(usage.quotes * usage.answers))
        low, high = (
            (a * price.input + n * usage.answers * price.output) / 1e6
            for a, n in zip(asked, each, strict=True)
        )
        sums = sums.plus(Range(low, high))
    if not local or not rates.own:
        return sums, ""
    machine, why = _hardware(rates, time, "")
    return (machine.plus(sums), why) if machine else (None, why)


def _measured(
    body: Mapping[str, Any], seconds: float | None, rates: Rates, time: Range | None, ended: bool
) -> Actual:
    usages: Sequence[Mapping[str, Any]] = body.get("per_model_usage") or ()
    if not usages and not rates.own:
        return Actual(None, seconds, why="the platform does not say how many tokens it took")
    usd, local, answered = 0.0, not usages, _answered(body)
    for usage in usages:
        price = rates.book.price(usage["model_name"])
        if price:
            usd += price.of(usage)
        elif rates.own:
            local = True
        else:
            return Actual(None, seconds, why=f"{usage['model_name']} has no price")
    size = (body.get("result_counts") or {}).get("total") if ended else None
    if not local:
        return Actual(usd, seconds, size, answered)
    machine, why = _hardware(rates, time, "")
    return Actual(machine.high + usd if machine else None, seconds, size, answered, why)


def _answered(run: Mapping[str, Any]) -> float | None:
    """Tokens of an answer of the model that was measured, on average."""
    mine = (usage for usage in run.get("per_model_usage") or () if usage["model_name"] == run.get("model"))
    return next(
        (u["completion_tokens"] / u["invocation_count"] for u in mine if u.get("invocation_count")), None
    )


def _hardware(rates: Rates, time: Range | None, model: str) -> tuple[Range | None, str]:
    """The price of our own hardware's time; somebody else's model has no price then."""
    hour = rates.book.gpu_hour
    if not rates.own:
        return None, f"{model} has no known price; add it to the project's prices"
    if hour is None:
        return None, "no gpu_hour price"
    if hour == 0:
        return Range(0, 0), ""
    return (time.times(hour / 3600), "") if time else (None, "")
