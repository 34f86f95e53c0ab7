"""Environments are plain kustomize: what it builds is a tree."""

import shutil
import subprocess
from pathlib import Path

import pytest
from core_base import FILES, edit, write

from reconciler import project
from reconciler.project import Project
from reconciler.resource import Address

JOB = Address("FineTuneJob", "tuned")
BASE = "resources: [project.yaml, train.yaml, measure.yaml, promote.yaml]\n"
STAGING = """\
resources: [../../manifests]
labels: [{pairs: {environment: staging}}]
commonAnnotations: {contact: ada}
"""
PRODUCTION = """\
resources: [../../manifests]
patches:
  - target: {kind: FineTuneJob, name: tuned}
    patch: |
      - {op: replace, path: /spec/method/supervised/hyperparameters/n_epochs, value: 4}
  - patch: |
      apiVersion: reconciler/v1
      kind: Project
      metadata: {name: demo}
      spec: {prune: true, platform: shared, platforms: {shared: {type: openai, base_url: "https://t.example.com/v1"}}}
  - patch: |
      apiVersion: reconciler/v1
      kind: Dataset
      metadata: {name: train}
      spec: {protect: true}
"""


@pytest.fixture
def overlays(tmp_path: Path) -> Path:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the path")
    write(tmp_path / "manifests", {**FILES, "kustomization.yaml": BASE})
    write(
        tmp_path / "overlays",
        {"staging/kustomization.yaml": STAGING, "production/kustomization.yaml": PRODUCTION},
    )
    return tmp_path


def built(overlays: Path, name: str) -> Project:
    """What kustomize makes of an overlay, beside the files that the manifests name."""
    command = ["kubectl", "kustomize", str(overlays / "overlays" / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert 0 == done.returncode, done.stderr
    file = overlays / "manifests" / f".{name}.yaml"
    file.write_text(done.stdout)
    return project.load(file)


def prints(tree: Project) -> dict[str, str]:
    return {
        str(address): wanted.fingerprint
        for address, wanted in tree.desired.items()
        if address.kind != "Project"
    }


def test_an_environment_is_never_identity(overlays: Path) -> None:
    base, staging = project.load(overlays / "manifests"), built(overlays, "staging")

    assert prints(base) == prints(staging)
    assert {"environment": "staging"} == staging.desired[JOB].labels


def test_a_patch_is_what_it_says_and_moves_only_what_rests_on_it(overlays: Path) -> None:
    base, production = project.load(overlays / "manifests"), built(overlays, "production")

    moved = {name for name, each in prints(base).items() if prints(production)[name] != each}

    assert {str(JOB), f"EvalRun/right@{JOB}", "PromotionRule/production"} == moved
    assert ("shared", True) == (production.spec.platform, production.spec.prune)
    assert production.desired[Address("Dataset", "train")].body["protect"]


def test_every_environment_keeps_its_own_things(overlays: Path) -> None:
    staging, production = built(overlays, "staging"), built(overlays, "production")

    manifests = overlays / "manifests"
    assert (manifests / "staging" / ".reconciler", manifests / "staging" / "releases") == (
        staging.data,
        staging.releases,
    )
    assert manifests / "production" / ".reconciler" == production.data
    assert manifests == staging.root == production.root


def test_what_was_built_is_not_read_with_the_folder(overlays: Path) -> None:
    before = prints(project.load(overlays / "manifests"))
    built(overlays, "staging")

    assert before == prints(project.load(overlays / "manifests"))


def test_variables_work_in_what_was_built(overlays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(
        overlays / "manifests" / "project.yaml",
        "{name: demo}",
        "{name: demo}\nspec: {variables: {EPOCHS: {default: 2}}}",
    )
    edit(overlays / "manifests" / "train.yaml", "n_epochs: 2", "n_epochs: '${EPOCHS}'")
    before = prints(built(overlays, "staging"))

    monkeypatch.setenv("RECONCILER_VAR_EPOCHS", "4")

    assert before[str(JOB)] != prints(built(overlays, "staging"))[str(JOB)]
