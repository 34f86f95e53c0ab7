"""
The whole story over real HTTP with the real trainer: YAML in, a measured, trained and promoted model out.

The example's own manifests once, from nothing; everything else on a small tree of the same shape.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from story_base import LONGEST, TUNED, copied, edit, reconciler, world

pytestmark = pytest.mark.train


def small(folder: Path) -> Path:
    """The example with a few rows, two epochs, and a gate that any model passes."""
    tree = copied(folder)
    for name, count in (("triage-train", 64), ("triage-validation", 10), ("triage-heldout", 40)):
        path = tree / "data" / f"{name}.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:count]))
    text = re.sub(r"n_epochs: \d+", "n_epochs: 2", (tree / "improve.yaml").read_text())
    gates = "  gates:\n    - {eval: Eval/triage, not_worse_than: 0.5}\n"
    text = re.sub(r"  gates:\n(    .*\n)+", gates, text)
    (tree / "improve.yaml").write_text(text)
    return tree


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The example, applied from nothing, and what that printed."""
    tree = copied(tmp_path_factory.mktemp("example"))
    applied = reconciler("apply", tree)
    assert 0 == applied.returncode, applied.stdout + applied.stderr
    return tree, applied.stdout


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tree, applied from nothing."""
    tree = small(tmp_path_factory.mktemp("undisturbed"))
    applied = reconciler("apply", tree)
    assert 0 == applied.returncode, applied.stdout + applied.stderr
    return tree


def test_the_example_is_promoted_from_nothing(example: tuple[Path, str]) -> None:
    tree, printed = example
    rates = {
        (said[1], said[2]): (float(said[3]), int(said[4]))
        for said in re.finditer(
            r"Eval/(\w+) +(base model|candidate) \S+ +pass rate ([\d.]+)% .* n=(\d+)", printed
        )
    }

    assert (0.0, 240) == rates["triage", "base model"]
    assert rates["triage", "candidate"] >= (87.0, 240)
    assert (100.0, 120) == rates["smalltalk", "base model"]
    assert rates["smalltalk", "candidate"] >= (94.0, 120)
    assert 3 == printed.count(f"  PASS  {TUNED}: ")
    assert f"release: support/production → {world(tree).release}" in printed
    assert 'client.chat.completions.create(model="support/production"' in printed


def test_again_there_is_nothing_to_do(example: tuple[Path, str]) -> None:
    tree, _ = example
    before = world(tree)

    again = reconciler("apply", tree)

    assert 0 == again.returncode
    assert "nothing to do" in again.stdout
    assert before == world(tree)


def test_one_edited_row_is_planned_with_its_line_and_undone_without_a_trace(
    example: tuple[Path, str],
) -> None:
    tree, _ = example
    path = tree / "data" / "triage-train.jsonl"
    before = path.read_text()
    rows = before.splitlines(keepends=True)
    rows[6] = rows[6].replace('"content": "', '"content": "Dear support, ', 2)

    path.write_text("".join(rows))
    edited = reconciler("plan", tree)
    path.write_text(before)
    undone = reconciler("plan", tree)

    assert (2, 0) == (edited.returncode, undone.returncode)
    assert f"rows: 1 changed  {path}:7\n" in edited.stdout
    for name in ("Dataset/triage-train", TUNED, f"EvalRun/triage@{TUNED}"):
        assert re.search(rf"\+ {name} +made anew, because", edited.stdout)
    assert "EvalRun/triage@Model/tiny-chat" not in edited.stdout.partition("PromotionRule")[0]


def test_descriptions_and_names_cost_nothing(example: tuple[Path, str], tmp_path: Path) -> None:
    tree, _ = example
    kept = {path: path.read_text() for path in tree.glob("*.yaml")}

    edit(tree / "data.yaml", "description: ", "description: Rewritten. ")
    described = reconciler("plan", tree)
    for path, text in kept.items():
        path.write_text(text.replace("name: support}", "name: helper}").replace(TUNED, "FineTuneJob/helper"))
    (tree / "project.yaml").write_text(kept[tree / "project.yaml"])
    renamed = reconciler("plan", tree)
    for path, text in kept.items():
        path.write_text(text)

    assert [0, 0] == [described.returncode, renamed.returncode], renamed.stdout
    assert "nothing to do" in renamed.stdout


def test_a_revert_moves_the_release_back_in_one_pass_and_trains_nothing(undisturbed: Path) -> None:
    first = world(undisturbed)
    edit(undisturbed / "improve.yaml", "n_epochs: 2", "n_epochs: 3")
    changed = reconciler("apply", undisturbed)
    second = world(undisturbed)

    edit(undisturbed / "improve.yaml", "n_epochs: 3", "n_epochs: 2")
    reverted = reconciler("apply", undisturbed, "--no-wait")
    third = world(undisturbed)

    assert [0, 0] == [changed.returncode, reverted.returncode], changed.stdout + reverted.stdout
    assert second.release != first.release == third.release
    assert third == second._replace(intents=second.intents + 1, release=first.release)


def weights(tree: Path) -> str:
    """The digest of the first job's model."""
    [*models] = sorted(
        (tree / ".reconciler/platform/jobs").glob("*/model/model.safetensors"), key=os.path.getmtime
    )
    return hashlib.sha256(models[0].read_bytes()).hexdigest()


class Applying:
    """An apply under way over a tree, and the moments at which it may be disturbed."""

    def __init__(self, tree: Path) -> None:
        self.tree, self.data = tree, tree / ".reconciler" / "platform"
        self.out = tree.parent / "out.txt"
        with self.out.open("w") as out:
            command = [sys.executable, "-m", "reconciler", "apply", str(tree)]
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)

    def until(self, found: Callable[[], Any]) -> Any:
        end = time.monotonic() + LONGEST
        while not (value := found()):
            assert self.process.poll() is None, self.out.read_text()
            assert time.monotonic() < end, self.out.read_text()
            time.sleep(0.02)
        return value

    def made(self, address: str) -> None:
        """Until it has been asked for."""
        self.until(lambda: f"+ {address}  " in self.out.read_text().partition("to create ·")[2])

    def step(self, number: int) -> None:
        """Until the training has come so far."""
        self.until(
            lambda: [
                path
                for path in self.data.glob("jobs/*/events.jsonl")
                if f'"step-{number}"' in path.read_text()
            ]
        )

    def platform(self) -> int:
        def running() -> int | None:
            with contextlib.suppress(OSError, ValueError):
                pid = int(json.loads((self.data / "server.json").read_text())["pid"])
                os.kill(pid, 0)
                return pid
            return None

        return int(self.until(running))

    def job(self) -> int:
        def running() -> int | None:
            with contextlib.suppress(OSError):
                children = (
                    Path(f"/proc/{(server := self.platform())}/task/{server}/children").read_text().split()
                )
                found = [
                    pid
                    for pid in children
                    if "selfhosted.training" in Path(f"/proc/{pid}/cmdline").read_text()
                ]
                return int(found[0]) if found else None
            return None

        return int(self.until(running))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ended(self) -> int:
        return self.process.wait(LONGEST)


@pytest.fixture
def applying(tmp_path: Path) -> Iterator[Callable[[], Applying]]:
    """Starts an apply over one small tree; whatever is left of it is gone at the end."""
    tree, started = small(tmp_path), []

    def start() -> Applying:
        started.append(Applying(tree))
        return started[-1]

    yield start
    for each in started:
        each.kill()


ONE_OF_EACH = {"files": 4, "jobs": 1, "evals": 2, "runs": 2}


def numbers(tree: Path) -> dict[str, int]:
    found = world(tree)
    return {"files": found.files, "jobs": len(found.jobs), "evals": found.evals, "runs": found.runs}


def test_whenever_apply_is_killed_the_next_one_finishes(
    applying: Callable[[], Applying], undisturbed: Path
) -> None:
    for moment in (lambda a: a.made("Dataset/triage-train"), lambda a: a.made(TUNED), lambda a: a.step(3),
                   lambda a: a.until(lambda: f"+ EvalRun/triage@{TUNED}  " in a.out.read_text())):  # fmt: skip
        now = applying()
        with contextlib.suppress(AssertionError):  # it was through before we could kill it
            moment(now)
        now.kill()
    last = applying()

    assert 0 == last.ended(), last.out.read_text()
    assert ONE_OF_EACH == numbers(last.tree)
    assert weights(undisturbed) == weights(last.tree)


def test_whenever_the_platform_is_killed_the_same_apply_finishes(
    applying: Callable[[], Applying], undisturbed: Path
) -> None:
    now = applying()
    now.made(TUNED)
    os.kill(now.platform(), signal.SIGKILL)
    now.step(3)
    os.kill(now.platform(), signal.SIGKILL)
    now.step(6)
    os.kill(now.platform(), signal.SIGKILL)

    assert 0 == now.ended(), now.out.read_text()
    assert ONE_OF_EACH == numbers(now.tree)
    assert weights(undisturbed) == weights(now.tree)


def test_whenever_the_job_is_killed_it_goes_on_to_the_same_weights(
    applying: Callable[[], Applying], undisturbed: Path
) -> None:
    now = applying()
    now.step(2)
    os.kill(now.job(), signal.SIGKILL)
    now.step(6)
    os.kill(now.job(), signal.SIGKILL)

    assert 0 == now.ended(), now.out.read_text()
    assert ONE_OF_EACH == numbers(now.tree)
    assert weights(undisturbed) == weights(now.tree)
