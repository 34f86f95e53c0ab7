"""A verdict is about exactly what was measured, and worth nothing where anything of that differs."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import hypothesis.strategies as st
import pytest
from core_base import Applier, action, edit, why
from hypothesis import given
from memory_platform import MemoryPlatform

from reconciler import project, release
from reconciler.engine import Pass
from reconciler.resource import Address

RULE = "PromotionRule/production"
TUNED, BASE = "right@FineTuneJob/tuned", "right@Model/base"
CHANGES: dict[str, tuple[str, str, str, set[str]]] = {
    "candidate": ("train.yaml", "n_epochs: 2", "n_epochs: 3", {TUNED}),
    "training-row": ("train.jsonl", "say 3", "say three", {TUNED}),
    "baseline": ("promote.yaml", "baseline: Model/base", "baseline: FineTuneJob/tuned", set()),
    "prompt": ("measure.yaml", '"{{ question }}"', '"{{ question }}!"', {TUNED, BASE}),
    "prompt-sampling": ("measure.yaml", '}}"}]}', '}}"}], sampling_params: {top_p: 0.5}}', {TUNED, BASE}),
    "sampling": ("measure.yaml", "Prompt/ask", "Prompt/ask\n  sampling_params: {seed: 7}", {TUNED, BASE}),
    "samples": ("measure.yaml", "Prompt/ask", "Prompt/ask\n  samples_per_item: 2", {f"{TUNED}#2", f"{BASE}#2"}),
    "grader": ("measure.yaml", "operation: eq", "operation: ilike", {TUNED, BASE}),
    "item-schema": ("measure.yaml", "expected: {type: string}", "expected: {type: [string, 'null']}", {TUNED, BASE}),
    "cluster": ("measure.yaml", "prompt: Prompt/ask", "prompt: Prompt/ask\n  cluster: expected", {TUNED, BASE}),
    "item": ("heldout.jsonl", "say 3", "say three", {TUNED, BASE}),
    "gate": ("promote.yaml", "at_least: 0.8", "at_least: 0.999", set()),
    "gate-metric": ("promote.yaml", "at_least: 0.8", "metric: fail_rate, at_most: 0.0001", set()),
    "gate-margin": ("promote.yaml", "improves_by: 0.1", "improves_by: 1", set()),
    "gate-grader": ("promote.yaml", "at_least: 0.8", "at_least: 0.999, grader: Grader/exact", set()),
    "confidence": ("promote.yaml", "baseline:", "confidence: 0.9999\n  baseline:", set()),
}  # fmt: skip
KEPT = {
    "description": ("promote.yaml", "channel:", "description: the one we sell\n  channel:"),
    "expectation": ("promote.yaml", "at_least: 0.8", "at_least: 0.8, expect: {rate: 0.9}"),
    "grader-name": ("measure.yaml", "type: string_check", "name: called-otherwise, type: string_check"),
    "tries": ("measure.yaml", "prompt: Prompt/ask", "prompt: Prompt/ask\n  tries: 3"),
}


def runs(platform: MemoryPlatform) -> dict[str, str]:
    """The name of every run, by its id."""
    return {
        run["id"]: run["name"]
        for name, all_ in platform.objects.items()
        if name.endswith("/runs")
        for run in all_
    }


def finished(applier: Applier, platform: MemoryPlatform, passed: Callable[[str], int]) -> Pass:
    for _ in range(20):
        done = applier.passes(1)
        if done.settled:
            return done
        platform.finish_jobs()
        platform.finish_runs(lambda model, index: index < passed(model))
    raise AssertionError("it never settled")


def good(model: str) -> int:
    return 175 if model.startswith("ft:") else 0


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_measured_before_decides_nothing_about_something_else(
    applier: Applier, platform: MemoryPlatform, tree: Path, what: str
) -> None:
    file, before, after, again = CHANGES[what]
    finished(applier, platform, good)
    known, stood = runs(platform), release.read(platform.objects["reconciler/aliases"][0])
    edit(tree / file, before, after)

    done = finished(applier, platform, lambda model: 0)

    assert sorted(again) == sorted(name for id, name in runs(platform).items() if id not in known)
    assert "!" == action(done, RULE), why(done, RULE)
    assert stood.metadata == release.read(platform.objects["reconciler/aliases"][0]).metadata
    wanted = applier.desired[Address.parse(RULE)]
    assert stood.fingerprint != wanted.fingerprint


@pytest.mark.parametrize("what", CHANGES)
def test_undone_the_old_verdict_holds_again_and_nothing_is_measured(
    applier: Applier, platform: MemoryPlatform, tree: Path, what: str
) -> None:
    file, before, after, _ = CHANGES[what]
    finished(applier, platform, good)
    text = (tree / file).read_text()
    edit(tree / file, before, after)
    finished(applier, platform, lambda model: 0)
    known = runs(platform)
    (tree / file).write_text(text)

    done = finished(applier, platform, lambda model: 0)

    assert "=" == action(done, RULE)
    assert known == runs(platform)


@pytest.mark.parametrize("what", KEPT)
def test_what_is_not_part_of_a_verdict_leaves_it_alone(
    applier: Applier, platform: MemoryPlatform, tree: Path, what: str
) -> None:
    finished(applier, platform, good)
    asked = len(platform.asked)
    edit(tree / KEPT[what][0], *KEPT[what][1:])

    done = applier.once()

    assert "=" == action(done, RULE)
    assert asked == len(platform.asked)


def test_every_change_is_another_rule(tree: Path) -> None:
    found = {project.load(tree).desired[Address.parse(RULE)].fingerprint: "as it was"}
    for what, (file, before, after, _) in CHANGES.items():
        text = (tree / file).read_text()
        edit(tree / file, before, after)
        found.setdefault(project.load(tree).desired[Address.parse(RULE)].fingerprint, what)
        (tree / file).write_text(text)

    assert ["as it was", *CHANGES] == list(found.values())


APPROVED = st.tuples(
    st.sampled_from(["rule-1", "rule-2"]),
    st.sampled_from(["ft:a", "ft:b"]),
    st.lists(st.sampled_from(["run-1", "run-2", "run-3"]), unique=True).map(sorted),
    st.integers(0, 2),
)


@given(one=APPROVED, other=APPROVED)
def test_an_approval_is_for_one_model_by_one_rule_on_one_set_of_measurements(
    one: object, other: object
) -> None:
    approvals = {release.approval(*each) for each in (one, other)}  # type: ignore[misc]

    assert (one == other) is (len(approvals) == 1)


def test_an_approval_of_what_was_is_none_of_what_is(
    applier: Applier, platform: MemoryPlatform, tree: Path
) -> None:
    edit(tree / "promote.yaml", "gates:", "approval: manual\n  gates:")
    asked = [str(rule_of(finished(applier, platform, good)))]
    for file, before, after, _ in (CHANGES["sampling"], CHANGES["candidate"]):
        edit(tree / file, before, after)
        asked.append(str(rule_of(finished(applier, platform, good))))
    edit(tree / "promote.yaml", "gates:", f"approved_fingerprint: {asked[0]}\n  gates:")

    done = applier.once()

    assert all(one != other for one, other in pairwise(asked)) and "None" not in asked
    assert [] == platform.objects.get("reconciler/aliases", [])
    assert f"approved_fingerprint: {asked[-1]}" in why(done, RULE)


def rule_of(done: Pass) -> str | None:
    return next(step.decision.approval for step in done.steps if str(step.address) == RULE)
