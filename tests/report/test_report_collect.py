"""What a platform knows becomes a report, and nothing else does."""

from collections.abc import Callable
from pathlib import Path

import pytest
from core_base import Applier, Clock, edit, write
from memory_platform import MemoryPlatform

from reconciler import project
from reconciler.engine import World
from reconciler.errors import ReconcilerError, Unreachable
from reconciler.kinds import all_kinds
from reconciler.platforms.wrappers import ReadOnly
from reconciler.report import collect
from reconciler.report.values import BASELINE, CANDIDATE, SUBJECT, Report
from reconciler.resource import Address

RULE, TUNED = "PromotionRule/production", "EvalRun/right@FineTuneJob/tuned"
Tell = Callable[[str], Report]


@pytest.fixture
def platform() -> MemoryPlatform:
    return MemoryPlatform()


@pytest.fixture
def applier(tmp_path: Path, platform: MemoryPlatform) -> Applier:
    return Applier(write(tmp_path / "manifests"), platform, Clock())


@pytest.fixture
def tell(applier: Applier, platform: MemoryPlatform) -> Tell:
    """A report through a platform that can only be looked at."""

    def told(address: str) -> Report:
        desired = project.load(applier.root).desired
        world = World("demo", all_kinds(), ReadOnly(platform))
        return collect.report(desired, desired[Address.parse(address)], world, 5.0)

    return told


def measure(applier: Applier, platform: MemoryPlatform, better: int = 160) -> None:
    """Everything is trained and measured: the base passes 40 of 200 items, the candidate `better`."""
    applier.passes(3)
    platform.finish_jobs()
    applier.passes(2)
    platform.finish_runs(lambda model, index: index < (better if model.startswith("ft:") else 40))


def test_a_rule_reports_its_verdicts_runs_and_flips(
    applier: Applier, platform: MemoryPlatform, tell: Tell
) -> None:
    measure(applier, platform, better=120)

    told = tell(RULE)

    assert "FineTuneJob/tuned fails" == told.headline
    assert ["fail", "pass"] == [str(j.verdict) for j in told.trials[0].judgements]
    assert [("Model/base", BASELINE, 40, 200), ("FineTuneJob/tuned", CANDIDATE, 120, 200)] == [
        (run.subject, run.part, run.passed, run.total) for run in told.of("right")
    ]
    assert [("right", "pass_rate at least 80.0%"), ("right", "pass_rate better by more than 10 points")] == [
        (gate.name, gate.wanted) for gate in told.gates
    ]


def test_a_released_rule_still_tells_what_it_was_released_for(
    applier: Applier, platform: MemoryPlatform, tell: Tell
) -> None:
    measure(applier, platform, better=190)
    applier.settle()

    told = tell(RULE)

    assert ("FineTuneJob/tuned passes", "pass") == (told.headline, str(told.verdict))
    assert "demo/production serves ft:" in told.detail
    assert 2 == len(told.trials[0].judgements)


def test_a_gate_on_one_grader_finds_its_results_by_the_id_that_platforms_call_them(
    applier: Applier, platform: MemoryPlatform, tell: Tell
) -> None:
    edit(applier.root / "promote.yaml", "at_least: 0.8}", "grader: Grader/exact, at_least: 0.5}")
    measure(applier, platform, better=160)
    platform.objects["evals"][0]["testing_criteria"][0]["id"] = "exact-1f2e"
    for path, items in platform.objects.items():
        for item in items if path.endswith("/output_items") else []:
            item["results"][0]["name"] = "exact-1f2e"

    told = tell(RULE)

    assert ("pass", 0.8) == (str(told.trials[0].judgements[0].verdict), told.trials[0].judgements[0].estimate)
    assert ("right exact", ("exact",)) == (told.gates[0].name, told.runs[0].graders)


def test_a_release_that_replaced_an_incumbent_still_shows_what_it_was_compared_with(
    applier: Applier, platform: MemoryPlatform, tell: Tell
) -> None:
    edit(applier.root / "promote.yaml", "candidates: [FineTuneJob/tuned]", "candidates: [Model/base]")
    edit(applier.root / "promote.yaml", "baseline: Model/base", "baseline: incumbent")
    edit(applier.root / "promote.yaml", "at_least: 0.8", "at_least: 0.1")
    measure(applier, platform, better=190)
    applier.settle()
    edit(applier.root / "promote.yaml", "candidates: [Model/base]", "candidates: [FineTuneJob/tuned]")
    measure(applier, platform, better=190)
    applier.settle()

    told = tell(RULE)

    assert ("FineTuneJob/tuned passes", "pass") == (told.headline, str(told.verdict))
    assert [("Model/base", BASELINE, 40), ("FineTuneJob/tuned", CANDIDATE, 190)] == [
        (run.subject, run.part, run.passed) for run in told.of("right")
    ]
    assert (150, 0) == (told.trials[0].judgements[1].gained, told.trials[0].judgements[1].lost)


def test_a_run_is_a_report_of_its_own(applier: Applier, platform: MemoryPlatform, tell: Tell) -> None:
    measure(applier, platform)

    told = tell(TUNED)

    assert "160 of 200 items pass" == told.headline
    assert (None, (), [SUBJECT]) == (told.verdict, told.trials, [run.part for run in told.runs])


def test_lineage_names_every_resource_and_cards_say_what_the_models_were_made_from(
    applier: Applier, platform: MemoryPlatform, tell: Tell
) -> None:
    measure(applier, platform)

    told = tell(RULE)

    assert {"Dataset/train", "Dataset/heldout", "Eval/right", "FineTuneJob/tuned", "Model/base", TUNED} <= {
        origin.address for origin in told.origins
    }
    facts = dict(next(card for card in told.cards if card.subject == "FineTuneJob/tuned").facts)
    assert ("supervised", "2") == (facts["method"], facts["n epochs"])
    assert facts["training"].startswith("Dataset/train, 12 rows, sha256 ")


def test_nothing_of_a_training_row_is_in_a_report(
    applier: Applier, platform: MemoryPlatform, tell: Tell
) -> None:
    edit(applier.root / "train.jsonl", "say 7", "canary-of-a-training-row")
    measure(applier, platform)

    assert "canary" not in repr(tell(RULE))


def test_a_rule_that_is_partly_measured_says_what_it_waits_for(
    applier: Applier, platform: MemoryPlatform, tell: Tell
) -> None:
    applier.passes(3)
    platform.finish_runs(lambda model, index: index < 40)

    told = tell(RULE)

    assert ("Not measured yet", None, ()) == (told.headline, told.verdict, told.trials)
    assert f"Waits for {TUNED}" in told.detail


@pytest.mark.parametrize("address", [RULE, TUNED])
def test_nothing_measured_is_a_sentence(tell: Tell, address: str) -> None:
    with pytest.raises(ReconcilerError, match="run `reconciler apply`, then report"):
        tell(address)


def test_other_kinds_have_no_report(tell: Tell) -> None:
    with pytest.raises(
        ReconcilerError, match="Eval/right has no report; there is one for each EvalRun and Prom"
    ):
        tell("Eval/right")


def test_a_platform_out_of_sight_is_no_empty_report(
    applier: Applier, platform: MemoryPlatform, tell: Tell
) -> None:
    measure(applier, platform)
    platform.unseen["evals"] = Unreachable("the network is gone")

    with pytest.raises(Unreachable, match="the network is gone"):
        tell(RULE)


def test_items_are_listed_once_and_kept_without_their_prompts(
    applier: Applier, platform: MemoryPlatform
) -> None:
    measure(applier, platform)
    path = next(each for each in platform.objects if each.endswith("/output_items"))
    for item in platform.objects[path]:
        item["sample"] = {"input": [{"role": "user", "content": "long prompt"}], "output": [{"content": "7"}]}
    slim = collect.Slim(platform)

    first, second = slim.list(path), slim.list(path)

    assert first is second
    assert {"output": [{"content": "7"}], "usage": None, "error": None} == first[0]["sample"]
