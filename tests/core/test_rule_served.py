"""Rules over a real server on a real port: samples, prompts, items that hold their messages, and judges."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from core_base import Applier, Clock, write
from eval_base import FakeEngine, Server, echo, sometimes

from reconciler.platforms.openai import OpenAI
from reconciler.platforms.releases import WithReleases
from reconciler.selfhosted.engine import Ask
from reconciler.stats.proportions import clopper_pearson
from reconciler.world import Platform

COUNT = 60


def document(kind: str, name: str, **spec: Any) -> str:
    body = {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return json.dumps(body) + "\n"


def items(name: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    return {
        f"{name}.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        f"{name}.yaml": document("Dataset", name, file=f"{name}.jsonl", format="items"),
    }


SCHEMA = {"type": "object", "properties": {"question": {"type": "string"}, "expected": {"type": "string"}}}
EXACT = {
    "type": "string_check",
    "operation": "eq",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.expected }}",
}
TREE = {
    "project.yaml": document("Project", "demo"),
    "model.yaml": document("Model", "base", id="tiny"),
    "grader.yaml": document("Grader", "exact", **EXACT),
    "ask.yaml": document("Prompt", "ask", messages=[{"role": "user", "content": "{{ question }}"}]),
    "shout.yaml": document("Prompt", "shout", messages=[{"role": "user", "content": "{{ question }}!"}]),
    **items("heldout", [{"item": {"question": f"say {n}", "expected": f"say {n}"}} for n in range(COUNT)]),
}


def measure(**more: Any) -> dict[str, str]:
    spec = {"item_schema": SCHEMA, "graders": ["Grader/exact"], "dataset": "Dataset/heldout"} | more
    return {"measure.yaml": document("Eval", "right", **spec)}


def rule(*gates: dict[str, Any], **spec: Any) -> dict[str, str]:
    wanted = {"channel": "demo/production", "candidates": ["Model/base"], "gates": list(gates)} | spec
    return {"rule.yaml": document("PromotionRule", "production", **wanted)}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", FakeEngine()).running() as running:
        yield running


def applied(server: Server, tree: Path, *files: dict[str, str]) -> Platform:
    """The platform after a settled apply."""
    for each in (TREE, *files):
        write(tree, each)
    platform = WithReleases(OpenAI(f"{server.url}/v1", name="served", key="none"), tree / "releases")
    Applier(tree, platform, Clock()).settle()
    return platform


def runs(platform: Platform) -> dict[str, dict[str, Any]]:
    [eval_] = platform.list("evals")
    return {run["name"]: dict(run) for run in platform.list(f"evals/{eval_['id']}/runs")}


def test_samples_that_differ_are_averaged_within_their_item(server: Server, tmp_path: Path) -> None:
    server.engine.says = sometimes
    warm = measure(prompt="Prompt/ask", samples_per_item=6, sampling_params={"temperature": 1})

    platform = applied(server, tmp_path / "tree", warm, rule({"eval": "Eval/right", "at_least": 0.5}))

    found = runs(platform)
    assert ["right@Model/base", *(f"right@Model/base#{n}" for n in range(2, 7))] == sorted(found)
    assert [None, 43, 44, 45, 46, 47] == [
        found[name]["data_source"]["sampling_params"].get("seed") for name in sorted(found)
    ]
    [release] = platform.list("reconciler/aliases")
    [gate] = release["release"]["evidence"]
    rates = [run["result_counts"]["passed"] / COUNT for run in found.values()]
    assert len(set(rates)) > 1
    assert (COUNT, pytest.approx(sum(rates) / 6)) == (gate["n"], gate["estimate"])
    assert 6 == len(release["release"]["lineage"]["runs"])


def test_items_that_hold_their_messages_are_gated_like_others(server: Server, tmp_path: Path) -> None:
    rows = [
        {"item": {"input": [{"role": "user", "content": f"say {n}"}], "expected": f"say {n}"}}
        for n in range(COUNT)
    ]
    schema = {"type": "object", "properties": {"input": {"type": "array"}, "expected": {"type": "string"}}}
    own = measure(item_schema=schema, item_reference="item.input")

    platform = applied(
        server, tmp_path / "tree", items("heldout", rows), own, rule({"eval": "Eval/right", "at_least": 0.8})
    )

    assert {"right@Model/base": COUNT} == {n: r["result_counts"]["passed"] for n, r in runs(platform).items()}
    assert ["tiny"] == [each["model"] for each in platform.list("reconciler/aliases")]


def test_two_prompts_of_one_model_are_compared_and_the_better_is_released(
    server: Server, tmp_path: Path
) -> None:
    pairs = [{"model": "Model/base", "prompt": f"Prompt/{name}"} for name in ("shout", "ask")]
    gates = [{"eval": "Eval/right", "at_least": 0.8}, {"eval": "Eval/right", "improves_by": 0.5}]

    platform = applied(
        server, tmp_path / "tree", measure(), rule(*gates, candidates=pairs[1:], baseline=pairs[0])
    )

    assert {
        "right@Model/base+Prompt/shout": 0,
        "right@Model/base+Prompt/ask": COUNT,
    } == {name: run["result_counts"]["passed"] for name, run in runs(platform).items()}
    [release] = platform.list("reconciler/aliases")
    assert ("tiny", "Prompt/ask") == (release["model"], release["release"]["prompt"]["address"])
    assert "same" == release["file"]


JUDGE = {
    "type": "score_model",
    "model": "Model/base",
    "input": [{"role": "user", "content": "Rate: {{ sample.output_text }}"}],
    "pass_threshold": 0.5,
}


def lenient(ask: Ask) -> str:
    """Answers everybody else as `echo` does; as a judge it takes every second bad answer for a good one."""
    rated = echo(ask).partition("Rate: ")[2]
    if not rated:
        return echo(ask)
    kind = rated.startswith("say") or int(rated.rpartition(" ")[2]) % 2 == 0
    return json.dumps({"result": 1.0 if kind else 0.0})


def test_a_judge_is_measured_on_answers_that_people_judged(server: Server, tmp_path: Path) -> None:
    server.engine.says = lenient
    answers = [(f"say {n}", True) for n in range(80)] + [(f"nonsense {n}", False) for n in range(80)]
    judged = [
        {"item": {"question": "q", "expected": "x", "fine": fine}, "sample": {"output_text": text}}
        for text, fine in answers
    ]
    files = {"grader.yaml": document("Grader", "judge", **JUDGE)} | items("judged", judged)
    gate = {"eval": "Eval/right", "at_least": 0.8, "calibration": {"dataset": "judged", "label": "fine"}}

    platform = applied(
        server, tmp_path / "tree", files, measure(graders=["Grader/judge"], prompt="Prompt/ask"), rule(gate)
    )

    found = runs(platform)
    assert {"right@Model/base", "right@Dataset/judged"} == found.keys()
    calibration = found["right@Dataset/judged"]
    assert ("jsonl", 120, 40) == (
        calibration["data_source"]["type"],
        calibration["result_counts"]["passed"],
        calibration["result_counts"]["failed"],
    )
    [release] = platform.list("reconciler/aliases")
    [said] = release["release"]["evidence"]
    assert "its judge passes 80 of 80 good and fails 40 of 80 bad answers" in said["sentence"]
    assert said["low"] < clopper_pearson(COUNT, COUNT, said["confidence"])[0]
    lineage = [run["address"] for run in release["release"]["lineage"]["runs"]]
    assert ["EvalRun/right@Model/base", "EvalRun/right@Dataset/judged"] == lineage
