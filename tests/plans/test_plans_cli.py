"""Plans written down, approved, built and carried out, as commands, against a real platform."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from comment_base import commit, git
from core_base import Say, edit, write
from faulty_server import FaultyServer, slow
from server_base import until

KEY = "sk-canary-5f2a"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    with FaultyServer(tmp_path_factory.mktemp("platform")).running() as running:
        yield running


@pytest.fixture
def tree(
    tmp_path: Path, server: FaultyServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A tree in a repository, with a project and a channel of its own; we stand in the repository's folder."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[5:60].strip("-")
    tree = write(tmp_path / "manifests")
    edit(tree / "promote.yaml", "demo/production", f"{name}/production")
    (tree / "project.yaml").write_text(
        f"apiVersion: reconciler/v1\nkind: Project\nmetadata: {{name: {name}}}\nspec:\n"
        f"  platforms:\n    local: {{type: openai, base_url: '{server.url}', api_key_env: DEMO_KEY}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMO_KEY", KEY)
    commit(tmp_path)
    return tree


def posts(server: FaultyServer) -> int:
    return sum(count for what, count in server.asked.items() if what.startswith("POST"))


def test_a_plan_is_written_carried_out_and_refused_the_second_time(tree: Path, say: Say) -> None:
    planned, _, _ = say("plan", "--out", "plan.json")
    text = Path("plan.json").read_text()

    applied, printed, _ = say("apply", "plan.json")
    again, _, refusal = say("apply", "plan.json")

    assert (2, 0, 6) == (planned, applied, again)
    assert "release: " in printed
    assert "carried out before" in refusal
    assert '"folder": "manifests"' in text
    assert not [word for word in (KEY, "say 3", str(tree.parent)) if word in text]


def test_a_plan_whose_facts_moved_does_nothing_and_names_the_fact(
    tree: Path, say: Say, server: FaultyServer
) -> None:
    say("plan", "--out", "plan.json")
    edit(tree / "train.yaml", "n_epochs: 2", "n_epochs: 1")
    before = posts(server)

    code, _, refusal = say("apply", "plan.json")

    assert 6 == code
    assert "FineTuneJob/tuned asks for something else than it did" in refusal
    assert before == posts(server)


def test_a_plan_that_was_edited_does_nothing(tree: Path, say: Say, server: FaultyServer) -> None:
    say("plan", "--out", "plan.json")
    edit(Path("plan.json"), '"action": "create"', '"action": "update"')
    before = posts(server)

    code, _, refusal = say("apply", "plan.json")

    assert (6, before) == (code, posts(server))
    assert "plan.json was changed after it was written" in refusal


def test_manifests_may_have_moved_since_the_plan(tree: Path, say: Say) -> None:
    say("plan", "--out", "plan.json")
    tree.rename(tree.with_name("elsewhere"))

    assert (0, "") == say("apply", "plan.json", "--dir", "elsewhere")[::2]


def test_a_killed_apply_of_a_plan_is_gone_on_with_and_pays_once(
    tree: Path, say: Say, server: FaultyServer
) -> None:
    say("plan", "--out", "plan.json")
    jobs = server.asked["POST fine_tuning/jobs"]
    server.faults["POST fine_tuning/jobs"] = [slow]
    killed = subprocess.Popen(
        [sys.executable, "-m", "reconciler", "apply", "plan.json"], stdout=subprocess.DEVNULL
    )
    until(lambda: server.asked["POST fine_tuning/jobs"] > jobs)
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    code, printed, _ = say("apply", "plan.json")
    again, _, _ = say("apply", "plan.json")

    assert (0, 6) == (code, again)
    name = re.search("name: (.*?)}", (tree / "project.yaml").read_text())
    assert name
    ours = {"metadata[reconciler_project]": name[1]}
    assert 1 == len(httpx.get(f"{server.url}/fine_tuning/jobs", params=ours).json()["data"])
    assert "release: " in printed


def test_a_build_touches_no_channel_and_a_merge_moves_it_within_what_was_approved(
    tree: Path, say: Say, server: FaultyServer
) -> None:
    say("plan", "--out", "plan.json")
    releases = server.asked["POST reconciler/aliases"]

    built, printed, _ = say("apply", "--build")
    assert releases == server.asked["POST reconciler/aliases"]
    shown, comment, _ = say("plan", "--base", "main", "--output", "markdown")
    before = posts(server)
    merged, _, _ = say("apply", "--approved", "plan.json")

    assert (0, 2, 0) == (built, shown, merged)
    assert "not moved, because this apply only builds" in printed
    assert "<b>PASS</b> <code>FineTuneJob/tuned</code>" in comment
    assert before + 1 == posts(server)
    assert releases + 1 == server.asked["POST reconciler/aliases"]


def test_what_was_not_approved_is_refused_by_name(tree: Path, say: Say, server: FaultyServer) -> None:
    say("plan", "--out", "plan.json")
    edit(tree / "train.yaml", "n_epochs: 2", "n_epochs: 1")
    before = posts(server)

    code, _, refusal = say("apply", "--approved", "plan.json")

    assert (6, before) == (code, posts(server))
    assert "nobody approved to create FineTuneJob/tuned" in refusal


@pytest.mark.parametrize(
    "command, said",
    [
        (["apply", "plan.json", "--approved", "plan.json"], "--approved goes with a folder"),
        (["apply", "plan.json", "--build"], "--build goes with a folder"),
        (["apply", "--build", "--approved", "plan.json"], "do not go together"),
        (["apply", "--dir", "manifests"], "--dir says where the manifests of a saved plan lie"),
        (["apply", "plan.json", "--platform", "other"], "plan.json was planned for local, not for other"),
        (["apply", "manifests/train.jsonl"], "is no plan that this version reads"),
        (["apply", "--approved", "nowhere.json"], "nowhere.json cannot be read"),
        (["plan", "--out", "no/such/folder/plan.json"], "cannot be written"),
        (["plan", "--out", "."], "is a folder; name the file to write"),
        (["plan", "--base", "nobody"], "git knows no commit nobody here"),
    ],
)
def test_what_makes_no_sense_gets_a_sentence(tree: Path, say: Say, command: list[str], said: str) -> None:
    say("plan", "--out", "plan.json")

    code, _, refusal = say(*command)

    assert 1 == code
    assert said in refusal


def test_the_comment_is_what_the_branch_changes(tree: Path, say: Say) -> None:
    say("apply")
    git(tree.parent, "checkout", "-qb", "branch")
    edit(tree / "train.yaml", "n_epochs: 2", "n_epochs: 3")
    commit(tree.parent)

    code, comment, _ = say("plan", "--base", "main", "--output", "markdown")
    text, plan, _ = say("plan", "--base", "main")

    assert (2, 2) == (code, text)
    assert re.match(r"<!-- reconciler:plan:[0-9a-f]{16} -->\n", comment)
    assert "<b>0 to create · 2 replaced · 1 to move · 0 deleted · " in comment
    assert "<code>2</code> → <code>3</code> (<code>manifests/train.yaml:17</code>)" in comment
    assert "n_epochs: 2 → 3  manifests/train.yaml:17" in plan
    assert KEY not in comment


def test_what_a_policy_forbids_ends_with_6_in_plan_and_apply(
    tree: Path, say: Say, server: FaultyServer
) -> None:
    with (tree / "project.yaml").open("a") as file:
        file.write(
            "  policies:\n    - {name: small, message: train less, rule: 'resource.kind != \"FineTuneJob\"'}\n"
        )
    jobs = server.asked["POST fine_tuning/jobs"]

    planned, plan, _ = say("plan")
    applied, _, _ = say("apply")

    assert (6, 6) == (planned, applied)
    assert "! FineTuneJob/tuned" in plan
    assert "policy small forbids it: train less; manifests/project.yaml:8" in plan
    assert jobs == server.asked["POST fine_tuning/jobs"]
