"""Several samples of every item: runs with seeds of their own, averaged within the item before anything is judged."""

from pathlib import Path

import pytest
from core_base import Applier, edit, why
from memory_platform import MemoryPlatform

from reconciler import engine, plan, project
from reconciler.engine import Pass
from reconciler.kinds.promotionrule import KIND
from reconciler.resource import Address
from reconciler.subject import run_of, samples_of

RULE, TUNED, BASE = "PromotionRule/production", "FineTuneJob/tuned", "Model/base"
WARM = "prompt: Prompt/ask\n  sampling_params: {temperature: 1}\n  samples_per_item: 3"


@pytest.fixture
def sampled(tree: Path) -> Path:
    """A tree whose items are answered three times."""
    edit(tree / "measure.yaml", "prompt: Prompt/ask", WARM)
    return tree


def runs(platform: MemoryPlatform) -> list[dict[str, object]]:
    return [
        each
        for collection, found in platform.objects.items()
        if collection.endswith("/runs")
        for each in found
    ]


def finished(applier: Applier, platform: MemoryPlatform, passed: dict[str, int]) -> Pass:
    """Passes until nothing can change; so many of 200 items pass, by the beginning of the model's name."""
    for _ in range(20):
        done = applier.passes(1)
        if done.settled:
            return done
        platform.finish_jobs()
        platform.finish_runs(lambda model, index: index < passed[model[:2]])
    raise AssertionError("it never settled")


def test_every_sample_of_every_subject_is_a_run_with_a_seed_of_its_own(
    applier: Applier, platform: MemoryPlatform, sampled: Path
) -> None:
    finished(applier, platform, {"ft": 200, "ti": 0})

    seeds = [
        (run["name"], run["data_source"]["sampling_params"].get("seed"))  # type: ignore[index]
        for run in runs(platform)
    ]
    assert sorted(
        [
            ("right@FineTuneJob/tuned", None),
            ("right@FineTuneJob/tuned#2", 43),
            ("right@FineTuneJob/tuned#3", 44),
            ("right@Model/base", None),
            ("right@Model/base#2", 43),
            ("right@Model/base#3", 44),
        ]
    ) == sorted(seeds)


@pytest.mark.parametrize("where", ["eval", "prompt"])
def test_seeds_are_counted_from_the_one_that_was_said(tree: Path, where: str) -> None:
    seeded = WARM.replace("temperature: 1", "temperature: 1, seed: 7")
    edit(tree / "measure.yaml", "prompt: Prompt/ask", seeded if where == "eval" else WARM)
    if where == "prompt":
        edit(tree / "measure.yaml", '"{{ question }}"}]', '"{{ question }}"}], sampling_params: {seed: 7}')

    desired = project.load(tree).desired

    found = samples_of(run_of("right", BASE), desired)
    assert [8, 9] == [desired[run].body["sampling_params"]["seed"] for run in found[1:]]


def test_one_more_sample_measures_only_that_one(
    applier: Applier, platform: MemoryPlatform, sampled: Path
) -> None:
    finished(applier, platform, {"ft": 200, "ti": 0})
    before = {str(run["id"]) for run in runs(platform)}
    edit(sampled / "measure.yaml", "samples_per_item: 3", "samples_per_item: 4")

    finished(applier, platform, {"ft": 200, "ti": 0})

    new = [run["name"] for run in runs(platform) if run["id"] not in before]
    assert ["right@FineTuneJob/tuned#4", "right@Model/base#4"] == sorted(map(str, new))


def test_one_sample_is_what_it_always_was(tree: Path) -> None:
    before = project.load(tree).desired
    edit(tree / "measure.yaml", "prompt: Prompt/ask", "prompt: Prompt/ask\n  samples_per_item: 1")
    after = project.load(tree).desired

    assert {a: w.fingerprint for a, w in before.items()} == {a: w.fingerprint for a, w in after.items()}


def test_samples_are_identity_of_the_runs_and_not_of_the_eval(tree: Path) -> None:
    before = project.load(tree).desired
    edit(tree / "measure.yaml", "prompt: Prompt/ask", "prompt: Prompt/ask\n  samples_per_item: 2")
    after = project.load(tree).desired

    moved = {str(a) for a in before if before[a].fingerprint != after[a].fingerprint}
    assert {RULE} == moved
    assert {"EvalRun/right@FineTuneJob/tuned#2", "EvalRun/right@Model/base#2"} == {
        str(a) for a in after.keys() - before.keys()
    }


def test_a_gate_counts_items_however_often_they_were_answered(
    applier: Applier, platform: MemoryPlatform, sampled: Path
) -> None:
    done = finished(applier, platform, {"ft": 100, "ti": 0})

    said = why(done, RULE)
    assert "pass_rate 50.0%" in said and "n=200" in said


def test_the_plan_says_when_samples_cannot_differ(applier: Applier, tree: Path) -> None:
    edit(tree / "measure.yaml", "prompt: Prompt/ask", "prompt: Prompt/ask\n  samples_per_item: 3")
    desired = project.load(tree).desired
    rule = desired[Address.parse(RULE)]

    [cold] = [each for each in KIND.foresee(rule, desired) if "temperature 0" in each]

    assert "right: 3 samples of every item at temperature 0 are the same answer 3 times" in cold
    sight = engine.look(desired, applier.world)
    steps = plan.make(desired, applier.world.kinds, sight.actual, {}, {}).steps
    assert cold in next(step for step in steps if step.address == rule.address).notes
    edit(
        tree / "measure.yaml",
        "samples_per_item: 3",
        "samples_per_item: 3\n  sampling_params: {temperature: 1}",
    )
    desired = project.load(tree).desired
    assert not [e for e in KIND.foresee(desired[Address.parse(RULE)], desired) if "temperature 0" in e]


def test_a_sample_that_is_missing_counts_against_the_candidate(
    applier: Applier, platform: MemoryPlatform, sampled: Path
) -> None:
    for _ in range(4):
        applier.passes(1)
        platform.finish_jobs()
        platform.finish_runs(lambda model, index: model.startswith("ft"))
    [second] = [run for run in runs(platform) if run["name"] == "right@FineTuneJob/tuned#2"]
    at = next(name for name, found in platform.objects.items() if second in found)
    lost = platform.objects[f"{at}/{second['id']}/output_items"]
    edit(sampled / "promote.yaml", "at_least: 0.8", "at_least: 0.9")  # judged anew, from what was measured
    del lost[:15]

    needs = {step.address: step.decision.observed for step in applier.once().steps if step.decision.observed}
    desired = applier.desired
    results = KIND.gather(platform, desired[Address.parse(RULE)], needs)

    ours = results[TUNED, 0]
    assert 200 == ours.total
    assert [pytest.approx(1 / 3)] * 15 == [ours.items[str(at)].lacking for at in range(15)]
