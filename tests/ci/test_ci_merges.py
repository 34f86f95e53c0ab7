"""What happens on a merge: an apply of what was approved, or a refusal that says what to do; and drift."""

from ci_base import Ended, Workflow
from comment_base import git
from core_base import edit
from faulty_server import FaultyServer
from github_stub import BOT, GitHubStub

APPLY = "reconciler apply (manifests)"


def approved(workflow: Workflow) -> Ended:
    """Plan a pull request, keep its plan, and merge it."""
    workflow.pull_request()
    planned = workflow.run("plan")
    workflow.upload(planned)
    workflow.merge()
    return planned


def posts(server: FaultyServer) -> int:
    return sum(count for what, count in server.asked.items() if what.startswith("POST"))


def test_a_merge_applies_what_was_approved_and_says_so(workflow: Workflow, github: GitHubStub) -> None:
    approved(workflow)

    ended = workflow.run("apply")

    plan, outcome = github.comments
    assert (0, "0") == (ended.code, ended.outputs["code"])
    assert "to create" in plan["body"]
    assert "applied: nothing is left to do" in outcome["body"]
    assert "PASS  FineTuneJob/tuned" in outcome["body"]
    assert (APPLY, "success") == (github.checks[-1]["name"], github.checks[-1]["conclusion"])
    assert git(workflow.root, "rev-parse", "HEAD") == github.checks[-1]["head_sha"]
    assert [None] == github.tokens_at_storage


def test_after_a_build_the_merge_only_moves_the_pointer(
    workflow: Workflow, github: GitHubStub, server: FaultyServer
) -> None:
    workflow.pull_request()
    workflow.upload(workflow.run("plan"))
    workflow.upload(workflow.run("build"))
    workflow.merge()
    before = server.asked.copy()

    ended = workflow.run("apply")

    made = server.asked - before
    assert 0 == ended.code
    assert 0 == made["POST fine_tuning/jobs"] + made["POST files"] + made["POST runs"]
    assert 1 == made["POST reconciler/aliases"]


def test_what_was_pushed_after_the_approval_is_not_applied(
    workflow: Workflow, github: GitHubStub, server: FaultyServer
) -> None:
    workflow.pull_request()
    workflow.upload(workflow.run("plan"))
    edit(workflow.root / "manifests/train.yaml", "n_epochs: 2", "n_epochs: 9")
    workflow.merge()
    before = posts(server)

    ended = workflow.run("apply")

    assert 6 == ended.code
    assert "nobody approved to create FineTuneJob/tuned" in ended.said
    assert "it was not applied" in github.comments[-1]["body"]
    assert "failure" == github.checks[-1]["conclusion"]
    assert before == posts(server)


def test_a_push_without_a_pull_request_is_refused(workflow: Workflow, github: GitHubStub) -> None:
    github.branches["main"] = workflow.head

    ended = workflow.run("apply")

    assert 6 == ended.code
    assert "came to main without a pull request" in ended.said
    assert [] == github.comments


def test_a_plan_that_is_gone_says_how_to_have_it_again(workflow: Workflow, github: GitHubStub) -> None:
    approved(workflow)
    for about, _ in github.artifacts.values():
        about["expired"] = True

    ended = workflow.run("apply")

    assert 6 == ended.code
    assert "run the plan job of #7 again, then this one" in ended.said


def test_a_plan_that_a_fork_uploaded_is_not_the_approved_one(workflow: Workflow, github: GitHubStub) -> None:
    planned = approved(workflow)
    github.artifacts.clear()
    workflow.upload(planned, fork=True)

    ended = workflow.run("apply")

    assert 6 == ended.code
    assert "is gone" in ended.said


def test_a_plan_that_was_shown_to_nobody_is_not_the_approved_one(
    workflow: Workflow, github: GitHubStub
) -> None:
    workflow.pull_request()
    planned = workflow.run("plan")
    shown = github.checks[-1]["external_id"]
    again = workflow.run("plan")
    github.checks.pop()
    workflow.upload(again)
    workflow.merge()

    ended = workflow.run("apply")

    assert planned.outputs["digest"] == shown != again.outputs["digest"]
    assert 6 == ended.code
    assert f"is not the one that was shown last ({shown[:12]})" in ended.said


def test_a_plan_that_was_edited_is_not_the_approved_one(workflow: Workflow, github: GitHubStub) -> None:
    planned = approved(workflow)
    content = (workflow.root / "plan.json").read_bytes()
    github.artifacts.clear()
    github.upload(planned.outputs["artifact"], content.replace(b"tuned", b"other"), workflow.head)

    ended = workflow.run("apply")

    assert 6 == ended.code
    assert "was changed after it was written" in ended.said


def test_a_digest_that_another_app_checked_does_not_count(workflow: Workflow, github: GitHubStub) -> None:
    approved(workflow)
    for check in github.checks:
        check["app"]["slug"] = "some-app"

    ended = workflow.run("apply")

    assert 6 == ended.code
    assert "was never made" in ended.said


def test_one_apply_carries_the_merges_whose_jobs_gave_way(workflow: Workflow, github: GitHubStub) -> None:
    tree = workflow.root / "manifests"
    whole = {each: each.read_text() for each in tree.iterdir() if each.is_file()}
    for each in whole:
        if each.name != "project.yaml":
            each.unlink()
    (tree / "extra.jsonl").write_text(whole[tree / "train.jsonl"].replace("say", "tell"))
    (tree / "extra.yaml").write_text(whole[tree / "train.yaml"].split("---\n")[1].replace("train", "extra"))
    pushed = [(8, workflow.commit("one more dataset"))]
    workflow.number = 8
    workflow.pull_request()
    workflow.upload(workflow.run("plan"))
    (tree / "extra.yaml").rename(workflow.kept / "extra.yaml")
    for path, text in whole.items():
        path.write_text(text)
    pushed.append((7, workflow.commit("the rest")))
    workflow.number = 7
    workflow.pull_request()
    id = workflow.upload(workflow.run("plan"))
    workflow.merge()  # its job gives way to the next one's
    (workflow.kept / "extra.yaml").rename(tree / "extra.yaml")
    (workflow.number, workflow.head), _ = pushed
    workflow.merge()

    kept = github.artifacts.pop(id)
    without = workflow.run("apply")
    github.artifacts[id] = kept
    ended = workflow.run("apply")

    assert (6, 0) == (without.code, ended.code)
    assert "nobody approved to create" in without.said
    assert "FineTuneJob/tuned" in github.comments[-1]["body"]


def test_the_job_of_older_manifests_leaves_them_to_the_newer_one(
    workflow: Workflow, github: GitHubStub, server: FaultyServer
) -> None:
    approved(workflow)
    github.branches["main"] = "f" * 40
    github.newer = ["README.md", "manifests/train.yaml"]
    before = posts(server)

    ended = workflow.run("apply")

    assert 0 == ended.code
    assert "main has newer manifests" in ended.summary
    assert before == posts(server)
    assert APPLY not in [each["name"] for each in github.checks]


def test_newer_commits_that_change_no_manifest_do_not_matter(workflow: Workflow, github: GitHubStub) -> None:
    approved(workflow)
    github.branches["main"] = "f" * 40
    github.newer = ["README.md", "manifests-of-others/train.yaml"]

    ended = workflow.run("apply")

    assert 0 == ended.code
    assert (APPLY, "success") == (github.checks[-1]["name"], github.checks[-1]["conclusion"])


def test_a_commit_that_left_its_branch_is_not_applied(workflow: Workflow, github: GitHubStub) -> None:
    approved(workflow)
    github.branches["main"] = "f" * 40
    github.status = "diverged"

    ended = workflow.run("apply")

    assert 6 == ended.code
    assert "main does not hold" in ended.said


def test_drift_is_one_issue_that_closes_and_opens_again(workflow: Workflow, github: GitHubStub) -> None:
    approved(workflow)
    workflow.run("apply")
    fine = workflow.run("drift")
    assert ([], 0) == (github.issues, fine.code)

    edit(workflow.root / "manifests/train.yaml", "n_epochs: 2", "n_epochs: 3")
    found = [workflow.run("drift") for _ in range(2)]
    issue = github.issues[0]
    assert [0, 0] == [each.code for each in found]
    assert [(str(issue["number"]), "3")] * 2 == [
        (each.outputs["issue"], each.outputs["code"]) for each in found
    ]
    assert (1, "open", BOT) == (len(github.issues), issue["state"], issue["user"]["login"])
    assert "FineTuneJob/tuned" in issue["body"]

    edit(workflow.root / "manifests/train.yaml", "n_epochs: 3", "n_epochs: 2")
    workflow.run("drift")
    assert "closed" == issue["state"]

    edit(workflow.root / "manifests/train.yaml", "n_epochs: 2", "n_epochs: 3")
    workflow.run("drift")
    assert (1, "open") == (len(github.issues), issue["state"])
