"""A plan that was written down is carried out exactly, once, and only while what it rests on holds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from core_base import ROWS, Applier, Clock, edit
from memory_platform import MemoryPlatform, loses_reply
from plans_base import RULE, passes, planned, saved, written

from reconciler import release, savedplan
from reconciler.cli import terms
from reconciler.errors import ReconcilerError, Refused
from reconciler.journal import Journal
from reconciler.savedplan import Absent, Leads, Stands

JOB = "FineTuneJob/tuned"
SETTLED = 5  # passes that make everything of the small tree


def facts(plan: savedplan.SavedPlan, address: str) -> list[object]:
    return list(next(each for each in plan.actions if each.address == address).facts)


def settle(applier: Applier) -> None:
    passes(applier, terms.FREE, SETTLED)


def test_an_action_rests_on_its_own_facts_and_no_others(applier: Applier) -> None:
    plan = saved(applier)

    assert [Absent()] == facts(plan, "Dataset/train")
    assert [Absent(), Stands(address="Model/base", id="tiny-chat")] == facts(plan, JOB)
    assert [Absent()] == facts(plan, "Eval/right")
    assert [Leads(channel="demo/production"), Stands(address="Model/base", id="tiny-chat")] == facts(
        plan, RULE
    )


def test_a_saved_plan_is_carried_out_to_its_end(applier: Applier, platform: MemoryPlatform) -> None:
    plan = saved(applier)

    done = passes(applier, terms.planned(plan), SETTLED)

    assert done.settled
    assert "ft:" in str(platform.objects["reconciler/aliases"][0]["model"])


def test_a_plan_that_was_carried_out_is_refused_the_second_time(applier: Applier) -> None:
    plan = saved(applier)
    passes(applier, terms.planned(plan), SETTLED)

    with pytest.raises(Refused, match="carried out before"):
        passes(applier, terms.planned(plan))


def test_two_plans_of_the_same_moment_in_history_are_two_plans(applier: Applier) -> None:
    assert saved(applier).digest == saved(applier).digest
    assert saved(applier).digest != saved(applier, "2026-11-25T12:00:01+00:00").digest


@pytest.mark.parametrize(
    "file, before, after",
    [
        ("train.yaml", "{id: tiny-chat}", "{id: tiny-chat, description: The base.}"),
        ("promote.yaml", "  channel:", "  description: Ours.\n  channel:"),
        ("project.yaml", "{name: demo}", "{name: demo, labels: {team: a}}"),
    ],
)
def test_a_description_stales_no_plan(
    applier: Applier, tree: Path, file: str, before: str, after: str
) -> None:
    plan = saved(applier)
    edit(tree / file, before, after)

    assert passes(applier, terms.planned(plan), SETTLED).settled


def test_another_resource_stales_no_plan_and_is_not_made(
    applier: Applier, platform: MemoryPlatform, tree: Path
) -> None:
    plan = saved(applier)
    (tree / "more.yaml").write_text(
        "apiVersion: reconciler/v1\nkind: Dataset\nmetadata: {name: more}\nspec: {file: more.jsonl, format: chat}\n"
    )
    (tree / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[1:]))

    done = passes(applier, terms.planned(plan), SETTLED)

    said = next(step.decision for step in done.steps if str(step.address) == "Dataset/more")
    assert "it is not in the plan that is applied; plan again to have it made" == said.why
    assert not [f for f in platform.objects["files"] if str(f["filename"]).startswith("more@")]
    assert done.settled


@pytest.mark.parametrize(
    "file, before, after, named",
    [
        ("train.yaml", "n_epochs: 2", "n_epochs: 3", "FineTuneJob/tuned asks for something else"),
        ("train.jsonl", "say 4", "say four", "Dataset/train asks for something else"),
        (
            "promote.yaml",
            "at_least: 0.8",
            "at_least: 0.1",
            "PromotionRule/production asks for something else",
        ),
        ("promote.yaml", "production", "other", "PromotionRule/production is not wanted any more"),
    ],
)
def test_what_asks_for_something_else_stales_the_plan(
    applier: Applier, platform: MemoryPlatform, tree: Path, file: str, before: str, after: str, named: str
) -> None:
    plan = saved(applier)
    edit(tree / file, before, after)

    with pytest.raises(Refused, match=named):
        passes(applier, terms.planned(plan))

    assert [] == platform.asked


def test_an_object_that_somebody_else_made_stales_the_plan(
    applier: Applier, tree: Path, platform: MemoryPlatform, tmp_path: Path
) -> None:
    plan = saved(applier)
    elsewhere = Applier(tree, platform, Clock(), "there:1:1")
    elsewhere.creator = replace(elsewhere.creator, journal=Journal.at(tmp_path / "elsewhere.db"))
    elsewhere.once()

    with pytest.raises(Refused, match="Dataset/heldout stands already, as file-"):
        passes(applier, terms.planned(plan))


def test_an_object_that_was_built_upon_and_is_another_now_stales_the_plan(
    applier: Applier, tree: Path, platform: MemoryPlatform
) -> None:
    settle(applier)
    edit(tree / "train.yaml", "n_epochs: 2", "n_epochs: 3")
    plan = saved(applier)
    [file] = [each for each in platform.objects["files"] if each["filename"].startswith("train@")]
    file["id"] = "file-other"

    with pytest.raises(
        Refused, match=r"Dataset/train, on which FineTuneJob/tuned builds, was .* file-other now"
    ):
        passes(applier, terms.planned(plan))


def test_a_channel_that_somebody_holds_stales_the_plan(
    applier: Applier, tree: Path, platform: MemoryPlatform
) -> None:
    settle(applier)
    edit(tree / "promote.yaml", "at_least: 0.8", "at_least: 0.7")
    plan = saved(applier)
    [alias] = platform.objects["reconciler/aliases"]
    word = release.Word("ada", "2026-11-25", "wait")
    alias |= release.written(release.held(release.read(alias), word))

    with pytest.raises(Refused, match=r"demo/production was free and is held \(ada .*wait\) now"):
        passes(applier, terms.planned(plan))


def test_a_channel_that_leads_elsewhere_stales_the_plan(
    applier: Applier, tree: Path, platform: MemoryPlatform
) -> None:
    settle(applier)
    edit(tree / "promote.yaml", "at_least: 0.8", "at_least: 0.7")
    plan = saved(applier)
    platform.objects["reconciler/aliases"][0]["model"] = "ft:other"

    with pytest.raises(Refused, match=r"demo/production led to ft:.* and leads to ft:other now"):
        passes(applier, terms.planned(plan))


@pytest.mark.parametrize("count", (1, 2))
def test_a_plan_that_was_interrupted_is_gone_on_with(
    applier: Applier, platform: MemoryPlatform, count: int
) -> None:
    plan = saved(applier)
    passes(applier, terms.planned(plan), count)

    done = passes(applier, terms.planned(plan), SETTLED)

    assert done.settled
    assert 1 == platform.count("fine_tuning/jobs")
    with pytest.raises(Refused, match="carried out before"):
        passes(applier, terms.planned(plan))


def test_a_reply_that_was_lost_is_the_plans_own_doing(applier: Applier, platform: MemoryPlatform) -> None:
    plan = saved(applier)
    platform.faults["files"] = [loses_reply]
    passes(applier, terms.planned(plan), 1)

    done = passes(applier, terms.planned(plan), SETTLED)

    assert done.settled


def test_a_plan_that_was_begun_does_not_excuse_what_others_moved(
    applier: Applier, platform: MemoryPlatform
) -> None:
    plan = saved(applier)
    passes(applier, terms.planned(plan), 1)
    platform.objects["reconciler/aliases"] = [
        {"name": "demo/production", "model": "ft:other", "created_at": 1}
    ]

    with pytest.raises(Refused, match="led nowhere and leads to ft:other now"):
        passes(applier, terms.planned(plan))


def test_a_plan_that_was_edited_is_refused(applier: Applier, tmp_path: Path) -> None:
    path = written(tmp_path / "plan.json", saved(applier))
    edit(path, '"action": "create"', '"action": "update"')

    with pytest.raises(Refused, match="changed after it was written"):
        savedplan.read(path)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"version": 2}', "nonsense", "\xff", '{"version": 1, "a": 2}']
)
def test_what_is_no_plan_gets_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)

    with pytest.raises(ReconcilerError, match=r"is no plan that this version reads .*reconciler plan --out"):
        savedplan.read(path)


def test_a_plan_of_another_project_is_refused(applier: Applier) -> None:
    plan = saved(applier).model_copy(update={"project": "other"})

    with pytest.raises(Refused, match="is for the project other"):
        passes(applier, terms.planned(plan))


def test_a_saved_plan_holds_no_row_and_reads_back_as_it_was(applier: Applier, tmp_path: Path) -> None:
    plan = saved(applier)
    path = written(tmp_path / "plan.json", plan)

    assert plan == savedplan.read(path)
    assert not [row for row in ROWS if row["messages"][0]["content"] in path.read_text()]


def test_what_was_approved_is_done_and_nothing_else(
    applier: Applier, tree: Path, platform: MemoryPlatform
) -> None:
    approved = saved(applier)
    edit(tree / "train.yaml", "n_epochs: 2", "n_epochs: 3")

    with pytest.raises(
        Refused, match=r"nobody approved to create FineTuneJob/tuned .*approved was to create"
    ):
        passes(applier, terms.approved(approved))

    assert [] == platform.asked


def test_a_subset_of_what_was_approved_is_done(applier: Applier, platform: MemoryPlatform) -> None:
    approved = saved(applier)
    passes(applier, terms.building(), SETTLED)

    assert {RULE} == {str(s.address) for s in planned(applier).steps if s.action in savedplan.ACTING}
    done = passes(applier, terms.approved(approved), SETTLED)

    assert done.settled
    assert platform.objects["reconciler/aliases"]
