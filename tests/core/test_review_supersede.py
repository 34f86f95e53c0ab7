"""What a part of a tree must not do to the rest of it."""

from pathlib import Path

import pytest
from core_base import Applier, Clock, Watcher, edit, write
from memory_platform import MemoryPlatform

from reconciler import engine, guards, project
from reconciler.engine import Pass
from reconciler.selection import Choice

OTHER = """\
---
apiVersion: reconciler/v1
kind: FineTuneJob
metadata: {name: other}
spec:
  model: Model/base
  training_file: Dataset/train
  method: {type: supervised, supervised: {hyperparameters: {n_epochs: 2}}}
"""


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    return write(tmp_path / "manifests")


def part(applier: Applier, choice: Choice) -> Pass:
    tree = project.load(applier.root).part(choice)
    world = engine.replace(applier.world, guards=guards.of(tree.spec))
    return engine.once(tree.desired, world, applier.creator, Watcher())


def test_work_that_the_rest_of_the_tree_wants_is_not_cancelled_for_a_target(manifests: Path) -> None:
    """A job was given another name, and its old name to another job."""
    platform = MemoryPlatform()
    edit(manifests / "train.yaml", "  method:", "  on_supersede: cancel\n  method:")
    applier = Applier(manifests, platform, Clock())
    applier.passes(3)
    edit(manifests / "train.yaml", "n_epochs: 2", "n_epochs: 3")
    train = manifests / "train.yaml"
    train.write_text(train.read_text() + OTHER)

    part(applier, Choice(("FineTuneJob/tuned",)))

    assert ["running", "running"] == [each["status"] for each in platform.objects["fine_tuning/jobs"]]


def test_what_was_left_out_is_left_as_it_stands(manifests: Path) -> None:
    """Also where it was made twice."""
    platform = MemoryPlatform()
    applier = Applier(manifests, platform, Clock())
    applier.passes(3)
    [job] = platform.objects["fine_tuning/jobs"]
    platform.objects["fine_tuning/jobs"].append({**job, "id": "ftjob-twin", "created_at": 99})

    part(applier, Choice((), ("FineTuneJob/tuned",)))

    assert ["running", "running"] == [each["status"] for each in platform.objects["fine_tuning/jobs"]]
