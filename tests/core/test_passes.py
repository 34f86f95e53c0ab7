"""A pass: what is ready is done, what is not waits, and what is broken says so and stops nothing else."""

from pathlib import Path

import pytest
from core_base import Applier, Clock, action, edit, why, write
from memory_platform import MemoryPlatform

from reconciler import engine, project
from reconciler.errors import ManifestError, ReconcilerError, Unreachable
from reconciler.journal import Journal

RULE, TUNED = "PromotionRule/production", "FineTuneJob/tuned"
JUDGE = """\
apiVersion: reconciler/v1
kind: Grader
metadata: {name: exact}
spec:
  type: score_model
  model: FineTuneJob/tuned
  input: [{role: user, content: "{{ sample.output_text }}"}]
"""
SECOND_RULE = """
---
apiVersion: reconciler/v1
kind: PromotionRule
metadata: {name: second}
spec:
  channel: demo/production
  candidates: [Model/base]
  gates: [{eval: Eval/right, at_least: 0.1}]
"""


def finished(applier: Applier, platform: MemoryPlatform, base: int = 0, tuned: int = 200) -> engine.Pass:
    """Passes until nothing can change; so many of 200 items pass."""
    for _ in range(20):
        done = applier.passes(1)
        if done.settled:
            return done
        platform.finish_jobs()
        platform.finish_runs(lambda model, index: index < (tuned if model.startswith("ft:") else base))
    raise AssertionError("it never settled")


def test_a_better_model_is_promoted(applier: Applier, platform: MemoryPlatform) -> None:
    done = finished(applier, platform)

    assert "=" == action(done, RULE)
    assert [("demo/production", "ft:ftjob-4")] == [
        (alias["name"], alias["model"]) for alias in platform.objects["reconciler/aliases"]
    ]


@pytest.mark.parametrize("tuned, says", [(20, "fails"), (165, "is inconclusive on")])
def test_what_does_not_pass_is_not_promoted(
    applier: Applier, platform: MemoryPlatform, tuned: int, says: str
) -> None:
    done = finished(applier, platform, tuned=tuned)

    assert f"{TUNED} {says} a gate: " in why(done, RULE)
    assert [] == platform.objects.get("reconciler/aliases", [])


def test_a_settled_world_is_asked_for_nothing(applier: Applier, platform: MemoryPlatform) -> None:
    finished(applier, platform)
    asked = len(platform.asked)

    done = applier.once()

    assert done.settled
    assert asked == len(platform.asked)


def test_a_release_moves_back_in_one_pass_and_nothing_is_trained(
    applier: Applier, platform: MemoryPlatform, tree: Path
) -> None:
    finished(applier, platform)
    edit(tree / "train.yaml", "n_epochs: 2", "n_epochs: 3")
    finished(applier, platform)
    asked = len(platform.asked)
    edit(tree / "train.yaml", "n_epochs: 3", "n_epochs: 2")

    done = applier.once()

    assert done.settled
    assert ["reconciler/aliases"] == [collection for collection, _ in platform.asked[asked:]]
    assert "ft:ftjob-4" == platform.objects["reconciler/aliases"][0]["model"]


def test_a_release_moved_by_hand_is_moved_back(applier: Applier, platform: MemoryPlatform) -> None:
    finished(applier, platform)
    platform.objects["reconciler/aliases"][0].update(model="tiny-chat", metadata={})

    done = applier.once()

    assert done.settled
    assert "ft:ftjob-4" == platform.objects["reconciler/aliases"][0]["model"]


def test_a_channel_of_another_project_is_left_alone(applier: Applier, platform: MemoryPlatform) -> None:
    finished(applier, platform)
    theirs = platform.objects["reconciler/aliases"][0]
    theirs.update(model="theirs", metadata={**theirs["metadata"], "reconciler_project": "another"})

    done = applier.once()

    assert "demo/production belongs to the project another; choose another channel" == why(done, RULE)
    assert "theirs" == platform.objects["reconciler/aliases"][0]["model"]


def test_what_uses_a_judge_that_is_still_trained_waits_for_it(
    applier: Applier, platform: MemoryPlatform, tree: Path
) -> None:
    text = (tree / "measure.yaml").read_text()
    before, _, after = text.partition("apiVersion: reconciler/v1\nkind: Grader")
    (tree / "measure.yaml").write_text(f"{before}{JUDGE}---{after.partition('---')[2]}")

    waiting = applier.once()
    platform.objects["fine_tuning/jobs"][0].update(status="failed", error={"message": "diverged"})
    stuck = applier.once()

    assert "+" == action(waiting, "Eval/right")
    assert 0 == platform.count("evals")
    assert ["!", f"waits for {TUNED}"] == [action(stuck, "Eval/right"), why(stuck, "Eval/right")]
    assert stuck.settled


def test_two_rules_never_fight_for_one_channel(tree: Path) -> None:
    write(tree, {"promote.yaml": (tree / "promote.yaml").read_text() + SECOND_RULE})

    with pytest.raises(ManifestError) as refused:
        project.load(tree)

    assert ["the channel demo/production is PromotionRule/production's already; choose another"] == [
        problem.what for problem in refused.value.problems
    ]


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize("bound", ["at_least", "at_most"])
def test_a_bound_is_a_number_that_can_be_reached(tree: Path, bound: str, number: str) -> None:
    edit(tree / "promote.yaml", "at_least: 0.8", f"{bound}: {number}")

    with pytest.raises(ManifestError) as refused:
        project.load(tree)

    what = "the number is not finite; put it in quotes if it is text"
    assert what in [problem.what for problem in refused.value.problems]


def test_every_dangling_reference_of_a_resource_is_told(tree: Path) -> None:
    edit(tree / "train.yaml", "model: Model/base", "model: Model/bass")
    edit(tree / "train.yaml", "training_file: Dataset/train", "training_file: Dataset/trane")

    with pytest.raises(ManifestError) as refused:
        project.load(tree)

    assert [
        "there is no Model/bass; did you mean Model/base?",
        "there is no Dataset/trane; did you mean Dataset/train?",
    ] == [problem.what for problem in refused.value.problems]


def test_a_platform_out_of_sight_is_waited_for_a_minute(
    applier: Applier, platform: MemoryPlatform, clock: Clock
) -> None:
    start = clock.at

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        platform.unseen = {"evals": Unreachable("connection refused")}

    with pytest.raises(Unreachable, match="connection refused"):
        engine.settle(applier.desired, applier.world, applier.creator, Watcher(), sleep)

    assert 60 < clock.at - start < 90


def test_a_platform_out_of_sight_at_first_is_told_at_once(
    applier: Applier, platform: MemoryPlatform, clock: Clock
) -> None:
    platform.unseen = {"evals": Unreachable("connection refused")}

    with pytest.raises(Unreachable, match="connection refused"):
        applier.settle()

    assert [] == clock.slept


@pytest.mark.parametrize("garbled", [{"id": "x"}, {}, {"id": "x", "status": ["running"]}])
def test_an_object_that_cannot_be_understood_is_not_taken_for_none(
    applier: Applier, platform: MemoryPlatform, garbled: dict[str, object]
) -> None:
    finished(applier, platform)
    asked = len(platform.asked)
    platform.objects["fine_tuning/jobs"] = [{**garbled, "metadata": {"reconciler_project": "demo"}}]

    done = applier.once()

    assert (
        "memory listed an object of FineTuneJob that lacks or garbles a field" in done.unseen["FineTuneJob"]
    )
    assert asked == len(platform.asked)


@pytest.mark.parametrize("content", [b"no database, " * 100, b"SQLite format 3\0" + b"\xff" * 2000])
def test_a_broken_journal_gets_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)

    with pytest.raises(ReconcilerError) as refused:
        Journal.at(path)
    with pytest.raises(ReconcilerError):
        peeked = Journal.peek(f"sqlite:///{path}")
        assert peeked
        peeked.recall("memory")

    assert f"{path}" in str(refused.value)


class Watcher:
    def uploading(self, *_: object) -> None: ...

    def made(self, *_: object) -> None: ...

    def waiting(self, *_: object) -> None: ...
