"""What a pull request's jobs say on GitHub: real processes, a real platform, and a stub of GitHub's API."""

import re

import pytest
from ci_base import Workflow
from core_base import edit
from github_stub import BOT, TOKEN, GitHubStub, forbidden, secondary, unavailable

CHECK = "reconciler plan (manifests)"


@pytest.fixture(autouse=True)
def opened(workflow: Workflow) -> None:
    workflow.pull_request()


def test_a_plan_is_one_comment_one_check_and_a_file(workflow: Workflow, github: GitHubStub) -> None:
    ended = workflow.run("plan")

    comment, check = github.comments[0], github.checks[0]
    assert (0, "2") == (ended.code, ended.outputs["code"])
    assert [7] == [each["number"] for each in github.comments]
    assert "7 to create" in comment["body"]
    assert f"commit <code>{workflow.head[:8]}</code>" in comment["body"]
    assert (CHECK, workflow.head, "success") == (check["name"], check["head_sha"], check["conclusion"])
    assert ended.outputs["digest"] == check["external_id"]
    assert ended.outputs["digest"] in (workflow.root / "plan.json").read_text()
    assert "7 to create" in ended.summary


def test_remarks_stand_beside_the_lines_of_the_manifests(workflow: Workflow, github: GitHubStub) -> None:
    workflow.run("plan")

    remarks = github.checks[0]["output"]["annotations"]
    places = {each["title"]: (each["path"], each["start_line"]) for each in remarks}
    assert ("manifests/train.yaml", 11) == places["FineTuneJob/tuned will be made"]


def test_the_comment_is_edited_in_place(workflow: Workflow, github: GitHubStub) -> None:
    for other in range(5):
        github.comment(7, f"what about {other}?", "grace")
    workflow.run("plan")
    first = github.comments[-1]["id"]

    edit(workflow.root / "manifests/train.yaml", "n_epochs: 2", "n_epochs: 3")
    workflow.commit("another epoch")
    workflow.pull_request()
    workflow.run("plan")

    ours = [each for each in github.comments if each["user"]["login"] == BOT]
    assert [first] == [each["id"] for each in ours]
    assert f"commit <code>{workflow.head[:8]}</code>" in ours[0]["body"]


def test_a_comment_of_somebody_else_that_carries_our_marker_is_left_alone(
    workflow: Workflow, github: GitHubStub
) -> None:
    workflow.run("plan")
    body = github.comments[0]["body"]
    github.comments.clear()
    github.comment(7, f"{body.splitlines()[0]}\nmine", "mallory")

    workflow.run("plan")

    assert ["mallory", BOT] == [each["user"]["login"] for each in github.comments]
    assert github.comments[0]["body"].endswith("mine")


def test_two_jobs_at_once_leave_one_comment(workflow: Workflow, github: GitHubStub) -> None:
    def meanwhile(stub: GitHubStub) -> None:
        """Another job's comment, created after this one looked and before it creates its own."""
        stub.comment(7, f"{marker}\nanother job", BOT)

    workflow.run("plan")
    marker = github.comments[0]["body"].splitlines()[0]
    github.comments.clear()
    github.faults["POST issues/7/comments"] = [meanwhile]

    workflow.run("plan")

    assert 1 == len(github.comments)
    assert "to create" in github.comments[0]["body"]


def test_a_token_of_another_app_keeps_one_comment_too(workflow: Workflow, github: GitHubStub) -> None:
    github.author = "our-app[bot]"

    workflow.run("plan")
    workflow.run("plan")
    workflow.run("plan", "--author", "our-app[bot]")

    assert ["our-app[bot]"] == [each["user"]["login"] for each in github.comments]
    assert 2 == github.asked["POST issues/7/comments"]


def test_faults_are_waited_out(workflow: Workflow, github: GitHubStub) -> None:
    github.faults["POST issues/7/comments"] = [unavailable, secondary]
    github.faults["POST check-runs"] = [unavailable]

    ended = workflow.run("plan")

    assert 0 == ended.code
    assert (1, 1) == (len(github.comments), len(github.checks))


def test_a_missing_permission_is_named(workflow: Workflow, github: GitHubStub) -> None:
    github.faults["POST check-runs"] = [forbidden]

    ended = workflow.run("plan")

    assert 1 == ended.code
    assert "give the job `permissions: checks: write`" in ended.said


def test_what_is_wrong_is_said_in_the_same_comment_and_beside_its_line(
    workflow: Workflow, github: GitHubStub
) -> None:
    workflow.run("plan")
    edit(workflow.root / "manifests/train.yaml", "n_epochs: 2", "n_epochs: -1")
    workflow.commit("a mistake")
    workflow.pull_request()

    ended = workflow.run("plan")

    remark = github.checks[-1]["output"]["annotations"][0]
    assert (1, "failure") == (ended.code, github.checks[-1]["conclusion"])
    assert ("manifests/train.yaml", 17, "failure") == tuple(
        remark[each] for each in ("path", "start_line", "annotation_level")
    )
    assert ["there is no plan" in each["body"] for each in github.comments] == [True]
    assert not (workflow.root / "plan.json").exists()


def test_validate_needs_no_token_and_marks_lines(workflow: Workflow, github: GitHubStub) -> None:
    workflow.pull_request("mallory/models")
    fine = workflow.run("validate", token=None)

    edit(workflow.root / "manifests/train.yaml", "n_epochs: 2", "n_epochs: -1")
    wrong = workflow.run("validate", token=None)

    assert (0, 1) == (fine.code, wrong.code)
    assert "::error file=manifests/train.yaml,line=17,title=invalid manifest::" in wrong.out
    assert "manifests/train.yaml" in wrong.summary
    assert 0 == github.asked.total()


def test_a_fork_is_refused_before_anything_is_asked(workflow: Workflow, github: GitHubStub) -> None:
    workflow.pull_request("mallory/models")

    ended = workflow.run("plan")

    assert 6 == ended.code
    assert "comes from a fork" in ended.said
    assert 0 == github.asked.total()


def test_what_manifests_print_is_no_command_to_the_runner(workflow: Workflow) -> None:
    ended = workflow.run("build")

    stopped = re.search(r"^::stop-commands::(\w{32})$", ended.out, re.MULTILINE)
    assert stopped
    assert f"\n::{stopped[1]}::\n" in ended.out
    assert [] == [line for line in ended.out.splitlines() if line.startswith("::") and stopped[1] not in line]


def test_a_build_touches_no_channel_and_the_comment_shows_what_was_measured(
    workflow: Workflow, github: GitHubStub
) -> None:
    planned = workflow.run("plan")

    built = workflow.run("build")

    assert 1 == len(github.comments)
    assert "0 to create" not in planned.summary
    assert "<b>PASS</b>" in github.comments[0]["body"]
    assert ["reconciler plan (manifests)", "reconciler build (manifests)", CHECK] == [
        each["name"] for each in github.checks
    ]
    assert (0, "PromotionRule/production") == (
        built.code,
        re.findall(r'"address": "([^"]+)",\s+"fingerprint"', (workflow.root / "plan.json").read_text())[-1],
    )


def test_the_token_reaches_nothing_that_was_written(workflow: Workflow, github: GitHubStub) -> None:
    ended = workflow.run("plan")

    written = [each["body"] for each in github.comments] + [ended.summary, str(github.checks)]
    assert [] == [each for each in written if TOKEN in each]
