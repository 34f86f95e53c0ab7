"""Work in flight that a newer manifest does not want any more follows the policy of that manifest."""

from pathlib import Path

import pytest
from core_base import Applier, action, edit, why
from memory_platform import MemoryPlatform, raises

from reconciler.errors import Rejected, Unreachable

JOBS, TUNED = "fine_tuning/jobs", "FineTuneJob/tuned"
EPOCHS = ("n_epochs: 2", "n_epochs: 3")
RUN = """
---
apiVersion: reconciler/v1
kind: EvalRun
metadata: {name: measured}
spec: {eval: Eval/right, model: Model/base, dataset: Dataset/heldout, prompt: Prompt/ask, on_supersede: cancel}
"""


def says(tree: Path, policy: str) -> None:
    edit(tree / "train.yaml", "  method:", f"  on_supersede: {policy}\n  method:")


def jobs(platform: MemoryPlatform) -> list[tuple[str, str]]:
    return [(job["id"], job["status"]) for job in platform.objects[JOBS]]


@pytest.fixture
def working(applier: Applier, tree: Path) -> Applier:
    """A job runs, and its manifest has no rule behind it."""
    (tree / "promote.yaml").unlink()
    applier.passes(2)
    return applier


@pytest.mark.parametrize("policy", [None, "keep"])
def test_by_default_both_run(
    working: Applier, platform: MemoryPlatform, tree: Path, policy: str | None
) -> None:
    edit(tree / "train.yaml", *EPOCHS)
    if policy:
        says(tree, policy)

    working.passes(2)

    assert ["running", "running"] == [status for _, status in jobs(platform)]


def test_cancel_ends_the_old_one_and_starts_the_new_one_in_one_pass(
    working: Applier, platform: MemoryPlatform, tree: Path
) -> None:
    [(old, _)] = jobs(platform)
    edit(tree / "train.yaml", *EPOCHS)
    says(tree, "cancel")

    done = working.once()

    assert [(old, "cancelled"), (done.steps[-1].decision.observed.id, "running")] == jobs(platform)
    assert ["superseded", "made"] == [each["event"] for each in working.journal.events()][1::-1]


def test_finish_waits_for_the_old_one_and_then_starts_the_new_one(
    working: Applier, platform: MemoryPlatform, tree: Path
) -> None:
    [(old, _)] = jobs(platform)
    edit(tree / "train.yaml", *EPOCHS)
    says(tree, "finish")

    waiting = working.passes(3)

    assert "…" == action(waiting, TUNED)
    sentence = f"waits for the end of job {old}, which an earlier manifest asked for (on_supersede: finish)"
    assert sentence == why(waiting, TUNED)
    assert [(old, "running")] == jobs(platform)
    assert not waiting.settled
    platform.finish_jobs()
    working.once()
    assert [(old, "succeeded"), ("ftjob-5", "running")] == jobs(platform)


@pytest.mark.parametrize("policy", ["cancel", "finish"])
def test_what_another_resource_wants_too_is_left_alone(
    working: Applier, platform: MemoryPlatform, tree: Path, policy: str
) -> None:
    text = (tree / "train.yaml").read_text()
    twin = text[text.rindex("---") :].replace("name: tuned", "name: twin")
    (tree / "twin.yaml").write_text(twin)
    edit(tree / "train.yaml", *EPOCHS)
    says(tree, policy)

    working.passes(2)

    assert ["running", "running"] == [status for _, status in jobs(platform)]


def test_one_that_cannot_be_cancelled_now_keeps_the_new_one_from_starting(
    working: Applier, platform: MemoryPlatform, tree: Path
) -> None:
    [(old, _)] = jobs(platform)
    edit(tree / "train.yaml", *EPOCHS)
    says(tree, "cancel")
    platform.faults = {f"{JOBS}/{old}/cancel": [raises(Unreachable("it is down"))]}

    done = working.once()

    assert f"{old} is wanted no more and could not be cancelled: it is down" == why(done, TUNED)
    assert [(old, "running")] == jobs(platform)
    working.once()
    assert [(old, "cancelled"), ("ftjob-5", "running")] == jobs(platform)


def test_one_that_ended_meanwhile_stops_nothing(
    working: Applier, platform: MemoryPlatform, tree: Path
) -> None:
    [(old, _)] = jobs(platform)
    edit(tree / "train.yaml", *EPOCHS)
    says(tree, "cancel")
    platform.faults = {f"{JOBS}/{old}/cancel": [raises(Rejected("it has ended"))]}

    working.once()

    assert 2 == len(jobs(platform))


def test_what_is_suspended_cancels_nothing(working: Applier, platform: MemoryPlatform, tree: Path) -> None:
    edit(tree / "train.yaml", *EPOCHS)
    says(tree, "cancel")
    edit(tree / "train.yaml", "  on_supersede", "  suspend: true\n  on_supersede")

    working.once()

    assert ["running"] == [status for _, status in jobs(platform)]


def test_a_run_is_superseded_as_a_job_is(working: Applier, platform: MemoryPlatform, tree: Path) -> None:
    measure = tree / "measure.yaml"
    measure.write_text(measure.read_text() + RUN)
    working.passes(2)
    edit(measure, "on_supersede: cancel", "on_supersede: cancel, attempt: 2")

    working.once()

    [runs] = [found for name, found in platform.objects.items() if name.endswith("/runs")]
    assert ["canceled", "in_progress"] == [run["status"] for run in runs]


def test_the_policy_is_no_part_of_an_identity(working: Applier, platform: MemoryPlatform, tree: Path) -> None:
    says(tree, "finish")

    done = working.once()

    assert "…" == action(done, TUNED)
    assert 1 == len(jobs(platform))
