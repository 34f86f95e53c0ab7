"""Checks, remarks and calls: what is decided about them, and how GitHub's faults and limits are met."""

import pytest
from github_stub import REPOSITORY, TOKEN, GitHubStub, unavailable
from starlette.responses import JSONResponse, Response

from reconciler.ci import checks, sticky
from reconciler.ci.checks import Check, Remark
from reconciler.ci.github import TRIES, GitHub
from reconciler.ci.sticky import Issue
from reconciler.cli import citext
from reconciler.errors import Busy, Problem, ReconcilerError, Rejected

REMARK = Remark("a,b:c.yaml", 3, "failure", "50% of: it", "first\n::set-output name=x::y")


def client(github: GitHubStub, slept: list[float], wall: float = 0.0) -> GitHub:
    return GitHub(github.url, REPOSITORY, TOKEN, sleep=slept.append, chance=lambda: 0.0, wall=lambda: wall)


def check(count: int) -> Check:
    return Check("plan", "0" * 40, 2, "a plan", "text", "https://here", [REMARK] * count)


@pytest.mark.parametrize(
    "code, conclusion, step",
    [(0, "success", 0), (1, "failure", 1), (2, "success", 0), (3, "neutral", 0), (4, "failure", 4),
     (5, "neutral", 0), (6, "failure", 6), (7, "neutral", 7)],
)  # fmt: skip
def test_every_exit_code_is_a_conclusion_and_a_colour(code: int, conclusion: str, step: int) -> None:
    assert (conclusion, step) == (checks.conclusion(code), checks.step_code(code))


def test_a_remark_is_one_line_whatever_it_says() -> None:
    said = checks.command(REMARK)

    assert "::error file=a%2Cb%3Ac.yaml,line=3,title=50%25 of%3A it::first%0A::set-output name=x::y" == said


@pytest.mark.parametrize("count, expected", [(0, [0]), (50, [50]), (51, [50, 1]), (400, [50] * 6)])
def test_remarks_go_fifty_at_once(count: int, expected: list[int]) -> None:
    bodies = [checks.created(check(count)), *checks.continued(check(count))]

    assert expected == [len(body["output"]["annotations"]) for body in bodies]


def test_what_failed_is_text_whatever_is_in_it() -> None:
    said = citext.failed("it broke", [Problem("m.yaml:1", "</li><a href='x'>@ada [l](http://e)\n# h")])

    assert [] == [each for each in ("<a", "@ada", "](", "http://e", "\n# ") if each in said]


def test_a_server_that_fails_is_asked_again_after_longer_and_longer_pauses(github: GitHubStub) -> None:
    github.faults["POST issues"] = [unavailable] * TRIES
    slept: list[float] = []

    with client(github, slept) as calls, pytest.raises(Busy, match="in 6 tries \\(502\\); run the job again"):
        calls.call("POST", "issues", {"title": "x"})

    assert [1.0, 2.0, 4.0, 8.0, 16.0] == slept


def test_a_spent_limit_is_waited_for_and_no_longer_than_two_minutes(github: GitHubStub) -> None:
    def spent(until: str) -> Response:
        headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": until}
        return JSONResponse({"message": "API rate limit exceeded"}, 403, headers=headers)

    github.faults["POST issues"] = [lambda _: spent("1030"), lambda _: spent("9000")]
    slept: list[float] = []

    with client(github, slept, wall=1000.0) as calls:
        calls.call("POST", "issues", {"title": "x", "labels": []})

    assert [30.0, 120.0] == slept


def test_a_refusal_is_not_repeated(github: GitHubStub) -> None:
    slept: list[float] = []

    with client(github, slept) as calls, pytest.raises(Rejected, match="404"):
        calls.call("PATCH", "issues/comments/99", {"body": "x"})

    assert [] == slept


def test_the_token_goes_to_no_other_host(github: GitHubStub) -> None:
    elsewhere = {"link": f'<{github.storage}/repos/{REPOSITORY}/issues?page=2>; rel="next"'}
    github.faults["GET issues"] = [lambda _: JSONResponse([], headers=elsewhere)]

    with client(github, []) as calls, pytest.raises(ReconcilerError, match="goes on at another host"):
        list(calls.each("issues", labels="x"))


def test_two_jobs_at_once_leave_one_open_issue(github: GitHubStub) -> None:
    mark, wanted = sticky.marker("drift", "manifests"), Issue("drift", "something", "drifted")

    def meanwhile(stub: GitHubStub) -> None:
        other = {"id": 0, "number": 0, "state": "open", "user": {"login": stub.author}}
        stub.issues.append(other | {"title": "drift", "body": f"{mark}\nother", "labels": ["drifted"]})

    github.faults["POST issues"] = [meanwhile]
    with client(github, []) as calls:
        number = sticky.issue(calls, mark, wanted)

    assert 0 == number
    assert ["open", "closed"] == [each["state"] for each in github.issues]
    assert github.issues[0]["body"].endswith("something")


def test_a_text_that_is_too_long_is_cut(github: GitHubStub) -> None:
    with client(github, []) as calls:
        sticky.comment(calls, 7, sticky.marker("plan", "m"), "x" * 70_000)

    assert 65_536 == len(github.comments[0]["body"])
