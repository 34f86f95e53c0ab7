"""
git, as a program that we start. It never waits for a person, and not for a remote that does not answer.

A secret reaches it by the name of an environment variable: it is in no argument, in no file and in no
message, and only the remote's own host is told.
"""

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from reconciler.errors import ReconcilerError

PATIENCE = 10.0  # seconds a call on this machine may take
FAR = 60.0  # seconds a call may take that speaks with a remote
USER = "x-access-token"  # what hosts expect beside a token when the address names nobody
QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "LC_ALL": "C",
    "GIT_EDITOR": "true",
}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNREACHED = re.compile(
    r"could not resolve|couldn't connect|connection (refused|reset|timed out|closed)|failed to connect|"
    r"network is unreachable|no route to host|early EOF|hung up|operation timed out|returned error: 5\d\d",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"authentication failed|could not read (username|password)|terminal prompts disabled|permission denied|"
    r"returned error: 40[13]|access denied|host key verification failed",
    re.IGNORECASE,
)
_NO_BRANCH = re.compile(r"couldn't find remote ref (\S+)|remote branch (\S+) not found", re.IGNORECASE)
_NOWHERE = re.compile(
    r"does not appear to be a git repository|repository .*not found|not a git repository", re.I
)
_BEHIND = re.compile(r"\[(remote )?rejected\]|non-fast-forward|fetch first|stale info|cannot lock ref", re.I)


class GitFailed(ReconcilerError):
    """git could not do it; nothing is half-done."""


class Behind(GitFailed):
    """The remote's branch has moved: fetch, and push again."""


@dataclass(frozen=True)
class Remote:
    """A repository elsewhere, and the environment variable that holds what it wants to hear. Raises GitFailed."""

    url: str
    secret_env: str | None = None

    def __post_init__(self) -> None:
        if self.url.startswith("-"):
            raise GitFailed(f"{self.url} is no address of a repository")
        parts = urlsplit(self.url)
        if parts.scheme in ("http", "https") and parts.password:
            what = "put it into an environment variable and name that with --git-token-env"
            raise GitFailed(f"the address of {parts.hostname} holds a password; {what}")
        if self.secret_env and not _VARIABLE.fullmatch(self.secret_env):
            raise GitFailed(f"{self.secret_env!r} is no name of an environment variable")
        if self.secret_env and not os.environ.get(self.secret_env):
            raise GitFailed(f"{self.secret_env} is not set; it has to hold the token for {self.place}")

    @property
    def place(self) -> str:
        """Where it is, without who we are there."""
        parts = urlsplit(self.url)
        if parts.scheme in ("http", "https", "ssh"):
            return f"{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
        return self.url

    @property
    def environment(self) -> dict[str, str]:
        """What git needs in its environment: who answers when this host, and no other, asks who we are."""
        parts = urlsplit(self.url)
        if not self.secret_env or parts.scheme not in ("http", "https"):
            return {}
        host = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
        user = "" if parts.username else f"echo username={USER}; "
        helper = f"!f() {{ {user}printf 'password=%s\\n' \"${self.secret_env}\"; }}; f"
        told = [("credential.helper", ""), (f"credential.{host}.helper", helper)]
        return {"GIT_CONFIG_COUNT": str(len(told))} | {
            f"GIT_CONFIG_{what}_{n}": each[at]
            for n, each in enumerate(told)
            for at, what in enumerate(("KEY", "VALUE"))
        }

    def clean(self, text: str) -> str:
        """What git said, in one line, without the secret."""
        secret = os.environ.get(self.secret_env or "")
        text = text.replace(secret, "…") if secret else text
        return " ".join(re.sub(r"//[^/@\s]+@", "//", text).split())[:300]

    def failure(self, said: str) -> GitFailed:
        """git's last words as a sentence with a next step."""
        told = self.clean(said)
        lines = [line for line in said.splitlines() if not line.startswith(("hint:", "remote: Counting"))]
        last = self.clean(next((line for line in lines if line.startswith(("fatal:", "error:"))), told))
        if found := _NO_BRANCH.search(told):
            branch = (found[1] or found[2]).removeprefix("refs/heads/")
            return GitFailed(f"{self.place} has no branch {branch}; name another one, or push it again")
        if _DENIED.search(told):
            wish = (
                f"the token in {self.secret_env}"
                if self.secret_env
                else "us; name a token with --git-token-env"
            )
            return GitFailed(f"{self.place} does not let in {wish} ({last})")
        if _NOWHERE.search(told):
            return GitFailed(f"there is no repository at {self.place}, or none that we may see ({last})")
        if _BEHIND.search(told):
            return Behind(f"{self.place} has moved meanwhile ({last})")
        if _UNREACHED.search(told):
            return GitFailed(f"{self.place} cannot be reached ({last})")
        return GitFailed(f"git could not work with {self.place}: {last}")


def commit(folder: Path) -> str | None:
    """The commit's hash, with `+changes` behind it when the folder differs from it; None outside of git."""
    head = _said(folder, "rev-parse", "HEAD")
    if head is None:
        return None
    changed = _said(folder, "status", "--porcelain", "--", ".", ":(exclude)releases")
    return f"{head}+changes" if changed else head


def recent(folder: Path, count: int) -> list[str]:
    """The commit that is checked out and those it came after on its branch, the newest first. Raises GitFailed."""
    return run("-C", str(folder), "rev-list", "--first-parent", f"--max-count={count}", "HEAD").split()


def run(
    *command: str,
    remote: Remote | None = None,
    env: Mapping[str, str] = {},
    stdin: bytes | None = None,
    patience: float | None = None,
) -> str:
    """What git prints, as text. Raises GitFailed."""
    return (
        output(*command, remote=remote, env=env, stdin=stdin, patience=patience)
        .decode(errors="replace")
        .strip()
    )


def output(
    *command: str,
    remote: Remote | None = None,
    env: Mapping[str, str] = {},
    stdin: bytes | None = None,
    patience: float | None = None,
) -> bytes:
    """
    What git prints. Raises GitFailed; a call that takes longer than `patience` seconds is ended.

    With a `remote` its secret is at hand and its name is in what goes wrong.
    """
    patience = patience or (FAR if remote else PATIENCE)
    around = {**os.environ, "GIT_SSH_COMMAND": "ssh -oBatchMode=yes", **QUIET}
    around |= {**(remote.environment if remote else {}), **env}
    try:
        child = subprocess.Popen(
            ["git", *command],
            env=around,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that its helpers end with it
        )
    except OSError as error:
        raise GitFailed(f"git cannot be started ({error.strerror}); install it") from None
    try:
        out, said = child.communicate(stdin or b"", timeout=patience)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        who = remote.place if remote else f"git {command[0]}"
        raise GitFailed(f"{who} did not answer within {patience:.0f} s") from None
    if child.returncode == 0:
        return out
    words = said.decode(errors="replace").strip() or f"it ended with {child.returncode}"
    if remote:
        raise remote.failure(words)
    raise GitFailed(
        f"git {next((c for c in command if c[0] not in '-/'), '')}: {' '.join(words.split())[:300]}"
    )


def _said(folder: Path, *command: str) -> str | None:
    try:
        return run("-C", str(folder), *command)
    except GitFailed:
        return None
