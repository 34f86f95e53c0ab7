"""
What was approved: the plan that the pull request of a merge showed, as its last job kept it.

It travels as an artifact of the commit that was reviewed. Anybody may upload an artifact of that name from a
fork, so its run has to be of this repository, and its digest has to be the one that our own check of that
commit carries.
"""

import io
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from reconciler import savedplan
from reconciler.ci.github import GitHub
from reconciler.errors import Refused, Rejected
from reconciler.savedplan import SavedPlan

APP = "github-actions"  # who makes checks with a workflow's own token
FILE = "plan.json"
MOST_FILES = 300  # that GitHub tells of a comparison
LARGEST = 64 << 20  # bytes of a plan
GONE = (404, 410)


@dataclass(frozen=True)
class Names:
    """What the plans of a folder are called on GitHub, and who makes its checks."""

    artifact: str
    plan: str  # the check that carries a plan's digest
    apply: str  # the check of the commits that were applied
    app: str = APP


class Approval(NamedTuple):
    """The plan of a pull request that was merged."""

    number: int
    plan: SavedPlan


def superseded(github: GitHub, commit: str, branch: str, place: str) -> bool:
    """
    Whether a branch has come to other manifests since, which are the ones to apply; `place` is their folder.

    Raises Refused where the branch does not hold the commit any more.
    """
    found = github.call("GET", f"compare/{commit}...{quote(branch)}")
    if found["status"] not in ("identical", "ahead"):
        raise Refused(f"{branch} does not hold {commit[:8]} any more, so there is nothing to apply it to")
    files = [str(each["filename"]) for each in found.get("files") or ()]
    return len(files) >= MOST_FILES or any(
        place == "." or f"{each}/".startswith(f"{place}/") for each in files
    )


def gathered(github: GitHub, commits: Sequence[str], branch: str, names: Names) -> Approval:
    """
    What was approved for the first of these commits, and for those before it that were never applied.

    A job that waits gives way to a newer one, so one apply may carry several merges. Raises Refused where the
    first one has no plan; what an older one lacks is missed where it is needed.
    """
    newest = find(github, commits[0], branch, names)
    older = []
    for commit in commits[1:]:
        if _applied(github, commit, names):
            break
        with suppress(Refused):
            older.append(find(github, commit, branch, names).plan)
    return newest._replace(plan=savedplan.union(newest.plan, *older)) if older else newest


def merged_as(github: GitHub, commit: str, branch: str) -> tuple[int, str]:
    """The number and the last commit of the pull request that a commit merged. Raises Refused."""
    for each in github.each(f"commits/{commit}/pulls"):
        merged = each.get("merged_at") and each.get("merge_commit_sha") == commit
        if merged and each["base"]["ref"] == branch:
            return int(each["number"]), str(each["head"]["sha"])
    raise Refused(
        f"{commit[:8]} came to {branch} without a pull request, so nobody approved a plan of it; "
        "make the change in a pull request, or run `reconciler apply` by hand"
    )


def find(github: GitHub, commit: str, branch: str, names: Names) -> Approval:
    """The plan that was approved for a merge. Raises Refused, which says what to do where there is none."""
    number, head = merged_as(github, commit, branch)
    what = f"the plan of pull request #{number} ({head[:8]})"
    again = f"run the plan job of #{number} again, then this one"
    digests = [
        each["external_id"] for each in _checks(github, head, names.plan, names) if each["external_id"]
    ]
    if not digests:
        raise Refused(f"{what} was never made: its commit has no check {names.plan!r}; {again}")
    for id in _artifacts(github, head, names.artifact):
        plan = _read(github, id, what, again)
        if plan and plan.digest == digests[0]:
            return Approval(number, plan)
    raise Refused(f"{what} is gone, or is not the one that was shown last ({digests[0][:12]}); {again}")


def _applied(github: GitHub, commit: str, names: Names) -> bool:
    return any(each["conclusion"] == "success" for each in _checks(github, commit, names.apply, names))


def _checks(github: GitHub, commit: str, name: str, names: Names) -> list[dict[str, Any]]:
    """Our checks of that name on a commit, the last one first."""
    found = github.each(f"commits/{commit}/check-runs", "check_runs", check_name=name, filter="all")
    ours = [each for each in found if each["app"]["slug"] == names.app and each["name"] == name]
    return sorted(ours, key=lambda run: int(run["id"]), reverse=True)


def _artifacts(github: GitHub, head: str, name: str) -> list[int]:
    """The artifacts of a commit's own runs, the newest first."""
    found = []
    for each in github.each("actions/artifacts", "artifacts", name=name):
        run = each.get("workflow_run") or {}
        ours = run.get("head_repository_id") == run.get("repository_id") is not None
        if ours and run.get("head_sha") == head and each["name"] == name and not each["expired"]:
            found.append(int(each["id"]))
    return sorted(found, reverse=True)


def _read(github: GitHub, id: int, what: str, again: str) -> SavedPlan | None:
    try:
        packed = github.read(f"actions/artifacts/{id}/zip")
    except Rejected as error:
        if error.status in GONE:
            return None
        raise
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            if archive.getinfo(FILE).file_size > LARGEST:
                raise Refused(f"{what} has more than 64 MiB; {again}")
            content = archive.read(FILE)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError):
        raise Refused(f"{what} is damaged; {again}") from None
    with tempfile.TemporaryDirectory(prefix="reconciler-approved-") as kept:
        path = Path(kept, FILE)
        path.write_bytes(content)
        return savedplan.read(path)
