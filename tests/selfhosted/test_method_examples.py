"""The example of each method: a tree of its own, rows that come out of a kept script, and a gain that is no luck."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from reconciler import project

METHODS = Path(__file__).parents[2] / "manifests" / "methods"
NAMES = ("dpo", "rft", "vision")


def generator(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_rows", METHODS / name / "data" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["dpo", "rft"])
def test_the_rows_are_what_the_script_writes(name: str) -> None:
    for file, content in generator(name).files().items():
        assert content == (METHODS / name / "data" / file).read_text()


def test_the_pictures_are_what_the_script_draws() -> None:
    from reconciler.selfhosted.training import pictures

    def pixels(text: str) -> list[bytes]:  # the bytes of a PNG depend on the library that packs it
        rows = [json.loads(line) for line in text.splitlines()]
        chats = [row.get("messages") or row["item"]["input"] for row in rows]
        return [pictures.read(url).tobytes() for chat in chats for url in pictures.urls(chat)]

    for file, content in generator("vision").files().items():
        assert pixels(content) == pixels((METHODS / "vision" / "data" / file).read_text())


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_a_project_of_its_own(name: str, tmp_path: Path) -> None:
    found = project.load(copied(name, tmp_path))

    assert f"method-{name}" == found.name


def copied(name: str, folder: Path) -> Path:
    ours = shutil.ignore_patterns(".reconciler", "releases", "*.py", "__pycache__")
    return Path(shutil.copytree(METHODS / name, folder / name, ignore=ours))


def applied(name: str, folder: Path) -> tuple[Path, str]:
    tree = copied(name, folder)
    command = [sys.executable, "-m", "reconciler", "apply", str(tree)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert 0 == run.returncode, run.stdout + run.stderr
    return tree, run.stdout


@pytest.mark.train
@pytest.mark.parametrize(
    ("name", "metric"), [("dpo", "pass_rate"), ("rft", "mean_score"), ("vision", "pass_rate")]
)
def test_what_was_trained_is_better_than_what_it_came_from(name: str, metric: str, tmp_path: Path) -> None:
    tree, told = applied(name, tmp_path)

    gained = re.search(rf"PASS .*{metric} \+([\d.]+)( points)? \[\+([\d.]+), \+([\d.]+)\], n=150", told)

    assert gained is not None, told
    assert float(gained[3]) > 0
    assert any((tree / "releases").rglob("*.yaml"))
