"""
The canary: secrets and training rows that can be recognised, and a look at all that a run of the suite says and writes.

Every variable that holds a secret gets a value with MARK in it, and so do the rows of a dataset of its own
(`test_canary_story`). What a test puts into such a variable itself is looked for as well. The run fails when
any of it is found in what a test printed, in what a process it waited for printed, or below its folders.
What is named in KEPT may hold it, and says why.
"""

import mmap
import os
import re
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pytest

MARK = "Zx9canary"
SECRET = re.compile(r"[A-Z][A-Z0-9_]*(KEY|TOKEN|SECRET|PASSWORD|GITHUB)")  # a variable that holds one
NAMED = re.compile(rf"\b{SECRET.pattern}\b")
READ = ("tests/**/*.py", "manifests/**/*.yaml", "reconciler/**/*.py", "README.md", "docs/**/*.md")
ROOT = Path(__file__).parents[1]
SHORTEST = 8  # characters of what a test may mean as a secret
PLAIN = {"not-a-secret"}  # what tests put where no secret is needed

# Where a secret or a row may be, below a test's folder, and why.
KEPT: Mapping[str, str] = {
    "*/manifests/*.jsonl": "a dataset is made of rows",
}
QUOTING = {"git"}  # programs that are asked for the content of files


class Leak(NamedTuple):
    where: str
    what: str  # never the thing itself


def secrets_named() -> list[str]:
    """Every variable for a secret that anything here names."""
    found: set[str] = set()
    for pattern in READ:
        for path in ROOT.glob(pattern):
            found.update(match[0] for match in NAMED.finditer(path.read_text()))
    return sorted(found)


class Canary:
    """A pytest plugin. Under xdist every worker looks for itself, and the master tells."""

    def __init__(self) -> None:
        self.known: dict[bytes, str] = {MARK.encode(): "what was planted"}
        self.leaks: list[Leak] = []
        self.running = ""  # the test

    # Planting

    def plant(self, names: list[str]) -> None:
        """Give every one of these variables a secret."""
        for name in names:
            os.environ.setdefault(name, f"sk-{MARK}-{name.lower().replace('_', '-')}")

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's own word of what is put into an environment."""
        if event == "os.putenv":
            self._know(*map(os.fsdecode, arguments))
        elif event == "subprocess.Popen" and arguments[3]:
            for name, value in arguments[3].items():
                self._know(os.fsdecode(name), os.fsdecode(value))

    def _know(self, name: str, value: str) -> None:
        plain = len(value) < SHORTEST or value in PLAIN or MARK in value
        if SECRET.fullmatch(name) and not plain and value.encode() not in self.known:
            self.known[value.encode()] = f"what {self.running} put into {name}"

    # Looking

    def look(self, where: str, said: str | bytes | None) -> None:
        """At words."""
        words = said.encode(errors="replace") if isinstance(said, str) else said
        if words:
            self._found(where, words)

    def look_below(self, folder: Path, name: str) -> None:
        """At every file of a folder."""
        for path in files_below(folder):
            below = str(path.relative_to(folder))
            if any(fnmatch(f"{name}/{below}", kept) for kept in KEPT):
                continue
            try:
                with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    self._found(f"{name}/{below}", content)
            except (OSError, ValueError):
                continue  # it is gone, or not ours to read, or empty

    def _found(self, where: str, content: bytes | mmap.mmap) -> None:
        self.leaks += [Leak(where, what) for secret, what in self.known.items() if content.find(secret) >= 0]

    # Where pytest calls

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.running = item.nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "node"):
            return  # a worker has looked at it
        for name, content in report.sections:
            self.look(f"{report.nodeid} ({name})", content)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        factory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        if factory._basetemp is not None:
            for folder in sorted(factory.getbasetemp().iterdir()):
                if not folder.is_symlink() and not folder.name.startswith("popen-"):
                    self.look_below(folder, folder.name)
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["canary"] = [tuple(leak) for leak in self.leaks]
        elif self.leaks:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.leaks:
            terminalreporter.section("secrets or training rows where none may be", red=True)
            for leak in dict.fromkeys(self.leaks):
                terminalreporter.line(f"{leak.where}: {leak.what}")


class Master:
    """What the workers of xdist found."""

    def __init__(self, canary: Canary) -> None:
        self.canary = canary

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.canary.leaks += [Leak(*leak) for leak in getattr(node, "workeroutput", {}).get("canary", ())]


def files_below(folder: Path) -> Iterator[Path]:
    for here, _, names in os.walk(folder):
        for name in names:
            path = Path(here, name)
            if path.is_file() and not path.is_symlink():
                yield path


def register(config: pytest.Config) -> Canary:
    """Plant, and look from now on."""
    canary = Canary()
    canary.plant(secrets_named())
    sys.addaudithook(canary.heard)
    listen(canary)
    config.pluginmanager.register(canary, "canary")
    config.pluginmanager.register(Master(canary), "canary-master")
    return canary


def listen(canary: Canary) -> None:
    """Look at what a test takes from its captured output, and at what processes say to it."""
    import subprocess

    read, talk = pytest.CaptureFixture.readouterr, subprocess.Popen.communicate

    def readouterr(self: Any) -> Any:
        result = read(self)
        for said in result:
            canary.look(f"{canary.running} (captured)", said)
        return result

    def communicate(self: Any, *arguments: Any, **named: Any) -> Any:
        result = talk(self, *arguments, **named)
        program = Path(os.fsdecode(self.args if isinstance(self.args, str | bytes) else self.args[0])).name
        if program not in QUOTING:
            for said in result:
                canary.look(f"{canary.running} ({program} said)", said)
        return result

    pytest.CaptureFixture.readouterr = readouterr  # type: ignore[method-assign]
    subprocess.Popen.communicate = communicate  # type: ignore[method-assign]
