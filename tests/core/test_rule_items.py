"""Items that hold their messages themselves, such as pictures, are gated like others."""

import json
from pathlib import Path

import pytest
from core_base import Applier, edit, write
from memory_platform import MemoryPlatform

from reconciler import project
from reconciler.errors import ManifestError

RULE = "PromotionRule/production"
OWN = "dataset: Dataset/heldout\n  item_reference: item.input"


@pytest.fixture
def shown(tree: Path) -> Path:
    """A tree whose items are whole conversations."""
    asked = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}]
    rows = [{"item": {"input": asked, "expected": str(n)}} for n in range(20)]
    write(tree, {"heldout.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    edit(tree / "measure.yaml", "{question: {type: string}", "{input: {type: array}")
    edit(tree / "measure.yaml", "dataset: Dataset/heldout\n  prompt: Prompt/ask", OWN)
    return tree


def problems(tree: Path) -> list[str]:
    with pytest.raises(ManifestError) as refused:
        project.load(tree)
    return [problem.what for problem in refused.value.problems]


def test_a_rule_asks_with_the_messages_of_the_items(
    applier: Applier, platform: MemoryPlatform, shown: Path
) -> None:
    for _ in range(4):
        applier.passes(1)
        platform.finish_jobs()
        platform.finish_runs(lambda model, index: model.startswith("ft:"))

    found = [run for name, runs in platform.objects.items() if name.endswith("/runs") for run in runs]
    assert 2 == len(found)
    for run in found:
        asked = run["data_source"]["input_messages"]
        assert {"type": "item_reference", "item_reference": "item.input"} == asked
    assert applier.passes(2).settled
    [alias] = platform.objects["reconciler/aliases"]
    assert alias["release"]["prompt"] is None


def test_what_its_runs_ask_with_is_no_identity_of_an_eval(tree: Path, shown: Path) -> None:
    before = project.load(shown).desired
    edit(shown / "measure.yaml", "item_reference: item.input", "item_reference: input")
    after = project.load(shown).desired

    moved = {str(a) for a in before if before[a].fingerprint != after[a].fingerprint}

    assert {RULE, "EvalRun/right@FineTuneJob/tuned", "EvalRun/right@Model/base"} == moved


def test_runs_ask_with_one_of_both(shown: Path) -> None:
    edit(shown / "measure.yaml", OWN, f"{OWN}\n  prompt: Prompt/ask")

    assert "its runs ask with a prompt or with what item_reference names, not with both" in problems(shown)


def test_an_eval_that_names_neither_can_be_in_no_gate(shown: Path) -> None:
    edit(shown / "measure.yaml", "\n  item_reference: item.input", "")

    what = "Eval/right has no prompt or item_reference, which the runs that this rule needs must use"
    assert what in problems(shown)


def test_a_field_that_the_items_do_not_have_is_told(shown: Path) -> None:
    edit(shown / "measure.yaml", "item_reference: item.input", "item_reference: item.inputs")

    what = "item_reference item.inputs: the items of Eval/right have no inputs; they have input, expected"
    assert what in problems(shown)
