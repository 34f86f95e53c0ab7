"""
Where a CI job runs and for what: GitHub's environment and event, as one value.

The token is taken out of the environment, so that nothing that is started for a manifest can inherit it.
"""

import json
import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.errors import ReconcilerError, Refused

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")
RUN = re.compile(r"[0-9]+")


class Request(NamedTuple):
    """A pull request. `head` is the commit that was pushed, not the one that is checked out."""

    number: int
    head: str
    base: str  # the branch it asks to be merged into
    fork: bool


@dataclass(frozen=True)
class Runner:
    """`workspace` is the repository's folder; `commit` is the one that is checked out."""

    repository: str
    commit: str
    workspace: Path
    api: str
    url: str  # of this run, for people
    branch: str = ""
    request: Request | None = None
    token: str | None = field(default=None, repr=False)
    summary: Path | None = None
    outputs: Path | None = None

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> "Runner":
        """Take the runner from its environment, and the token out of it. Raises ReconcilerError."""
        token = environment.pop("GITHUB_TOKEN", None)
        repository = _needed(environment, "GITHUB_REPOSITORY", REPOSITORY)
        server = environment.get("GITHUB_SERVER_URL", "https://github.com")
        return cls(
            repository,
            _needed(environment, "GITHUB_SHA", COMMIT),
            Path(environment.get("GITHUB_WORKSPACE") or Path.cwd()).resolve(),
            environment.get("GITHUB_API_URL", "https://api.github.com").rstrip("/"),
            f"{server}/{repository}/actions/runs/{_needed(environment, 'GITHUB_RUN_ID', RUN)}",
            environment.get("GITHUB_REF_NAME", ""),
            _request(environment, repository),
            token or None,
            _path(environment.get("GITHUB_STEP_SUMMARY")),
            _path(environment.get("GITHUB_OUTPUT")),
        )

    def asked(self) -> Request:
        """The pull request this runs for. Raises ReconcilerError, and Refused for one from a fork."""
        if self.request is None:
            raise ReconcilerError("this runs for no pull request; start it `on: pull_request`")
        if self.request.fork:
            raise Refused(
                f"pull request #{self.request.number} comes from a fork, and forks have no credentials here; "
                "they can `validate`, and somebody with write access can push the branch to have it planned"
            )
        return self.request

    def place(self, file: str) -> str | None:
        """A file as GitHub names it, from the repository's root; None where it lies elsewhere."""
        path = Path(os.path.abspath(file))
        return path.relative_to(self.workspace).as_posix() if path.is_relative_to(self.workspace) else None


def _needed(environment: Mapping[str, str], name: str, pattern: re.Pattern[str]) -> str:
    value = environment.get(name, "")
    if not pattern.fullmatch(value):
        said = f"{name} is {value!r}" if value else f"{name} is not set"
        raise ReconcilerError(f"{said}; `reconciler ci` runs in GitHub Actions, elsewhere use plan and apply")
    return value


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _request(environment: Mapping[str, str], repository: str) -> Request | None:
    path = environment.get("GITHUB_EVENT_PATH")
    if not path:
        return None
    try:
        event: dict[str, Any] = json.loads(Path(path).read_bytes())
        asked = event.get("pull_request")
        if asked is None:
            return None
        head, base = asked["head"], asked["base"]
        origin = (head.get("repo") or {}).get("full_name")
        if not COMMIT.fullmatch(head["sha"]):
            raise ValueError(head["sha"])
        return Request(int(asked["number"]), str(head["sha"]), str(base["ref"]), origin != repository)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ReconcilerError(
            "the event in GITHUB_EVENT_PATH is none of GitHub's; run this in a workflow"
        ) from None
