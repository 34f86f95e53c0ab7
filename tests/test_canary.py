"""The canary sings: a run that says or writes a secret fails, and tells where."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import canary
import pytest

CONFTEST = "import canary\n\n\ndef pytest_configure(config):\n    canary.register(config)\n"
LEAKING = """\
import logging, os, subprocess, sys

SECRET = os.environ["OPENAI_API_KEY"]

def test_prints():
    print(SECRET)

def test_logs():
    logging.getLogger().warning("with %s", SECRET)

def test_writes(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_text("key: " + SECRET)

def test_writes_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_TOKEN", "its own secret")
    (tmp_path / "plan.json").write_text("its own secret")

def test_takes(capsys):
    print(SECRET, file=sys.stderr)
    assert SECRET in capsys.readouterr().err

def test_starts():
    program = "import os; print(os.environ['OPENAI_API_KEY'])"
    assert SECRET in subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout

def test_writes_a_row(tmp_path):
    (tmp_path / "journal.db").write_bytes(b"SQLite" + bytes(100) + b"Zx9canary" + b"-row")
"""
CLEAN = "\ndef test_says_its_name(tmp_path):\n    (tmp_path / 'log').write_text('set OPENAI_API_KEY')\n"
LEAKS = {
    "leaking.py::test_prints (Captured stdout call)": "what was planted",
    "leaking.py::test_logs (Captured log call)": "what was planted",
    "test_writes0/deep/log": "what was planted",
    "test_writes_of_its_own0/plan.json": "what leaking.py::test_writes_of_its_own put into DEMO_TOKEN",
    "leaking.py::test_takes (captured)": "what was planted",
    f"leaking.py::test_starts ({Path(sys.executable).name} said)": "what was planted",
    "test_writes_a_row0/journal.db": "what was planted",
}


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that our own canary does not look into."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def run(folder: Path, text: str, *options: str) -> tuple[int, dict[str, str]]:
    """How a suite of its own ends, and what it tells of leaks."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "leaking.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        f"--basetemp={folder / 'kept'}",
        *options,
    ]
    env = os.environ | {"PYTHONPATH": str(Path(canary.__file__).parent), "PYTEST_ADDOPTS": ""}
    done = subprocess.run([*command, "leaking.py"], cwd=folder, env=env, capture_output=True, text=True)
    told = done.stdout.partition("secrets or training rows")[2]
    return done.returncode, dict(re.findall(r"^(.+): (what .+)$", told, re.MULTILINE))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_whatever_leaks_is_told_by_its_place_and_fails_the_run(elsewhere: Path, workers: str) -> None:
    assert (1, LEAKS) == run(elsewhere, LEAKING + CLEAN, "-n", workers)


def test_what_keeps_its_secrets_passes(elsewhere: Path) -> None:
    assert (0, {}) == run(elsewhere, CLEAN)


def test_every_variable_for_a_secret_that_anything_names_has_one() -> None:
    assert {"OPENAI_API_KEY", "RECONCILER_WEBHOOK_SECRET", "DEMO_TOKEN"} <= set(canary.secrets_named())
    assert [] == [name for name in canary.secrets_named() if not os.environ.get(name)]
