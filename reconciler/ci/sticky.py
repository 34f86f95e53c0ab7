"""
One comment, one issue: found again by a hidden marker in what we wrote ourselves, and edited in place.

A marker in somebody else's text is no business of ours. Two jobs at once may both find nothing and both
create: so each looks again after it created, and the oldest is the one that stays.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from reconciler.ci.github import GitHub
from reconciler.errors import Rejected

BOT = "github-actions[bot]"  # who writes with a workflow's own token
MOST = 65_536  # characters of a comment or an issue
GONE = 404


class Issue(NamedTuple):
    title: str
    body: str
    label: str


def marker(what: str, *names: str) -> str:
    """The first line of what is ours, the same every time for the same names. Pure."""
    name = hashlib.sha256("\0".join(names).encode(errors="replace")).hexdigest()[:16]
    return f"<!-- reconciler:ci:{what}:{name} -->"


def comment(github: GitHub, number: int, mark: str, body: str, author: str = BOT) -> int:
    """Let a pull request have one comment of ours with this marker, saying `body`. Answers its id."""
    wanted = _marked(mark, body)
    path = f"issues/{number}/comments"
    ours = _ours(github.each(path), mark, author)
    if not ours:
        made = github.call("POST", path, {"body": wanted})
        author = made["user"]["login"]
        ours = _ours([*github.each(path), made], mark, author)
    first, *others = ours
    for each in others:
        _delete(github, each["id"])
    if first["body"] != wanted:
        github.call("PATCH", f"issues/comments/{first['id']}", {"body": wanted})
    return int(first["id"])


def issue(github: GitHub, mark: str, wanted: Issue | None, author: str = BOT, label: str = "") -> int | None:
    """
    Let there be one open issue of ours with this marker, or none where nothing is wanted.

    One that was closed is opened again. Answers its number, None where there never was one.
    """
    label = wanted.label if wanted else label
    ours = _ours(_issues(github, label), mark, author)
    if wanted is None:
        for each in ours:
            _set(github, each, state="closed")
        return int(ours[0]["number"]) if ours else None
    body = _marked(mark, wanted.body)
    if not ours:
        given = {"title": wanted.title, "body": body, "labels": [label]}
        made = github.call("POST", "issues", given)
        ours = _ours([*_issues(github, label), made], mark, made["user"]["login"])
    first, *others = ours
    for each in others:
        _set(github, each, state="closed")
    _set(github, first, state="open", title=wanted.title, body=body)
    return int(first["number"])


def _issues(github: GitHub, label: str) -> list[dict[str, Any]]:
    found = github.each("issues", state="all", labels=label)
    return [each for each in found if "pull_request" not in each]


def _ours(found: Iterable[dict[str, Any]], mark: str, author: str) -> list[dict[str, Any]]:
    """What carries the marker and was written by us, the oldest first."""
    ours = {
        each["id"]: each
        for each in found
        if (each.get("body") or "").startswith(mark) and (each.get("user") or {}).get("login") == author
    }
    return [ours[id] for id in sorted(ours)]


def _marked(mark: str, body: str) -> str:
    return f"{mark}\n{body}"[:MOST]


def _set(github: GitHub, issue: dict[str, Any], **wanted: str) -> None:
    if any(issue.get(name) != value for name, value in wanted.items()):
        github.call("PATCH", f"issues/{issue['number']}", wanted)


def _delete(github: GitHub, id: int) -> None:
    try:
        github.call("DELETE", f"issues/comments/{id}")
    except Rejected as error:
        if error.status != GONE:
            raise
