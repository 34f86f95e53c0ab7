"""What guards stop: the step that would act, in a plan and in an apply alike."""

from pathlib import Path

import pytest
from core_base import Applier, action, edit, why
from memory_platform import MemoryPlatform

JOB = "FineTuneJob/tuned"


@pytest.mark.parametrize(
    "file, before, after, address",
    [
        ("train.yaml", "  model: Model/base\n", "  model: Model/base\n  suspend: true\n", JOB),
        (
            "project.yaml",
            "metadata: {name: demo}\n",
            "metadata: {name: demo}\nspec: {suspend: true}\n",
            "Dataset/train",
        ),
    ],
)
def test_what_is_suspended_is_not_made(
    applier: Applier, platform: MemoryPlatform, tree: Path, file: str, before: str, after: str, address: str
) -> None:
    edit(tree / file, before, after)

    done = applier.passes(3)

    assert [] == platform.objects.get("fine_tuning/jobs", [])
    assert "!" == action(done, JOB)
    assert "suspended" in why(done, address)


def test_lifting_a_suspension_makes_what_was_wanted_and_retrains_nothing(
    applier: Applier, platform: MemoryPlatform, tree: Path
) -> None:
    applier.passes(3)
    edit(tree / "train.yaml", "  model: Model/base\n", "  model: Model/base\n  suspend: true\n")
    applier.passes(2)

    edit(tree / "train.yaml", "  suspend: true\n", "")
    applier.passes(2)

    assert 1 == len(platform.objects["fine_tuning/jobs"])
