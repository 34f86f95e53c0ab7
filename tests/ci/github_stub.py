"""
GitHub's REST API as far as `reconciler ci` uses it, over real HTTP: comments, checks, issues, pulls, artifacts.

Two entries a page, so that paging is always needed. `faults` by what is asked are used up one by one.
"""

import contextlib
import io
import itertools
import re
import socket
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

REPOSITORY = "ada/models"
BOT = "github-actions[bot]"
TOKEN = "ghs_canary7c21"
PER_PAGE = 2
Fault = Callable[["GitHubStub"], Response | None]  # None: nothing wrong, go on


def unavailable(_: object) -> Response:
    return JSONResponse({"message": "Server Error"}, 502)


def secondary(_: object) -> Response:
    said = "You have exceeded a secondary rate limit."
    return JSONResponse({"message": said}, 403, headers={"retry-after": "1"})


def forbidden(_: object) -> Response:
    return JSONResponse({"message": "Resource not accessible by integration"}, 403)


class GitHubStub:
    """One repository. `author` is who the token writes as."""

    def __init__(self, author: str = BOT) -> None:
        self.author = author
        self.comments: list[dict[str, Any]] = []
        self.issues: list[dict[str, Any]] = []
        self.checks: list[dict[str, Any]] = []
        self.branches: dict[str, str] = {}
        self.newer: list[str] = []  # files that changed between a commit and a branch that came further
        self.status = "ahead"
        self.pulls: dict[str, list[dict[str, Any]]] = {}
        self.artifacts: dict[int, tuple[dict[str, Any], bytes]] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.asked: Counter[str] = Counter()
        self.tokens_at_storage: list[str | None] = []
        self._ids = itertools.count(1)
        self._socket, self._elsewhere = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.storage = f"http://localhost:{self._elsewhere.getsockname()[1]}"
        here = f"/repos/{REPOSITORY}"
        routes = [
            ("GET", "/issues/{number}/comments", self._list_comments),
            ("POST", "/issues/{number}/comments", self._add_comment),
            ("PATCH", "/issues/comments/{id:int}", self._edit_comment),
            ("DELETE", "/issues/comments/{id:int}", self._delete_comment),
            ("POST", "/check-runs", self._add_check),
            ("PATCH", "/check-runs/{id:int}", self._edit_check),
            ("GET", "/commits/{sha}/check-runs", self._list_checks),
            ("GET", "/commits/{sha}/pulls", self._list_pulls),
            ("GET", "/compare/{range}", self._compare),
            ("GET", "/issues", self._list_issues),
            ("POST", "/issues", self._add_issue),
            ("PATCH", "/issues/{number:int}", self._edit_issue),
            ("GET", "/actions/artifacts", self._list_artifacts),
            ("GET", "/actions/artifacts/{id:int}/zip", self._to_storage),
        ]
        made = [Route(here + path, self._asked(answer), methods=[method]) for method, path, answer in routes]
        self.application = Starlette(routes=[*made, Route("/blob/{id:int}", self._stored)])

    @contextlib.contextmanager
    def running(self) -> Iterator["GitHubStub"]:
        config = uvicorn.Config(self.application, log_config=None, timeout_graceful_shutdown=1)
        servers = [(uvicorn.Server(config), each) for each in (self._socket, self._elsewhere)]
        threads = [threading.Thread(target=s.run, kwargs={"sockets": [each]}) for s, each in servers]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            for server, _ in servers:
                server.should_exit = True
            for thread in threads:
                thread.join()

    def comment(self, number: int, body: str, author: str) -> dict[str, Any]:
        made = {"id": next(self._ids), "number": number, "body": body, "user": {"login": author}}
        self.comments.append(made)
        return made

    def merge(self, number: int, head: str, commit: str, base: str = "main") -> None:
        """A pull request that was merged as a commit."""
        pull = {"number": number, "merged_at": "2026-11-25T12:00:00Z", "merge_commit_sha": commit}
        self.branches[base] = commit
        self.pulls.setdefault(commit, []).append(pull | {"base": {"ref": base}, "head": {"sha": head}})

    def upload(self, name: str, content: bytes, head: str, *, fork: bool = False) -> int:
        """An artifact, as `actions/upload-artifact` leaves it."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("plan.json", content)
        id = next(self._ids)
        run = {"head_sha": head, "repository_id": 1, "head_repository_id": 2 if fork else 1}
        about = {"id": id, "name": name, "expired": False, "workflow_run": run}
        self.artifacts[id] = about, packed.getvalue()
        return id

    def _asked(self, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            path = request.url.path.removeprefix(f"/repos/{REPOSITORY}/")
            what = f"{request.method} {re.sub(r'[0-9a-f]{40}', 'SHA', path)}"
            self.asked[what] += 1
            if request.headers.get("authorization") != f"Bearer {TOKEN}":
                return JSONResponse({"message": "Bad credentials"}, 401)
            if (waiting := self.faults.get(what)) and (broken := waiting.pop(0)(self)):
                return broken
            found: Response = await answer(request)
            return found

        return endpoint

    def _page(self, request: Request, found: list[Any], within: str | None = None) -> Response:
        page = int(request.query_params.get("page", 1))
        part = found[(page - 1) * PER_PAGE : page * PER_PAGE]
        url = request.url.include_query_params(page=page + 1)
        more = {"link": f'<{url}>; rel="next"'} if page * PER_PAGE < len(found) else {}
        return JSONResponse({within: part} if within else part, headers=more)

    async def _list_comments(self, request: Request) -> Response:
        number = int(request.path_params["number"])
        return self._page(request, [each for each in self.comments if each["number"] == number])

    async def _add_comment(self, request: Request) -> Response:
        body = (await request.json())["body"]
        if len(body) > 65_536:
            return JSONResponse({"message": "Validation Failed"}, 422)
        return JSONResponse(self.comment(int(request.path_params["number"]), body, self.author), 201)

    async def _edit_comment(self, request: Request) -> Response:
        found = next((each for each in self.comments if each["id"] == request.path_params["id"]), None)
        if found is None:
            return JSONResponse({"message": "Not Found"}, 404)
        found.update(await request.json())
        return JSONResponse(found)

    async def _delete_comment(self, request: Request) -> Response:
        left = [each for each in self.comments if each["id"] != request.path_params["id"]]
        status = 404 if len(left) == len(self.comments) else 204
        self.comments = left
        return Response(status_code=status)

    async def _add_check(self, request: Request) -> Response:
        made = {"id": next(self._ids), "app": {"slug": "github-actions"}, **(await request.json())}
        if len(made["output"]["annotations"]) > 50:
            return JSONResponse({"message": "Validation Failed"}, 422)
        self.checks.append(made)
        return JSONResponse(made, 201)

    async def _edit_check(self, request: Request) -> Response:
        found = next(each for each in self.checks if each["id"] == request.path_params["id"])
        found["output"]["annotations"] += (await request.json())["output"]["annotations"]
        return JSONResponse(found)

    async def _list_checks(self, request: Request) -> Response:
        sha, name = request.path_params["sha"], request.query_params["check_name"]
        found = [each for each in self.checks if (each["head_sha"], each["name"]) == (sha, name)]
        return self._page(request, found, "check_runs")

    async def _compare(self, request: Request) -> Response:
        commit, _, branch = request.path_params["range"].partition("...")
        if commit == self.branches[branch]:
            return JSONResponse({"status": "identical", "files": []})
        return JSONResponse({"status": self.status, "files": [{"filename": each} for each in self.newer]})

    async def _list_pulls(self, request: Request) -> Response:
        return self._page(request, self.pulls.get(request.path_params["sha"], []))

    async def _list_issues(self, request: Request) -> Response:
        label = request.query_params["labels"]
        return self._page(request, [each for each in self.issues if label in each["labels"]])

    async def _add_issue(self, request: Request) -> Response:
        number = next(self._ids)
        made = {"id": number, "number": number, "state": "open", "user": {"login": self.author}}
        self.issues.append(made | await request.json())
        return JSONResponse(self.issues[-1], 201)

    async def _edit_issue(self, request: Request) -> Response:
        found = next(each for each in self.issues if each["number"] == request.path_params["number"])
        found.update(await request.json())
        return JSONResponse(found)

    async def _list_artifacts(self, request: Request) -> Response:
        name = request.query_params["name"]
        found = [about for about, _ in self.artifacts.values() if about["name"] == name]
        return self._page(request, found, "artifacts")

    async def _to_storage(self, request: Request) -> Response:
        about, _ = self.artifacts[request.path_params["id"]]
        if about["expired"]:
            return JSONResponse({"message": "Artifact has expired"}, 410)
        return RedirectResponse(f"{self.storage}/blob/{request.path_params['id']}", 302)

    async def _stored(self, request: Request) -> Response:
        self.tokens_at_storage.append(request.headers.get("authorization"))
        return Response(self.artifacts[request.path_params["id"]][1], media_type="application/zip")
