"""Every difference between what is wanted and what stands has a class, and nothing else has one."""

from datetime import UTC, datetime
from typing import Any

import pytest

from reconciler.drift import Drift, Finding, classify
from reconciler.kind import Action, Decision, Halt, Observed, Seen, Stamp, State, Unseen
from reconciler.plan import Step
from reconciler.resource import Address, Wanted

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()


def wanted(address: str, fingerprint: str = "new") -> Wanted:
    return Wanted(Address.parse(address), fingerprint, {}, (), {}, {}, "m.yaml", 1)


def standing(id: str, address: str = "", fingerprint: str = "new", **body: Any) -> Observed:
    stamp = Stamp("demo", address, fingerprint) if address else None
    return Observed(id, stamp, State.READY, body)


def step(address: str, action: Action, observed: Observed | None = None, **decision: Any) -> Step:
    return Step(wanted(address), Decision(action, decision.pop("why", ""), observed, **decision))


def drifts(steps: list[Step], memory: dict[str, str], **actual: Seen | Unseen) -> list[tuple[Drift, str]]:
    return [(each.drift, each.address) for each in classify(steps, actual, memory, NOW)]


@pytest.mark.parametrize(
    "one, before, expected",
    [
        (step("FineTuneJob/a", Action.KEEP, standing("j", "FineTuneJob/a")), "new", None),
        (step("FineTuneJob/a", Action.WAIT, standing("j", "FineTuneJob/a")), "old", None),
        (step("FineTuneJob/a", Action.CREATE), None, Drift.PENDING),
        (step("FineTuneJob/a", Action.CREATE), "old", Drift.PENDING),
        (step("FineTuneJob/a", Action.CREATE), "new", Drift.VANISHED),
        (step("PromotionRule/a", Action.UPDATE, standing("c")), "old", Drift.PENDING),
        (step("PromotionRule/a", Action.UPDATE, standing("c")), "new", Drift.CHANGED),
        (step("PromotionRule/a", Action.UPDATE, standing("c", canary={"model": "m"})), "new", Drift.PENDING),
        (step("PromotionRule/a", Action.BLOCK, standing("c"), halt=Halt.DRIFT), "new", Drift.CHANGED),
        (step("PromotionRule/a", Action.BLOCK, standing("c"), halt=Halt.FAILED), "new", None),
        (step("Dataset/a", Action.KEEP, standing("f", expires_at=int(NOW) - 1)), "new", Drift.EXPIRED),
        (step("Dataset/a", Action.KEEP, standing("f", expires_at=int(NOW) + 1)), "new", None),
        (step("Dataset/a", Action.KEEP, standing("f", expires_at=None)), "new", None),
    ],
)  # fmt: skip
def test_a_step_and_what_was_applied_tell_the_class(
    one: Step, before: str | None, expected: Drift | None
) -> None:
    address = str(one.address)

    assert ([(expected, address)] if expected else []) == drifts([one], {address: before} if before else {})


def test_what_cannot_be_seen_differs_in_nothing() -> None:
    steps = [step("Eval/a", Action.CREATE)]

    assert [] == drifts(steps, {"Eval/a": "new"}, Eval=Unseen("down"))


def test_only_what_is_ours_and_nobody_wants_is_unmanaged() -> None:
    seen = Seen.of(
        [
            standing("earlier", "Eval/kept", "old"),
            standing("orphan", "Eval/gone", "x"),
            standing("implied", "Eval/right@Model/base", "y"),
            standing("somebody's"),
        ],
        "demo",
    )
    steps = [step("Eval/kept", Action.KEEP, standing("now", "Eval/kept"))]

    [found] = classify(steps, {"Eval": seen}, {"Eval/kept": "new"}, NOW)

    assert (Drift.UNMANAGED, "Eval/gone", "orphan") == (found.drift, found.address, found.object)


@pytest.mark.parametrize(
    "last_day, expected",
    [("2027-01-14", 74), ("2026-11-02", 1), ("2026-11-01", 0), ("2026-10-31", -1), ("2027-06-01", None), (None, None),
     ("someday", None)],
)  # fmt: skip
def test_a_base_that_is_switched_off_soon_says_how_many_days_are_left(
    last_day: str | None, expected: int | None
) -> None:
    steps = [step("Model/base", Action.KEEP, standing("gpt-4.1", shutdown_date=last_day))]

    found = classify(steps, {}, {}, NOW)

    assert ([expected] if expected is not None else []) == [each.days for each in found]


def test_a_tuned_model_retires_on_its_own_date() -> None:
    job = standing("ftjob-1", "FineTuneJob/a", fine_tuned_model="ft:a")
    models = Seen.of([standing("ft:a", shutdown_date="2026-11-11")], "demo")

    [found] = classify([step("FineTuneJob/a", Action.KEEP, job)], {"Model": models}, {}, NOW)

    assert (
        Finding(
            Drift.RETIRING,
            "FineTuneJob/a",
            "ft:a is switched off in 10 days, on 2026-11-11; name another base, so that it is trained in time",
            "ft:a",
            10,
        )
        == found
    )
