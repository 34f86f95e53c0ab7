"""
Golden plans: `manifests/`, `actual.yaml` (what stands) and `memory.yaml` (what was last applied) in;
`plan.txt` and `plan.md` out. `<Kind/name>` in them is that resource's fingerprint.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from memory_platform import MemoryPlatform, output_item

from reconciler import engine, plan, project
from reconciler.cli import commands, render
from reconciler.engine import World
from reconciler.errors import Unreachable
from reconciler.kinds import all_kinds
from reconciler.plan import DIGEST, Plan, Remembered
from reconciler.platforms.wrappers import ReadOnly
from reconciler.resource import Address, Desired

CASES = Path(__file__).parents[1] / "golden" / "plans"


@pytest.fixture(params=sorted(case.name for case in CASES.iterdir()))
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A golden case, seen from inside, so that plans name its files the same everywhere."""
    folder = CASES / str(request.param)
    monkeypatch.chdir(folder)
    return folder


def test_a_plan_says_what_it_always_said(case: Path, update_golden: bool) -> None:
    made = planned(case)

    text = render.plan_text(made, "demo", "memory", commands.locate) + "\n"
    markdown = render.plan_markdown(made, "demo", "memory", commands.locate) + "\n"

    if update_golden:
        (case / "plan.txt").write_text(text)
        (case / "plan.md").write_text(markdown)
    assert (case / "plan.txt").read_text() == text
    assert (case / "plan.md").read_text() == markdown


def test_a_plan_for_programs_is_json_as_others_read_it(case: Path) -> None:
    text = render.plan_json(planned(case), "demo", "memory", commands.locate)

    document = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))

    assert 1 == document["version"]
    assert len(document["steps"]) == sum(document["counts"].values()) - document["counts"]["replaced"]


def planned(case: Path) -> Plan:
    """The plan of a case, made as `reconciler plan` makes it."""
    desired = project.load(Path("manifests")).desired
    text = _filled((case / "actual.yaml").read_text(), desired)
    sight, world = _sight(desired, text)
    if "+canary>" in text:  # a run that is wanted only because of what stands
        sight, world = _sight(desired, _filled(text, sight.desired))
    return plan.make(sight.desired, world.kinds, sight.actual, sight.evidence, _memory(case, desired))


def _sight(desired: Desired, text: str) -> tuple[engine.Sight, World]:
    actual = yaml.safe_load(text) or {}
    unseen = {name: Unreachable(why) for name, why in actual.pop("unseen", {}).items()}
    platform = MemoryPlatform({name: _items(found) for name, found in actual.items()})
    platform.unseen.update(unseen)
    world = World("demo", all_kinds(), ReadOnly(platform))
    return engine.look(desired, world), world


def _filled(text: str, desired: Desired) -> str:
    for address, wanted in desired.items():
        text = text.replace(f"<{address}>", wanted.fingerprint)
        text = text.replace(f"<bytes {address}>", str(wanted.facts.get("bytes")))
    return text


def _items(found: Any) -> list[Any]:
    """Objects as they are, or so many output items of either end."""
    if isinstance(found, list):
        return found
    return [output_item(index, index < found["pass"]) for index in range(found["pass"] + found["fail"])]


def _memory(case: Path, desired: Desired) -> dict[Address, Remembered]:
    path = case / "memory.yaml"
    kept = yaml.safe_load(path.read_text()) if path.exists() else {}
    found = {}
    for text, was in kept.items():
        wanted = desired[Address.parse(text)]
        rows = bytearray(wanted.facts.get("row_digests", b""))
        for line in was.get("changed_rows", []):
            rows[(line - 1) * DIGEST] ^= 255
        content = wanted.content | was["content"]
        found[wanted.address] = Remembered(was["fingerprint"], content, bytes(rows))
    return found
