"""
One pull request that is kept up to date, through GitHub's API (or what speaks it, such as Gitea's).

There is never a second one: who finds it open changes it.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from reconciler.git import GitFailed, Remote

PATIENCE = 20.0  # seconds


@dataclass(frozen=True)
class PullRequests:
    """Those of one repository. `token` is a value from the environment, `token_env` its name."""

    api: str
    owner: str
    name: str
    token: str
    token_env: str

    @classmethod
    def of(cls, remote: Remote, api: str | None, token: str | None) -> "PullRequests":
        """Those of a remote. Raises GitFailed where it is not on such a host, or we have no token."""
        parts = urlsplit(remote.url)
        host, path = parts.hostname, parts.path
        if not host and ":" in remote.url:  # git@host:owner/name
            host, _, path = remote.url.rpartition("@")[2].partition(":")
        names = path.removesuffix(".git").strip("/").split("/")
        if len(names) < 2 or (not host and not api):
            raise GitFailed(
                f"{remote.place} is no repository of an owner on a host; publish: push works there"
            )
        if not token or not remote.secret_env:
            raise GitFailed("pull requests need a token; name its variable with --git-token-env")
        found = "https://api.github.com" if host == "github.com" else f"https://{host}/api/v3"
        return cls((api or found).rstrip("/"), names[-2], names[-1], token, remote.secret_env)

    def ensure(self, head: str, base: str, title: str, body: str) -> str:
        """Open it, or change what is open; its address. Raises GitFailed."""
        found = self._ask(
            "GET", "pulls", params={"head": f"{self.owner}:{head}", "base": base, "state": "open"}
        )
        told = {"title": title, "body": body}
        if found:
            return str(self._ask("PATCH", f"pulls/{found[0]['number']}", json=told)["html_url"])
        return str(self._ask("POST", "pulls", json=told | {"head": head, "base": base})["html_url"])

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        url = f"{self.api}/repos/{self.owner}/{self.name}/{path}"
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/vnd.github+json"}
        try:
            reply = httpx.request(method, url, headers=headers, timeout=PATIENCE, **request)
        except httpx.HTTPError as error:
            raise GitFailed(f"{self.api} cannot be reached: {type(error).__name__}") from None
        if reply.status_code in (401, 403, 404):
            what = f"the token in {self.token_env} may not open pull requests in {self.owner}/{self.name}"
            raise GitFailed(
                f"{what} ({reply.status_code}); it needs contents and pull requests, read and write"
            )
        if not reply.is_success:
            raise GitFailed(f"{self.api} answered {method} {path} with {reply.status_code}")
        return reply.json()
