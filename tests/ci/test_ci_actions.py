"""The workflows, the action and the hook themselves: they hold to GitHub's schemas, and give away nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from comment_base import commit
from core_base import write

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github/actions/reconciler"
DOCS = ROOT / "docs/ci.md"
WRITES = {
    "validate": set(),
    "plan": {"pull-requests", "checks"},
    "build": {"pull-requests", "checks"},
    "apply": {"pull-requests", "checks"},
    "drift": {"issues"},
}


def shown() -> str:
    """The workflow that the documentation tells people to copy."""
    found = re.search(r"<!-- workflow -->\n```yaml\n(.*?)```\n<!-- -->", DOCS.read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of `.github`, and the documentation's workflow beside our own."""
    root = tmp_path_factory.mktemp("workflows")
    shutil.copytree(ROOT / ".github", root / ".github")
    (root / ".github/workflows/models.yml").write_text(shown())
    commit(root)
    return root


def tool(name: str) -> str:
    """A program that was installed beside this Python, or is on the path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or pytest.skip(f"{name} is not installed")


def checked(root: Path, *command: str) -> str:
    """What a checker says; nothing where it is content."""
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


def workflows(root: Path) -> list[Path]:
    return sorted((root / ".github/workflows").glob("*.yml"))


def steps(root: Path) -> Iterator[dict[str, Any]]:
    """Every step of every workflow and of the action."""
    for path in workflows(root):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            yield from job["steps"]
    yield from yaml.safe_load((ACTION / "action.yml").read_text())["runs"]["steps"]


def test_workflows_and_the_action_are_what_github_takes(copied: Path) -> None:
    schema = (tool("check-jsonschema"), "--builtin-schema")

    said = checked(copied, *schema, "vendor.github-workflows", *map(str, workflows(copied)))
    said += checked(copied, *schema, "vendor.github-actions", ".github/actions/reconciler/action.yml")

    assert "" == said


def test_an_audit_finds_nothing_to_inject_into_or_to_steal(copied: Path) -> None:
    said = checked(copied, tool("zizmor"), "--offline", "--quiet", "--no-config", "--persona=pedantic", ".")

    assert "" == said


def test_actionlint_finds_nothing(copied: Path) -> None:
    assert "" == checked(copied, tool("actionlint"))


def test_an_audit_would_find_an_input_in_a_shell(copied: Path, tmp_path: Path) -> None:
    broken = tmp_path / "action.yml"
    text = (ACTION / "action.yml").read_text()
    broken.write_text(text.replace('bash "$HERE/run.sh"', 'bash "$HERE/run.sh" ${{ inputs.dir }}'))

    said = checked(tmp_path, tool("zizmor"), "--offline", "--quiet", "--no-config", str(broken))

    assert "template-injection" in said


def test_every_action_of_others_is_pinned_to_a_commit(copied: Path) -> None:
    used = {each["uses"] for each in steps(copied) if "uses" in each}

    assert used
    assert [] == [each for each in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", each)]


def test_nothing_that_somebody_may_write_stands_in_a_shell_command(copied: Path) -> None:
    assert [] == [each["run"] for each in steps(copied) if "${{" in each.get("run", "")]


def test_jobs_may_do_what_their_command_needs_and_no_more() -> None:
    document = yaml.safe_load(shown())

    allowed = {}
    for name, job in document["jobs"].items():
        assert "read" == job["permissions"]["contents"]
        allowed[name] = {what for what, how in job["permissions"].items() if how == "write"}
    assert {} == document["permissions"]
    assert allowed == WRITES


def test_plans_cancel_and_applies_queue() -> None:
    groups = {name: job["concurrency"] for name, job in yaml.safe_load(shown())["jobs"].items()}

    assert groups["plan"]["cancel-in-progress"]
    assert "github.ref" in groups["plan"]["group"]
    assert {"group": "models-apply", "cancel-in-progress": False} == groups["apply"]


def test_no_workflow_runs_a_forks_code_with_our_secrets(copied: Path) -> None:
    texts = [path.read_text() for path in workflows(copied)]
    jobs = yaml.safe_load(shown())["jobs"]

    assert [] == [text for text in texts if re.search("pull_request_target|workflow_run", text)]
    assert "secrets." not in json.dumps(jobs["validate"])
    assert "head.repo.full_name == github.repository" in jobs["plan"]["if"]


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"COMMAND": "validate"}, ["validate", "--", "manifests"]),
        ({"COMMAND": "drift", "PLATFORM": "gpu"}, ["drift", "--author=me", "--platform=gpu", "--", "manifests"]),
        ({"COMMAND": "apply", "TIMEOUT": "60"}, ["apply", "--author=me", "--timeout=60", "--", "manifests"]),
        ({"COMMAND": "plan", "DIR": "--out=x; $(touch y) `z`"},
         ["plan", "--author=me", "--out=TEMP/plan.json", "--", "--out=x; $(touch y) `z`"]),
        ({"COMMAND": "build"}, ["build", "--author=me", "--out=TEMP/plan.json", "--", "manifests"]),
    ],
    ids=["validate", "drift", "apply", "injection", "build"],
)  # fmt: skip
def test_the_actions_script_passes_inputs_on_as_data(
    given: dict[str, str], expected: list[str], tmp_path: Path
) -> None:
    python = tmp_path / "reconciler/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)

    done = subprocess.run(["bash", str(ACTION / "run.sh")], env=around(tmp_path) | given, capture_output=True)

    told = done.stdout.decode().replace(str(tmp_path), "TEMP").splitlines()
    assert ["-I", "-m", "reconciler", "ci", *expected] == told
    assert not (tmp_path / "y").exists()


def test_the_actions_script_runs_the_command(tmp_path: Path) -> None:
    write(tmp_path / "manifests")
    python = tmp_path / "reconciler/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    here = {"GITHUB_REPOSITORY": "ada/models", "GITHUB_SHA": "0" * 40, "GITHUB_RUN_ID": "1"}

    done = subprocess.run(
        ["bash", str(ACTION / "run.sh")],
        env=around(tmp_path) | here | {"COMMAND": "validate"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert 0 == done.returncode, done.stderr
    assert "resources and 32 rows are valid" in done.stdout


def test_an_unknown_command_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(ACTION / "run.sh")],
        env=around(tmp_path) | {"COMMAND": "destroy"},
        capture_output=True,
        text=True,
    )

    assert (1, "") == (done.returncode, done.stdout)


def around(temporary: Path) -> dict[str, str]:
    """The environment that the action gives its script."""
    inputs = {"COMMAND": "", "DIR": "manifests", "PLATFORM": "", "TIMEOUT": "", "AUTHOR": "me"}
    return {"PATH": os.environ["PATH"], "RUNNER_TEMP": str(temporary), **inputs}


def test_the_hook_checks_manifests_before_a_commit(tmp_path: Path) -> None:
    hooks, user = tmp_path / "hooks", tmp_path / "user"
    hooks.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    revision = commit(hooks)
    write(user / "manifests")
    # As users have it, but with the reconciler that is installed here instead of one from an index.
    config = {"id": "reconciler-validate", "language": "system"}
    repository = {"repo": str(hooks), "rev": revision, "hooks": [config]}
    (user / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [repository]}))
    commit(user)
    command = [tool("pre-commit"), "run", "--all-files", "--verbose"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PRE_COMMIT_HOME": str(tmp_path / "kept")}

    fine = subprocess.run(command, cwd=user, env=env, capture_output=True, text=True)
    text = (user / "manifests/train.yaml").read_text()
    (user / "manifests/train.yaml").write_text(text.replace("n_epochs: 2", "n_epochs: -1"))
    wrong = subprocess.run(command, cwd=user, env=env, capture_output=True, text=True)

    assert (0, 1) == (fine.returncode, wrong.returncode), fine.stdout + fine.stderr
    assert "32 rows are valid" in fine.stdout
    assert "manifests/train.yaml:17" in wrong.stdout
