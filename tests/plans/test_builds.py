"""A build trains and measures everything and touches no channel; a merge then only moves the pointer."""

from core_base import Applier, action, why
from memory_platform import MemoryPlatform
from plans_base import RULE, passes, planned

from reconciler.cli import commands, terms
from reconciler.kind import Action

SETTLED = 5  # passes that make everything of the small tree


def test_a_build_measures_everything_and_touches_no_channel(
    applier: Applier, platform: MemoryPlatform
) -> None:
    done = passes(applier, terms.building(), SETTLED)

    assert done.settled
    assert 0 == platform.count("reconciler/aliases")
    assert why(done, RULE).startswith("FineTuneJob/tuned passes 2 gates; ")
    assert why(done, RULE).endswith("; not moved, because this apply only builds")
    assert 0 == commands._ended(done)


def test_after_a_build_the_plan_shows_what_was_measured(applier: Applier) -> None:
    passes(applier, terms.building(), SETTLED)

    plan = planned(applier)

    [rule] = [step for step in plan.steps if step.action is not Action.KEEP]
    assert RULE == str(rule.address)
    assert ["pass"] == [str(trial.verdict) for trial in rule.decision.evidence]


def test_after_a_build_an_apply_only_moves_the_pointer(applier: Applier, platform: MemoryPlatform) -> None:
    passes(applier, terms.building(), SETTLED)
    before = len(platform.asked)

    done = passes(applier, terms.FREE)

    assert ["reconciler/aliases"] == [collection for collection, _ in platform.asked[before:]]
    assert "=" == action(done, RULE)


def test_a_build_whose_gates_fail_says_so(applier: Applier, platform: MemoryPlatform) -> None:
    done = passes(applier, terms.building(), SETTLED, learns=False)

    assert 4 == commands._ended(done)
    assert 0 == platform.count("reconciler/aliases")
