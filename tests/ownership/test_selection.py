"""A part of a tree: what is named and what it needs; what is left out stays as it stands."""

import pytest
from core_base import action, edit, why
from own_base import Owner, Shop, owner

from reconciler import project, selection
from reconciler.errors import ReconcilerError
from reconciler.kind import Halt
from reconciler.resource import Address
from reconciler.selection import ALL, choice, only

TUNED, RULE = "FineTuneJob/tuned", "PromotionRule/production"


@pytest.fixture
def fresh(tmp_path, platform: Shop, clock) -> Owner:  # type: ignore[no-untyped-def]
    return owner(tmp_path / "demo", platform, clock)


def names(owner: Owner, targets: tuple[str, ...] = (), excludes: tuple[str, ...] = ()) -> set[str]:
    return set(map(str, only(project.load(owner.root).desired, targets, excludes)))


def test_a_target_takes_what_it_needs_along_and_nothing_else(fresh: Owner) -> None:
    assert {TUNED, "Model/base", "Dataset/train", "Project/demo"} == names(fresh, (TUNED,))


def test_patterns_are_a_shells(fresh: Owner) -> None:
    assert {"Dataset/train", "Dataset/heldout", "Project/demo"} == names(fresh, ("Dataset/*",))


@pytest.mark.parametrize(
    "targets, excludes, advice",
    [
        (("FineTuneJob/tund",), (), "there is no FineTuneJob/tund; did you mean FineTuneJob/tuned?"),
        ((), ("Eval/rigth",), "there is no Eval/rigth; did you mean Eval/right?"),
        ((TUNED,), ("Nothing/*",), "there is no Nothing/*; write Kind/name, * stands for anything"),
    ],
)
def test_a_slip_is_told(
    fresh: Owner, targets: tuple[str, ...], excludes: tuple[str, ...], advice: str
) -> None:
    with pytest.raises(ReconcilerError) as told:
        names(fresh, targets, excludes)

    assert advice == str(told.value)


def test_what_is_chosen_is_made_and_remembered_and_the_rest_is_not(fresh: Owner, platform: Shop) -> None:
    fresh.choice = choice([TUNED], None)

    fresh.done()

    assert {"files", "fine_tuning/jobs"} == {collection for collection, _ in platform.asked}
    assert {TUNED, "Model/base", "Dataset/train", "Project/demo"} == fresh.journal.remembered("memory").keys()


def test_what_needs_something_that_is_left_out_waits(fresh: Owner, platform: Shop) -> None:
    fresh.choice = choice(None, [TUNED])

    done = fresh.done()

    assert f"left out by --exclude {TUNED}" == why(done, TUNED)
    assert f"waits for {TUNED}" == why(done, f"EvalRun/right@{TUNED}")
    assert "=" == action(done, "EvalRun/right@Model/base")
    assert {Halt.LATER} == {step.decision.halt for step in done.steps if step.action == "!"}
    assert 0 == platform.count("fine_tuning/jobs")


def test_what_is_left_out_and_stands_lets_others_go_on(demo: Owner, platform: Shop) -> None:
    edit(demo.root / "promote.yaml", "at_least: 0.8", "at_least: 0.9")
    demo.choice = choice(None, [TUNED, "EvalRun/*"])

    done = demo.done()

    assert "=" == action(done, RULE)


def test_a_part_of_a_project_is_not_the_whole_of_it(demo: Owner) -> None:
    tree = project.load(demo.root)

    assert tree is tree.part(ALL)
    assert not tree.part(choice([TUNED], None)).whole


def test_everything_stays_in_the_order_of_its_needs(fresh: Owner) -> None:
    part = selection.only(project.load(fresh.root).desired, [RULE], [])

    seen: set[Address] = set()
    for wanted in part.values():
        assert {need.address for need in wanted.needs} <= seen
        seen.add(wanted.address)
