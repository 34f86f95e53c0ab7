"""A gate whose judge is measured on answers that people judged, in a run of its own that the rule rests on."""

import json
from pathlib import Path
from typing import Any

import pytest
from core_base import Applier, edit, why, write
from memory_platform import MemoryPlatform, output_item

from reconciler import engine, plan, project
from reconciler.engine import Pass
from reconciler.errors import ManifestError
from reconciler.resource import Address

RULE, JUDGING = "PromotionRule/production", "EvalRun/right@Dataset/judged"
GATE = "at_least: 0.8, calibration: {dataset: Dataset/judged, label: fine}"
JUDGED = """
---
apiVersion: reconciler/v1
kind: Dataset
metadata: {name: judged}
spec: {file: judged.jsonl, format: items}
"""


def rows(good: int = 100, bad: int = 100) -> list[dict[str, Any]]:
    """Answers with the truth that people wrote about them."""
    truths = [True] * good + [False] * bad
    return [
        {"item": {"question": f"say {n}", "expected": "x", "fine": fine}, "sample": {"output_text": f"{n}"}}
        for n, fine in enumerate(truths)
    ]


def written(tree: Path, found: list[dict[str, Any]]) -> None:
    write(tree, {"judged.jsonl": "".join(json.dumps(row) + "\n" for row in found)})


@pytest.fixture
def judged(tree: Path) -> Path:
    write(tree, {"measure.yaml": (tree / "measure.yaml").read_text() + JUDGED})
    edit(tree / "promote.yaml", "at_least: 0.8", GATE)
    written(tree, rows())
    return tree


def runs(platform: MemoryPlatform) -> dict[str, dict[str, Any]]:
    found = (each for name, all_ in platform.objects.items() if name.endswith("/runs") for each in all_)
    return {run["name"]: run for run in found}


def finished(
    applier: Applier, platform: MemoryPlatform, tuned: int, passes: float, fails: float, errors: int = 0
) -> Pass:
    """Passes until nothing can change; the judge passes such a share of the good and fails such a share of the bad."""
    for _ in range(20):
        done = applier.passes(1)
        if done.settled:
            return done
        platform.finish_jobs()
        for run in [each for each in runs(platform).values() if each["status"] == "in_progress"]:
            at = f"evals/{run['eval_id']}/runs"
            if run["data_source"]["type"] == "jsonl":
                grade(platform, at, run, passes, fails, errors)
            else:
                right = tuned if run["data_source"]["model"].startswith("ft:") else 0
                platform._complete(at, run, lambda _, index, right=right: index < right, 200)
    raise AssertionError("it never settled")


def grade(
    platform: MemoryPlatform, at: str, run: dict[str, Any], passes: float, fails: float, errors: int
) -> None:
    """The judge grades every answer; the first so many it cannot."""
    listed = []
    for index, row in enumerate(rows()):
        fine = row["item"]["fine"]
        right = index < 100 * passes if fine else index - 100 >= 100 * fails
        listed.append(output_item(index, right) | {"datasource_item": row["item"]})
    for item in listed[:errors]:
        item["status"] = "error"
    run.update(status="completed", result_counts={"total": 200, "passed": 0, "failed": 0, "errored": errors})
    platform.objects[f"{at}/{run['id']}/output_items"] = listed


def problems(tree: Path) -> list[str]:
    with pytest.raises(ManifestError) as refused:
        project.load(tree)
    return [problem.what for problem in refused.value.problems]


def test_the_judge_grades_the_judged_answers_once_and_nothing_is_sampled_for_that(
    applier: Applier, platform: MemoryPlatform, judged: Path
) -> None:
    finished(applier, platform, 200, passes=1.0, fails=1.0)

    assert ["right@Dataset/judged", "right@FineTuneJob/tuned", "right@Model/base"] == sorted(runs(platform))
    source = runs(platform)["right@Dataset/judged"]["data_source"]
    [file] = [each for each in platform.objects["files"] if each["filename"].startswith("judged@")]
    assert {"type": "jsonl", "source": {"type": "file_id", "id": file["id"]}} == source
    [alias] = platform.objects["reconciler/aliases"]
    assert JUDGING in [run["address"] for run in alias["release"]["lineage"]["runs"]]
    said = alias["release"]["evidence"][0]
    assert "its judge passes 100 of 100 good and fails 100 of 100 bad answers" in said["sentence"]
    assert "Rogan-Gladen with Lang-Reiczigel" == said["method"]


def test_a_kind_judge_takes_a_promotion_away(
    applier: Applier, platform: MemoryPlatform, judged: Path
) -> None:
    done = finished(applier, platform, 180, passes=1.0, fails=0.5)

    assert "FineTuneJob/tuned is inconclusive on a gate: pass_rate 80.0%" in why(done, RULE)
    assert [] == platform.objects.get("reconciler/aliases", [])


def test_a_judge_that_guesses_decides_nothing(
    applier: Applier, platform: MemoryPlatform, judged: Path
) -> None:
    done = finished(applier, platform, 200, passes=0.5, fails=0.5)

    assert "not comparable: the judge passes 50 of 100 good answers and fails 50 of 100 bad ones" in why(
        done, RULE
    )


def test_a_judge_that_could_not_grade_too_many_decides_nothing(
    applier: Applier, platform: MemoryPlatform, judged: Path
) -> None:
    done = finished(applier, platform, 200, passes=1.0, fails=1.0, errors=11)

    assert "6% of the calibration's answers got no grade or have no label, at most 5% may" in why(done, RULE)


def test_the_run_is_part_of_what_the_rule_is(tree: Path, judged: Path) -> None:
    before = project.load(judged).desired
    written(judged, [*rows()[:-1], {**rows()[-1], "sample": {"output_text": "another"}}])
    after = project.load(judged).desired

    assert {"Dataset/judged", JUDGING, RULE} == {
        str(a) for a in before if before[a].fingerprint != after[a].fingerprint
    }
    assert after[Address.parse(JUDGING)].implied


def test_a_label_is_identity_of_the_rule_alone(judged: Path) -> None:
    written(judged, [{**row, "item": row["item"] | {"good": True}} for row in rows()])
    before = project.load(judged).desired
    both = [{**row, "item": row["item"] | {"good": row["item"]["fine"]}} for row in rows()]
    written(judged, both)
    before = project.load(judged).desired
    edit(judged / "promote.yaml", "label: fine", "label: good")
    after = project.load(judged).desired

    assert {RULE} == {str(a) for a in before if before[a].fingerprint != after[a].fingerprint}


def test_the_plan_shows_the_run_and_says_what_it_is_for(applier: Applier, judged: Path) -> None:
    sight = engine.look(applier.desired, applier.world)

    steps = plan.make(applier.desired, applier.world.kinds, sight.actual, {}, {}).steps

    assert "+" == next(str(step.action) for step in steps if str(step.address) == JUDGING)
    [notes] = [step.notes for step in steps if str(step.address) == RULE]
    assert "gates[0] right: its judge is measured on 200 answers of Dataset/judged" in " ".join(notes)


@pytest.mark.parametrize(
    "found, what",
    [
        ([{**row, "sample": {}} if n > 7 else row for n, row in enumerate(rows())],
         'Dataset/judged: 192 rows have no answer; write it beside the item as "sample": {"output_text": "..."}; '
         "the first is line 9"),
        ([{**row, "item": {"question": "q", "expected": "x", "fine": "yes"}} for row in rows()],
         "Dataset/judged: 200 rows do not say in fine whether the answer is good, true or false; the first is line 1"),
        (rows(5, 0), "Dataset/judged: fine calls every answer good; a judge is measured on good and bad ones"),
    ],
    ids=["no-answer", "no-truth", "all-good"],
)  # fmt: skip
def test_rows_that_measure_no_judge_are_told(judged: Path, found: list[dict[str, Any]], what: str) -> None:
    written(judged, found)

    assert [what] == problems(judged)


@pytest.mark.parametrize(
    "written_so, what",
    [
        ("{dataset: Dataset/judged}", "gates[0].calibration.label: is required"),
        ("{dataset: Dataset/judgd, label: fine}", "there is no Dataset/judgd; did you mean Dataset/judged?"),
        ("{good: 10, good_passed: 9}", "gates[0].calibration.bad: is required"),
    ],
)
def test_a_calibration_is_one_of_two_things(judged: Path, written_so: str, what: str) -> None:
    edit(judged / "promote.yaml", "{dataset: Dataset/judged, label: fine}", written_so)

    assert what in problems(judged)


def test_a_run_without_a_model_asks_nothing(judged: Path) -> None:
    run = """
---
apiVersion: reconciler/v1
kind: EvalRun
metadata: {name: by-hand}
spec: {eval: Eval/right, dataset: Dataset/judged, prompt: Prompt/ask}
"""
    write(judged, {"measure.yaml": (judged / "measure.yaml").read_text() + run})

    what = "a run that asks something needs a model; without one it grades the rows' answers"
    assert [what] == problems(judged)
