"""A small tree of every kind, a platform in memory, somebody who applies one to the other, and their time."""

import os
import sys
from pathlib import Path
from unittest import mock

import pytest
from core_base import Applier, Clock, Say, write
from memory_platform import MemoryPlatform

from reconciler.cli.main import main

__all__ = ["applier", "clock", "platform", "say", "tree"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of manifests of every kind."""
    return write(tmp_path / "manifests")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def platform() -> MemoryPlatform:
    return MemoryPlatform()


@pytest.fixture
def applier(tree: Path, platform: MemoryPlatform, clock: Clock) -> Applier:
    return Applier(tree, platform, clock)


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command; answers its exit code and what it printed on either side."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reconciler", *map(str, arguments)])
        with mock.patch.dict(os.environ), pytest.raises(SystemExit) as ended:  # --set speaks to its process
            main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    return run
