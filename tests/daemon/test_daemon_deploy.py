"""What is shipped beside the daemon is well formed and says what the daemon understands."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from reconciler import daemon
from reconciler.cli.main import app

PACKAGE = Path(daemon.__file__).parent
DEPLOY = PACKAGE / "deploy"
DOCS = (Path(__file__).parents[2] / "docs" / "daemon.md").read_text()


def options() -> set[str]:
    """Everything that `reconciler run` takes."""
    command: Any = typer.main.get_command(app)
    return {name for parameter in command.commands["run"].params for name in parameter.opts}


def used(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z-]+", text))


def kubernetes() -> Iterator[dict[str, Any]]:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    [found] = [block for block in blocks if "kind: Deployment" in block]
    yield from yaml.safe_load_all(found)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on the path")
def test_systemd_takes_the_unit() -> None:
    told = subprocess.run(
        ["systemd-analyze", "verify", str(DEPLOY / "reconciler.service")], capture_output=True, text=True
    )

    assert (0, "") == (told.returncode, told.stderr)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not on the path")
def test_hadolint_takes_the_dockerfile() -> None:
    told = subprocess.run(["hadolint", str(DEPLOY / "Dockerfile")], capture_output=True, text=True)

    assert (0, "") == (told.returncode, told.stdout)


def test_the_unit_says_only_what_the_daemon_takes() -> None:
    line = next(
        li for li in (DEPLOY / "reconciler.service").read_text().splitlines() if li.startswith("ExecStart")
    )

    assert set() == used(line) - options()


def test_the_compose_file_says_only_what_the_daemon_takes_and_mounts_what_it_declares() -> None:
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = document["services"]
    mounted = {volume.split(":")[0] for each in services.values() for volume in each["volumes"]}

    assert set() == used(" ".join(services["daemon"]["command"])) - options()
    assert set(document["volumes"]) == mounted
    assert set(services["daemon"]["depends_on"]) <= set(services)
    assert (
        DEPLOY / services["daemon"]["build"]["context"] / services["daemon"]["build"]["dockerfile"]
    ).exists()


def test_the_image_runs_the_daemon_as_nobody_special() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    said = {line.split()[0]: line for line in lines if re.match(r"[A-Z]+ ", line)}

    assert "USER 10001" == said["USER"]
    assert 'ENTRYPOINT ["reconciler"]' == said["ENTRYPOINT"]
    assert {"git", "ca-certificates"} <= set("\n".join(lines).split())


def test_the_manifests_for_kubernetes_fit_together() -> None:
    found = {each["kind"]: each for each in kubernetes()}
    pod = found["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]

    assert {"Deployment", "PersistentVolumeClaim", "Service"} == set(found)
    assert set() == used(" ".join(container["args"])) - options()
    assert found["Service"]["spec"]["selector"] == pod["metadata"]["labels"]
    assert {v["name"] for v in container["volumeMounts"]} == {v["name"] for v in pod["spec"]["volumes"]}
    assert "reconciler" == found["PersistentVolumeClaim"]["metadata"]["name"]


def test_the_page_knows_every_option() -> None:
    own = {"--platform"} | {each for each in options() if each.startswith("--") and each != "--help"}

    assert set() == {each for each in own if f"`{each}" not in DOCS and f"{each} " not in DOCS}


def test_the_page_lists_every_event_and_no_other() -> None:
    code = "\n".join(path.read_text() for path in PACKAGE.glob("*.py"))
    written = set(re.findall(r'log\.(?:info|warning|error)\(\s*"([a-z.]+)"', code))
    table = DOCS[DOCS.index("## The log") : DOCS.index("## Where it runs")]

    assert written == set(re.findall(r"^\| `([a-z]+\.[a-z]+)`", table, re.MULTILINE))
