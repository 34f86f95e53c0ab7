"""What no manifest wants goes, and nothing that anything else still needs."""

from pathlib import Path

import pytest
from core_base import Clock, edit
from own_base import Owner, Shop, owner, without

from reconciler import ownership
from reconciler.errors import Rejected, Unclear, Unreachable
from reconciler.kind import Action
from reconciler.pruning import Policy
from reconciler.resource import Address

SPARE = """
---
apiVersion: reconciler/v1
kind: Dataset
metadata: {name: spare}
spec: {file: spare.jsonl, format: chat}
---
apiVersion: reconciler/v1
kind: FineTuneJob
metadata: {name: spare}
spec:
  model: Model/base
  training_file: Dataset/spare
  method: {type: supervised, supervised: {hyperparameters: {n_epochs: 7}}}
"""


def add_spare(demo: Owner, text: str = SPARE) -> None:
    """A dataset and a job that nothing else uses."""
    rows = (demo.root / "train.jsonl").read_text().replace("say", "tell")
    (demo.root / "spare.jsonl").write_text(rows)
    (demo.root / "spare.yaml").write_text(text.removeprefix("\n---\n"))


def ids(demo: Owner, collection: str, field: str = "id") -> list[str]:
    return [each[field] for each in demo.platform.objects[collection]]


def test_a_settled_project_has_nothing_to_prune(demo: Owner) -> None:
    assert () == demo.decided(Policy(superseded=True))


def test_what_lost_its_manifest_goes_dependents_first(demo: Owner) -> None:
    add_spare(demo)
    demo.done()
    (demo.root / "spare.yaml").unlink()
    job, file = ids(demo, "fine_tuning/jobs")[-1], ids(demo, "files")[-1]

    pruned = demo.prune()

    assert [("models", f"ft:{job}"), ("files", file)] == demo.platform.deleted
    assert {} == pruned.failed
    assert [] == [each for each in demo.decided() if not each.kept]


def test_what_a_pull_request_may_have_built_lately_does_not_go_by_itself(demo: Owner) -> None:
    add_spare(demo)
    demo.done()
    (demo.root / "spare.yaml").unlink()
    made = max(each["created_at"] for each in demo.platform.objects["fine_tuning/jobs"])

    young = demo.decided(Policy(before=made))
    old = demo.decided(Policy(before=made + 1))

    assert {True} == {
        "perhaps by a pull request" in each.kept for each in young if each.kind == "FineTuneJob"
    }
    assert {""} == {each.kept for each in old}


def test_each_deletion_is_in_the_history(demo: Owner) -> None:
    add_spare(demo)
    demo.done()
    (demo.root / "spare.yaml").unlink()

    demo.prune()

    event = demo.journal.events(Address("Dataset", "spare"))[0]
    assert ("deleted", "ada", "no manifest wants Dataset/spare") == (
        event["event"],
        event["by"],
        event["reason"],
    )


def test_a_job_whose_model_was_pruned_is_trained_again_when_it_is_wanted_again(demo: Owner) -> None:
    add_spare(demo)
    demo.done()
    text = (demo.root / "spare.yaml").read_text()
    (demo.root / "spare.yaml").unlink()
    demo.prune()
    (demo.root / "spare.yaml").write_text(text)
    before = demo.platform.count("fine_tuning/jobs")

    done = demo.done()

    assert before + 1 == demo.platform.count("fine_tuning/jobs")
    step = next(each for each in done.steps if str(each.address) == "FineTuneJob/spare")
    assert Action.KEEP is step.action
    assert step.decision.observed.body["fine_tuned_model"] in ids(demo, "models")


def test_a_run_of_work_keeps_what_it_uses(demo: Owner) -> None:
    add_spare(demo)
    demo.passes(3)  # the job runs
    (demo.root / "spare.yaml").unlink()
    job, file = ids(demo, "fine_tuning/jobs")[-1], ids(demo, "files")[-1]

    kept = demo.look()

    assert {
        job: "it still works; it can go when it has ended",
        file: f"FineTuneJob/spare needs it ({job})",
    } == kept


def test_what_a_release_led_to_before_stays(demo: Owner) -> None:
    first = ids(demo, "fine_tuning/jobs")[0]
    edit(demo.root / "train.yaml", "n_epochs: 2", "n_epochs: 3")
    demo.done()

    kept = demo.look(Policy(superseded=True))

    assert "release demo/production leads to it, or led to it before" == kept[first]


def test_old_versions_go_only_when_they_are_asked_for(demo: Owner) -> None:
    add_spare(demo)
    demo.done()
    first = ids(demo, "fine_tuning/jobs")[-1]
    edit(demo.root / "spare.yaml", "n_epochs: 7", "n_epochs: 8")
    demo.done()

    assert {} == demo.look()
    assert {first: ""} == demo.look(Policy(superseded=True))


def test_a_channel_goes_with_destroy_alone_and_keeps_what_it_leads_to(demo: Owner) -> None:
    for file, kind, name in (
        ("promote.yaml", "PromotionRule", "production"),
        ("train.yaml", "FineTuneJob", "tuned"),
    ):
        without(demo.root, file, kind, name)

    kept = demo.look()

    [job] = ids(demo, "fine_tuning/jobs")
    assert (
        "applications may call demo/production; a channel goes with `reconciler destroy` alone"
        == kept["demo/production"]
    )
    assert "release demo/production leads to it, or led to it before" == kept[job]
    assert "" not in kept.values()


def test_an_eval_takes_only_runs_of_ours_along(demo: Owner) -> None:
    demo.platform.objects.pop("reconciler/aliases")
    for file in ("promote.yaml", "measure.yaml"):
        (demo.root / file).unlink()
    [measure] = ids(demo, "evals")
    theirs = {"id": "theirs", "eval_id": measure, "status": "completed", "created_at": 0, "metadata": {}}
    demo.platform.objects[f"evals/{measure}/runs"].append({**theirs, "data_source": {}})

    kept = demo.look(Policy(fuse=100))

    assert "EvalRun needs it (theirs)" == kept[measure]
    assert "theirs" not in kept


def test_another_projects_objects_are_never_touched(tmp_path: Path, platform: Shop, clock: Clock) -> None:
    ours, theirs = (
        owner(tmp_path / "ours", platform, clock, "ours"),
        owner(tmp_path / "theirs", platform, clock, "theirs"),
    )
    theirs.done()
    before = platform.standing()
    ours.done()
    for file in ("promote.yaml", "measure.yaml", "train.yaml"):
        (ours.root / file).unlink()
    platform.objects["reconciler/aliases"] = [
        each for each in platform.objects["reconciler/aliases"] if each["name"].startswith("theirs")
    ]

    ours.prune(Policy(fuse=100), empty=True)

    assert platform.deleted
    assert before <= platform.standing()


@pytest.mark.parametrize("collection", ["files", "evals", "models", "fine_tuning/jobs", "reconciler/aliases"])
def test_what_cannot_be_seen_lets_nothing_go(demo: Owner, collection: str) -> None:
    add_spare(demo)
    demo.done()
    (demo.root / "spare.yaml").unlink()
    demo.platform.unseen[collection] = Unreachable("it is down")

    pruned = demo.prune()

    assert [] == demo.platform.deleted
    assert all(each.kept for each in pruned.deletions)


@pytest.mark.parametrize("collection", ["files", "evals", "fine_tuning/jobs", "reconciler/aliases"])
def test_a_list_that_came_back_empty_lets_nothing_go(demo: Owner, collection: str) -> None:
    add_spare(demo)
    demo.done()
    (demo.root / "spare.yaml").unlink()
    (demo.root / "promote.yaml").unlink()
    demo.platform.unseen[collection] = None

    kept = demo.look(Policy(superseded=True, fuse=100))

    assert kept
    assert {f"the list of {KINDS[collection]} came back without"} == {
        why.rpartition(" without")[0] + " without" for why in kept.values()
    }


KINDS = {
    "files": "Dataset",
    "evals": "Eval",
    "fine_tuning/jobs": "FineTuneJob",
    "reconciler/aliases": "PromotionRule",
}


def test_a_list_that_is_truly_empty_is_believed(demo: Owner) -> None:
    add_spare(demo)
    demo.done()
    (demo.root / "spare.yaml").unlink()
    (demo.root / "promote.yaml").unlink()
    demo.platform.objects["reconciler/aliases"].clear()

    assert "" in demo.look(Policy(fuse=100)).values()


def test_more_than_the_fuse_lets_nothing_go(demo: Owner) -> None:
    demo.platform.objects["reconciler/aliases"].clear()
    for file in ("promote.yaml", "measure.yaml"):
        (demo.root / file).unlink()

    blown = demo.prune()
    after = demo.prune(Policy(fuse=4))

    assert {"the fuse is blown: 4 would go, one pass lets 3 through; look, then say --fuse 4"} == {
        each.kept for each in blown.deletions
    }
    assert 4 == len(after.done)


def test_what_was_asked_for_and_is_not_seen_yet_lets_nothing_go(demo: Owner) -> None:
    add_spare(demo)
    demo.done()
    (demo.root / "spare.yaml").unlink()
    claim = demo.journal.claim("memory", "f", "me", demo.clock.now())
    demo.journal.open_intent(claim, Address("EvalRun", "late"), demo.clock.now())  # type: ignore[arg-type]

    assert {"EvalRun/late was asked for and is not seen yet; nothing is deleted until it is"} == set(
        demo.look().values()
    )


def test_a_lost_reply_ends_the_pass_and_the_next_one_looks_again(demo: Owner) -> None:
    add_spare(demo)
    demo.done()
    (demo.root / "spare.yaml").unlink()
    job, file = ids(demo, "fine_tuning/jobs")[-1], ids(demo, "files")[-1]
    demo.platform.refuses[f"ft:{job}"] = Unclear("connection reset")

    first = demo.prune()
    second = demo.prune()

    assert {job: "connection reset; the next pass looks again"} == first.failed
    assert [job, file] == [each.observed.id for each in second.done]


def test_what_is_refused_keeps_what_it_needs(demo: Owner) -> None:
    demo.platform.objects["reconciler/aliases"].clear()
    for file in ("promote.yaml", "measure.yaml"):
        (demo.root / file).unlink()
    [measure] = ids(demo, "evals")
    run = ids(demo, f"evals/{measure}/runs")[0]
    demo.platform.refuses[run] = Rejected("409: it is read")

    pruned = demo.prune(Policy(fuse=10))

    assert "409: it is read" == pruned.failed[run]
    assert f"{measure} is needed by what could not be deleted" == pruned.failed[measure]
    assert [measure] == ids(demo, "evals")


def test_destroying_ends_what_works_and_takes_everything_of_ours(
    demo: Owner, tmp_path: Path, platform: Shop
) -> None:
    before = platform.standing()
    other = owner(tmp_path / "theirs", platform, demo.clock, "theirs")
    other.done()
    theirs = platform.standing() - before
    add_spare(demo)
    demo.passes(3)  # its job runs
    first, *_, last = (job for job in ids(demo, "fine_tuning/jobs") if job not in theirs)

    found = demo.decided(Policy(everything=True))
    done = ownership.carry_out(found, demo.world, demo.creator, "ada")

    assert ({}, "cancelled") == (done.failed, platform.get("fine_tuning/jobs", last)["status"])  # type: ignore[index]
    assert theirs | {first, last} == platform.standing()  # of a job, only its model can go
    assert () == demo.decided(Policy(everything=True))
    assert () == other.once().made


def test_what_somebody_else_needs_is_not_destroyed(demo: Owner, platform: Shop) -> None:
    [job] = ids(demo, "fine_tuning/jobs")
    stamp = {
        "reconciler_project": "theirs",
        "reconciler_address": "PromotionRule/a",
        "reconciler_fingerprint": "f",
    }
    alias = {"name": "theirs/a", "model": f"ft:{job}", "metadata": stamp, "created_at": 1}
    platform.objects["reconciler/aliases"].append(alias)

    kept = {each.observed.id: each.kept for each in demo.decided(Policy(everything=True))}

    assert "release theirs/a of the project theirs leads to it, or led to it before" == kept[job]
    assert "" == kept["demo/production"]
