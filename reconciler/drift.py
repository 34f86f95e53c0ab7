"""
How what stands differs from what is wanted, sorted by what has to happen next. Pure.

A plan says what would be done; this says what has come about since it was done last. Only objects with
our stamp count as unmanaged: what others keep on a shared platform is none of our business, nor is an
earlier object of an address that is still wanted.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum

from reconciler.kind import Action, Halt, Observed, Seen, State, Unseen
from reconciler.plan import Step
from reconciler.resource import Address

HORIZON = 90  # days before a model is switched off that are worth a warning


class Drift(StrEnum):
    """What kind of difference it is."""

    PENDING = "config pending"  # the manifest is newer than what was applied
    CHANGED = "platform changed"  # somebody changed what we made
    VANISHED = "vanished"  # it stood, and is gone
    EXPIRED = "expired"  # the platform ended its life
    UNMANAGED = "unmanaged"  # ours by its stamp, and no manifest wants it
    RETIRING = "base model retiring"  # it will be switched off


@dataclass(frozen=True)
class Finding:
    """One difference. `object` is the platform's id where there is one; `days` are left until it is switched off."""

    drift: Drift
    address: str
    why: str
    object: str | None = None
    days: int | None = None


def classify(
    steps: Iterable[Step],
    actual: Mapping[str, Seen | Unseen],
    memory: Mapping[str, str],
    now: float,
    horizon: int = HORIZON,
) -> tuple[Finding, ...]:
    """
    Every difference, in the order of the steps and then of the kinds.

    `memory` has by address the fingerprint that was applied last; `now` is in unix seconds. What cannot be
    seen now differs in nothing.
    """
    steps = tuple(steps)
    today = datetime.fromtimestamp(now, UTC).date()
    found = [finding for step in steps for finding in _of(step, actual, memory.get(str(step.address)), now)]
    found += [finding for step in steps for finding in _retiring(step, actual, today, horizon)]
    return (*found, *_unmanaged({step.address for step in steps}, actual))


def _of(step: Step, actual: Mapping[str, Seen | Unseen], before: str | None, now: float) -> Iterator[Finding]:
    address, observed = str(step.address), step.decision.observed
    id = observed.id if observed else None
    if isinstance(actual.get(step.address.kind), Unseen):
        return
    if observed and step.action in (Action.KEEP, Action.BLOCK) and _expired(observed, now):
        yield Finding(Drift.EXPIRED, address, f"{id} has expired", id)
    elif step.decision.halt is Halt.DRIFT and step.action is Action.BLOCK:
        yield Finding(Drift.CHANGED, address, step.decision.why, id)
    elif step.action is Action.CREATE and before == step.wanted.fingerprint:
        yield Finding(Drift.VANISHED, address, "it was made once and does not stand any more")
    elif step.action is Action.UPDATE and before == step.wanted.fingerprint and not _on_air(observed):
        yield Finding(Drift.CHANGED, address, step.decision.why, id)
    elif step.action in (Action.CREATE, Action.UPDATE):
        why = "its manifest was changed since it was applied" if before else "it was never applied"
        yield Finding(Drift.PENDING, address, why, id)


def _retiring(
    step: Step, actual: Mapping[str, Seen | Unseen], today: date, horizon: int
) -> Iterator[Finding]:
    observed = step.decision.observed
    if observed is None or observed.state is not State.READY:
        return
    tuned = observed.body.get("fine_tuned_model")
    models = actual.get("Model")
    own = models.unstamped.get(tuned) if tuned and isinstance(models, Seen) else None
    body = own.body if own else observed.body
    last = _day(body.get("shutdown_date"))
    if last is None or (left := (last - today).days) > horizon:
        return
    model = tuned or observed.id
    when = f"in {left} day{'s' * (left != 1)}, on {last}" if left > 0 else f"since {last}"
    why = f"{model} is switched off {when}; name another base, so that it is trained in time"
    yield Finding(Drift.RETIRING, str(step.address), why, model, left)


def _unmanaged(wanted: set[Address], actual: Mapping[str, Seen | Unseen]) -> Iterator[Finding]:
    for kind, seen in actual.items():
        if isinstance(seen, Unseen):
            continue
        for each in (each for hits in seen.by_fingerprint.values() for each in hits):
            if each.stamp is None:
                continue  # made elsewhere, and adopted
            address = Address.parse(each.stamp.address)
            implied = "@" in address.name  # made for a rule; it goes with what the rule compares
            if address not in wanted and not implied:
                why = f"{kind.lower()} {each.id} carries our stamp and no manifest declares {address}"
                yield Finding(Drift.UNMANAGED, str(address), why, each.id)


def _expired(observed: Observed, now: float) -> bool:
    last = observed.body.get("expires_at")
    return observed.body.get("status") == "expired" or (isinstance(last, int | float) and last <= now)


def _on_air(observed: Observed | None) -> bool:
    return bool(observed and observed.body.get("canary"))


def _day(text: object) -> date | None:
    try:
        return date.fromisoformat(str(text)[:10]) if text else None
    except ValueError:
        return None
