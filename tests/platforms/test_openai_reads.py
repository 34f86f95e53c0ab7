"""A read gives everything or raises: not seeing is not absence."""

import random

import platform_stub as does
import pytest
from platform_stub import Behaviour, Stub

from reconciler.errors import Busy, PlatformError, Rejected, Unreachable
from reconciler.platforms.exchange import Deadlines
from reconciler.platforms.openai import Clock, OpenAI

FILES = "GET files"
ONE_FILE = {"object": "list", "data": [{"id": "file-1"}], "has_more": False}


def many(count: int) -> list[dict[str, object]]:
    return [{"id": f"id-{number}", "created_at": number} for number in range(count)]


def test_a_list_is_all_its_pages(stub: Stub, platform: OpenAI) -> None:
    stub.objects["evals"] = many(250)

    found = platform.list("evals")

    assert many(250) == found
    asked = [each.query for each in stub.requests("GET evals")]
    assert [
        {"limit": "100"},
        {"limit": "100", "after": "id-99"},
        {"limit": "100", "after": "id-199"},
    ] == asked


def test_ten_thousand_files_are_one_request(stub: Stub, platform: OpenAI) -> None:
    stub.objects["files"] = many(10_000)

    found = platform.list("files", purpose="fine-tune")

    assert 10_000 == len(found)
    assert [{"limit": "10000", "purpose": "fine-tune"}] == [each.query for each in stub.requests(FILES)]


def test_models_are_one_page_and_asked_for_without_a_limit(stub: Stub, platform: OpenAI) -> None:
    stub.on("GET models", does.says(200, {"object": "list", "data": many(3)}))

    assert many(3) == platform.list("models")
    assert {} == stub.requests("GET models")[0].query


def test_jobs_are_filtered_by_the_platform(stub: Stub, platform: OpenAI) -> None:
    stub.objects["fine_tuning/jobs"] = many(1)

    platform.list("fine_tuning/jobs", **{"metadata[reconciler_project]": "shop"})

    query = stub.requests("GET fine_tuning/jobs")[0].query
    assert {"limit": "100", "metadata[reconciler_project]": "shop"} == query


def test_the_latest_are_one_page(stub: Stub, platform: OpenAI) -> None:
    stub.objects["fine_tuning/jobs/j/events"] = many(50)

    assert many(5) == platform.latest("fine_tuning/jobs/j/events", 5)
    assert 1 == stub.count("GET fine_tuning/jobs/j/events")


TROUBLES: list[tuple[str, Behaviour]] = [
    ("a dropped reply", does.drops),
    ("a reset connection", does.resets),
    ("half a reply", does.breaks_off),
    ("a reply cut short", does.cuts_short),
    ("no reply in time", does.hangs),
    ("garbage", does.says(200, b"<html>welcome</html>")),
    ("500", does.says(500, does.error(None))),
    ("503", does.says(503, b"overloaded")),
    ("408", does.says(408, does.error(None))),
    ("429", does.says(429, does.error("rate_limit_exceeded"))),
]
IDS = [trouble[0] for trouble in TROUBLES]


@pytest.mark.parametrize("behaviour", [trouble[1] for trouble in TROUBLES], ids=IDS)
def test_a_read_survives_trouble_that_passes(stub: Stub, platform: OpenAI, behaviour: Behaviour) -> None:
    stub.on(FILES, behaviour, behaviour, does.says(200, ONE_FILE))

    assert [{"id": "file-1"}] == platform.list("files")
    assert 3 == stub.count(FILES)


@pytest.mark.parametrize("behaviour", [trouble[1] for trouble in TROUBLES], ids=IDS)
def test_a_list_that_fails_midway_raises_and_returns_no_part(
    stub: Stub, platform: OpenAI, behaviour: Behaviour
) -> None:
    first = {"object": "list", "data": many(100), "has_more": True}
    stub.on("GET evals", does.says(200, first), behaviour)

    with pytest.raises((Unreachable, Busy)):
        platform.list("evals")

    assert 5 == stub.count("GET evals")


def test_attempts_wait_longer_each_time_with_jitter(stub: Stub, waits) -> None:
    stub.on(FILES, does.says(500, does.error(None)))
    chance = random.Random(7)
    platform = OpenAI(stub.url, clock=waits.clock()._replace(random=chance.random))

    with pytest.raises(Unreachable, match=rf"{platform._place}.*4 attempts: 500"):
        platform.list("files")

    again = random.Random(7)
    assert [base * (0.5 + again.random()) for base in (0.5, 1.0, 2.0)] == waits.slept


def test_a_read_waits_as_long_as_the_platform_wishes(stub: Stub, platform: OpenAI, waits) -> None:
    busy = does.says(429, does.error("rate_limit_exceeded"), Retry_After="20")
    stub.on(FILES, busy, does.says(200, ONE_FILE))

    platform.list("files")

    assert [20.0] == waits.slept


def test_a_read_does_not_wait_past_its_deadline(stub: Stub, platform: OpenAI, waits) -> None:
    stub.on(FILES, does.says(429, does.error("rate_limit_exceeded"), Retry_After="61"))

    with pytest.raises(Busy) as caught:
        platform.list("files")

    assert 61.0 == caught.value.retry_after
    assert [] == waits.slept


def test_a_reply_that_never_ends_is_given_up(stub: Stub) -> None:
    stub.on(FILES, does.drips)
    platform = OpenAI(stub.url, deadlines=Deadlines(connect=5, quiet=5, total=0.5))

    with pytest.raises(Unreachable, match="took too long"):
        platform.list("files")


NEVER_ENDS: list[tuple[str, Behaviour]] = [
    ("the same page again", does.says(200, {"data": many(3), "has_more": True})),
    ("an empty page", does.says(200, {"data": [], "has_more": True})),
    ("objects without ids", does.says(200, {"data": [{"object": "file"}], "has_more": True})),
]


@pytest.mark.parametrize("behaviour", [case[1] for case in NEVER_ENDS], ids=[case[0] for case in NEVER_ENDS])
def test_a_list_that_never_ends_is_not_a_list(stub: Stub, platform: OpenAI, behaviour: Behaviour) -> None:
    stub.on("GET evals", behaviour)

    with pytest.raises(Unreachable, match="never ends its list of evals"):
        platform.list("evals")

    assert 2 >= stub.count("GET evals")


def test_cursors_that_go_in_a_circle_are_noticed(stub: Stub, platform: OpenAI) -> None:
    pages = [does.says(200, {"data": [{"id": id}], "has_more": True}) for id in ("a", "b", "c", "b")]
    stub.on("GET evals", *pages)

    with pytest.raises(Unreachable, match="never ends"):
        platform.list("evals")

    assert 4 == stub.count("GET evals")


def test_new_pages_for_ever_are_given_up(
    stub: Stub, platform: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.platforms.openai.MOST_PAGES", 20)
    stub.on("GET evals", lambda to: to.reply(200, {"data": [{"id": str(len(stub.seen))}], "has_more": True}))

    with pytest.raises(Unreachable, match="never ends"):
        platform.list("evals")

    assert 20 == stub.count("GET evals")


@pytest.mark.parametrize("body", [{"ok": True}, {"data": None}, {"data": ["file-1"]}])
def test_an_answer_that_is_no_list_is_not_an_empty_one(stub: Stub, platform: OpenAI, body: object) -> None:
    stub.on(FILES, does.says(200, body))

    with pytest.raises(Unreachable, match="no list"):
        platform.list("files")


def test_an_object_is_found_under_its_id_with_colons_and_slashes(stub: Stub, platform: OpenAI) -> None:
    stub.on("GET models/ft:base:org::x", does.says(200, {"id": "ft:base:org::x"}))
    stub.on("GET reconciler/aliases/shop%2Fprod", does.says(200, {"name": "shop/prod"}))

    assert {"id": "ft:base:org::x"} == platform.get("models", "ft:base:org::x")
    assert {"name": "shop/prod"} == platform.get("reconciler/aliases", "shop/prod")


@pytest.mark.parametrize("id", ["", ".", ".."])
def test_an_id_cannot_climb_out_of_its_collection(stub: Stub, platform: OpenAI, id: str) -> None:
    with pytest.raises(Rejected):
        platform.get("files", id)

    assert [] == stub.seen


def test_an_absent_object_is_none(stub: Stub, platform: OpenAI) -> None:
    assert platform.get("files", "file-1") is None
    assert 1 == stub.count("GET files/file-1")


@pytest.mark.parametrize(
    "body",
    [
        b"<h1>Not Found</h1>",
        {"detail": "Not Found"},
        does.error("unknown_url"),
        does.error(None, "Invalid URL (GET /v1/v1/files/file-1)"),
    ],
)
def test_a_wrong_address_is_not_an_absent_object(stub: Stub, platform: OpenAI, body: object) -> None:
    stub.on("GET files/file-1", does.says(404, body))

    with pytest.raises(Rejected, match="usually ends in /v1"):
        platform.get("files", "file-1")


REFUSALS: list[tuple[str, Behaviour, str]] = [
    ("401", does.says(401, does.error("invalid_api_key")), "wants a key; set OPENAI_API_KEY"),
    (
        "403",
        does.says(403, does.error("unsupported_region", "no")),
        r"refused GET files: 403 \(unsup.*\): no",
    ),
    ("404", does.says(404, does.error(None, "Evals are gone")), "refused GET files: 404.*Evals are gone"),
    ("308", does.says(308, b"", Location="https://x/"), "redirects GET files"),
]


@pytest.mark.parametrize(("behaviour", "words"), [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS])
def test_a_definite_refusal_is_not_repeated(
    stub: Stub, platform: OpenAI, behaviour: Behaviour, words: str
) -> None:
    stub.on(FILES, behaviour)

    with pytest.raises(Rejected, match=words):
        platform.list("files")

    assert 1 == stub.count(FILES)


def test_a_question_is_a_post_that_is_repeated_as_a_read(stub: Stub, platform: OpenAI) -> None:
    stub.on("POST chat/completions", does.drops, does.says(200, {"id": "chatcmpl-1", "choices": []}))

    answer = platform.ask("chat/completions", {"model": "m", "messages": []})

    assert "chatcmpl-1" == answer["id"]
    assert {"model": "m", "messages": []} == stub.requests("POST chat/completions")[1].json()


@pytest.mark.parametrize("url", ["platform", "ftp://host/v1", "http://", "http://[::1/v1", "http://h:port/"])
def test_an_address_that_is_none_gets_a_sentence(url: str) -> None:
    with pytest.raises(PlatformError, match="base_url of platform shared"):
        OpenAI(url, name="shared", clock=Clock())
