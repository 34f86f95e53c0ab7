"""What can be typed is in the README, and what the README shows can be used."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from reconciler.cli.main import app
from reconciler.kinds import all_kinds

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MANIFESTS = [
    document
    for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    for document in yaml.safe_load_all(block)
    if isinstance(document, dict) and document.get("apiVersion") == "reconciler/v1"
]


def commands(of: typer.Typer, before: str = "reconciler") -> Iterator[str]:
    for command in of.registered_commands:
        assert command.callback
        yield f"{before} {command.name or command.callback.__name__}"
    for group in of.registered_groups:
        assert group.typer_instance and group.name
        yield from commands(group.typer_instance, f"{before} {group.name}")


@pytest.mark.parametrize("command", sorted(commands(app)))
def test_every_command_is_in_the_readme(command: str) -> None:
    listed = README.replace("\\|", "|")
    family, _, last = command.rpartition(" ")

    assert f"`{command}" in listed or re.search(rf"`{family} [a-z|]*\b{last}\b", listed)


@pytest.mark.parametrize("document", MANIFESTS, ids=lambda d: f"{d['kind']}/{d['metadata']['name']}")
def test_every_manifest_of_the_readme_is_valid(document: dict[str, object]) -> None:
    kind = all_kinds()[str(document["kind"])]

    assert kind.parse(document["spec"])  # type: ignore[arg-type]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([a-z][^)#:]*)\)", README))))
def test_every_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
