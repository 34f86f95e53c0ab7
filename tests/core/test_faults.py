"""The creation protocol over real HTTP, against a real server that loses, delays and refuses."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from core_base import Applier, Clock
from faulty_server import (
    Fault,
    FaultyServer,
    breaks_reply,
    busy,
    empty,
    fails_after,
    loses_reply,
    loses_request,
    slow,
    unavailable,
)

from reconciler.engine import Pass
from reconciler.errors import Unreachable
from reconciler.platforms import openai
from reconciler.platforms.exchange import Deadlines
from reconciler.platforms.openai import OpenAI
from reconciler.platforms.releases import WithReleases

CREATES = ("files", "fine_tuning/jobs", "evals", "runs", "reconciler/aliases")
ONE_OF_EACH = {"files": 2, "jobs": 1, "evals": 1, "runs": 2, "releases": 1}
LIMIT = 30.0  # seconds for a world to settle that needs about one


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., FaultyServer]]:
    """Starts a server; it is gone at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda **how: stack.enter_context(FaultyServer(tmp_path / "platform", **how).running())


def client(server: FaultyServer) -> OpenAI:
    clock = openai.Clock(sleep=lambda seconds: None)
    transport = httpx.HTTPTransport(verify=False)  # reading the certificates takes longer than a test
    return OpenAI(
        server.url, name="memory", transport=transport, deadlines=Deadlines(5, 0.5, 20), clock=clock
    )


def applier_to(server: FaultyServer, tree: Path, holder: str = "here:1:1") -> Applier:
    return Applier(tree, WithReleases(client(server), tree / "releases"), Clock(), holder)


def settled(applier: Applier) -> Pass:
    """Passes until nothing can change; the applier's clock runs much faster than ours."""
    end = time.monotonic() + LIMIT
    while not (done := applier.once()).settled:
        assert time.monotonic() < end, [(str(s.action), str(s.address), s.decision.why) for s in done.steps]
        applier.clock.at += 45  # a window is over within a few passes
        time.sleep(0.02)
    return done


def world(server: FaultyServer) -> dict[str, int]:
    """How much there is of everything that we made."""
    platform = client(server)
    evals = platform.list("evals")
    return {
        "files": sum(1 for file in platform.list("files") if "@demo." in str(file["filename"])),
        "jobs": len(platform.list("fine_tuning/jobs")),
        "evals": len(evals),
        "runs": sum(len(platform.list(f"evals/{each['id']}/runs")) for each in evals),
        "releases": len(platform.list("reconciler/aliases")),
    }


@pytest.mark.parametrize(
    "fault, plain",
    [
        (loses_reply, False),
        (loses_reply, True),
        (loses_request, True),
        (breaks_reply, True),
        (fails_after, False),
        (unavailable, True),
        (busy, False),
        (slow, False),
    ],
)
def test_whatever_happens_to_the_first_request_one_of_each_is_made(
    serve: Callable[..., FaultyServer], tree: Path, fault: Fault, plain: bool
) -> None:
    server = serve(plain=plain)
    server.faults = {f"POST {each}": [fault] for each in CREATES}
    applier = applier_to(server, tree)

    done = settled(applier)

    assert {"="} == {str(step.action) for step in done.steps}
    assert ONE_OF_EACH == world(server)
    assert {} == applier.journal.open_intents("memory")
    assert [] == [what for what, left in server.faults.items() if left]


def test_a_settled_world_gets_no_create_request(serve: Callable[..., FaultyServer], tree: Path) -> None:
    server = serve()
    settled(applier_to(server, tree))
    before = {what: count for what, count in server.asked.items() if what.startswith("POST")}

    settled(applier_to(server, tree))

    assert before == {what: count for what, count in server.asked.items() if what.startswith("POST")}


def test_a_list_that_fails_stops_what_it_is_about_and_makes_nothing_twice(
    serve: Callable[..., FaultyServer], tree: Path
) -> None:
    server = serve()
    settled(applier_to(server, tree))
    posts = server.asked["POST fine_tuning/jobs"]
    server.always = {"GET fine_tuning/jobs": unavailable, "GET evals": loses_request}

    with pytest.raises(Unreachable):
        applier_to(server, tree).settle()

    server.always = {}
    assert posts == server.asked["POST fine_tuning/jobs"]
    assert ONE_OF_EACH == world(server)


def test_lists_that_come_back_empty_make_nothing_twice(
    serve: Callable[..., FaultyServer], tree: Path
) -> None:
    server = serve()
    settled(applier_to(server, tree))
    server.always = {f"GET {each}": empty for each in ("files", "fine_tuning/jobs", "evals", "runs")}

    applier_to(server, tree).once()

    server.always = {}
    assert ONE_OF_EACH == world(server)


def test_a_refusal_is_told_and_closes_the_intent(serve: Callable[..., FaultyServer], tree: Path) -> None:
    server = serve()

    async def refuses(request: object) -> None:
        error = {
            "message": "The suffix is taken.",
            "type": "invalid_request_error",
            "param": "suffix",
            "code": None,
        }
        await request.reply(400, {"error": error})  # type: ignore[attr-defined]

    server.always = {"POST fine_tuning/jobs": refuses}
    applier = applier_to(server, tree)

    done = settled(applier)

    [why] = done.failed.values()
    assert "The suffix is taken." in why
    assert {} == applier.journal.open_intents("memory")
    assert 1 == server.asked["POST fine_tuning/jobs"]


@pytest.mark.parametrize("at", ["fine_tuning/jobs", "runs", "reconciler/aliases"])
def test_a_process_killed_between_the_reply_and_its_journal_leaves_one_of_each(
    serve: Callable[..., FaultyServer], tree: Path, at: str
) -> None:
    server = serve(plain=True)
    with process(tree, server, at) as dying:
        code = dying.wait(LIMIT)

    done = settled(applier_to(server, tree))

    assert 9 == code
    assert {"="} == {str(step.action) for step in done.steps}
    assert ONE_OF_EACH == world(server)


def test_two_processes_that_apply_at_once_make_one_of_each(
    serve: Callable[..., FaultyServer], tree: Path
) -> None:
    server = serve(plain=True)

    with process(tree, server) as one, process(tree, server) as other:
        ends = [one.wait(LIMIT), other.wait(LIMIT)]

    assert [0, 0] == ends
    assert ONE_OF_EACH == world(server)


@contextlib.contextmanager
def process(tree: Path, server: FaultyServer, *at: str) -> Iterator["subprocess.Popen[str]"]:
    """Somebody else who applies; all that were started together go at once."""
    script = str(Path(__file__).with_name("apply_once.py"))
    command = [sys.executable, script, str(tree), server.url, *at]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout and started.stdin
    assert "ready\n" == started.stdout.readline()
    started.stdin.close()
    try:
        yield started
    finally:
        started.kill()
        started.wait()
