"""
The git that releases are published to: the branch that the daemon follows, or the checkout that it watches.

On a branch a commit is written below the newest one without any working tree. In somebody's checkout only
`releases/` is committed; commits of theirs that were not pushed are not ours to push.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from reconciler import git
from reconciler.daemon import message
from reconciler.daemon.publish import Files
from reconciler.daemon.pullrequest import PullRequests
from reconciler.daemon.source import Branch
from reconciler.git import Behind, GitFailed, Remote

OFFER = "reconciler/releases"  # the branch of the pull request


class OfBranch:
    """Beside a daemon that follows a branch."""

    apart = True

    def __init__(self, source: Branch, api: str | None) -> None:
        self._source, self._api = source, api
        self._read: tuple[str, Mapping[str, bytes]] | None = None

    def shown(self) -> Mapping[str, bytes] | None:
        commit = self._source.commit()
        if commit is None:
            return None
        if self._read is None or self._read[0] != commit:
            self._read = (commit, self._source.checkout.releases(commit))
        return self._read[1]

    def author(self) -> tuple[str, str]:
        return self._source.checkout.author(self._source.commit() or "HEAD")

    def push(self, files: Files, text: str) -> str:
        place, onto = self._source.checkout.place, self._onto()
        commit = self._source.checkout.write(onto, files, text)
        self._source.wrote(commit, onto)
        try:
            self._source.checkout.push(commit, place.branch)
        except Behind:
            self._source.look()
            raise
        self._source.pushed(commit)
        if self._read and self._read[0] == self._source.commit():
            now = {**self._read[1], **files}
            self._read = (
                self._read[0],
                {name: content for name, content in now.items() if content is not None},
            )
        return commit

    def offer(self, files: Files, text: str) -> str:
        checkout, onto = self._source.checkout, self._onto()
        remote = checkout.place.remote
        token = os.environ.get(remote.secret_env or "")
        requests = PullRequests.of(remote, self._api, token)
        checkout.push(checkout.write(onto, files, text), OFFER, force=True)
        title, _, body = text.partition("\n\n")
        return requests.ensure(OFFER, checkout.place.branch, title, f"```\n{body.strip()}\n```\n")

    def _onto(self) -> str:
        onto = self._source.ground()
        if onto is None:
            raise GitFailed("the branch has moved to a revision that is not in use; releases wait for that")
        return onto


class OfCheckout:
    """In a folder that is a checkout of somebody's."""

    apart = False

    def __init__(self, root: Path) -> None:
        self._root = root

    def shown(self) -> Mapping[str, bytes] | None:
        paths = sorted((self._root / "releases").rglob("*.yaml"))
        return {str(path.relative_to(self._root)): path.read_bytes() for path in paths if path.name[0] != "."}

    def author(self) -> tuple[str, str]:
        who, _, words = self._git("log", "-1", "--format=%an%x00%s", "--", "releases").partition("\0")
        return (who or "somebody", words or "an edit of the release's file")

    def push(self, files: Files, text: str) -> str:
        self._git("add", "--all", "--", *files)
        if self._git("diff", "--cached", "--name-only", "--", *files):
            self._git("commit", "--quiet", "--only", "-F", "-", "--", *files, stdin=text.encode())
        try:
            upstream = self._git("rev-parse", "--abbrev-ref", "@{upstream}")
        except GitFailed:
            what = "push it once with --set-upstream, releases follow"
            raise GitFailed(f"the branch of {self._root} has no upstream; {what}") from None
        name, _, branch = upstream.partition("/")
        remote = Remote(self._git("remote", "get-url", name))
        theirs = self._git(
            "log", "--format=%h", "--invert-grep", f"--grep=^{message.TRAILER}: ", "@{upstream}..HEAD"
        )
        if theirs:
            count = len(theirs.split())
            what = f"{self._root} has {count} commit{'s' * (count != 1)} of yours that {upstream} has not"
            raise GitFailed(f"{what}; push them, releases follow")
        for attempt in range(3):
            try:
                self._git("push", "--quiet", name, f"HEAD:refs/heads/{branch}", remote=remote)
                break
            except Behind:
                if attempt == 2:
                    raise
                self._git("pull", "--quiet", "--rebase", "--autostash", name, branch, remote=remote)
        return self._git("rev-parse", "HEAD")

    def offer(self, files: Files, text: str) -> str:
        raise GitFailed("publish: pull_request goes with --git; a folder's releases can be pushed")

    def _git(self, *command: str, remote: Remote | None = None, stdin: bytes | None = None) -> str:
        return git.run("-C", str(self._root), *command, remote=remote, stdin=stdin)
