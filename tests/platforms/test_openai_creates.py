"""Money is spent once: whatever the server does, one request, and what came of it is told apart rightly."""

import socket
from email.utils import formatdate
from pathlib import Path

import platform_stub as does
import pytest
from platform_stub import Behaviour, Stub

from reconciler.errors import Busy, PlatformError, Rejected, Unclear, Unreachable
from reconciler.platforms.exchange import Deadlines
from reconciler.platforms.openai import Clock, OpenAI
from reconciler.world import Upload

JOBS = "fine_tuning/jobs"
POST = f"POST {JOBS}"

OUTCOMES: list[tuple[str, Behaviour, type[PlatformError]]] = [
    ("a dropped reply", does.drops, Unclear),
    ("a reset connection", does.resets, Unclear),
    ("half a reply", does.breaks_off, Unclear),
    ("a reply cut short", does.cuts_short, Unclear),
    ("no reply in time", does.hangs, Unclear),
    ("garbage", does.says(200, b"<html>welcome</html>"), Unclear),
    ("bottomless JSON", does.says(200, b"[" * 100_000), Unclear),
    ("an object without id", does.says(200, {"object": "fine_tuning.job"}), Unclear),
    ("500", does.says(500, does.error(None)), Unclear),
    ("503", does.says(503, b"overloaded"), Unclear),
    ("408", does.says(408, does.error(None)), Unclear),
    ("409", does.says(409, does.error(None)), Unclear),
    ("425", does.says(425, does.error(None)), Unclear),
    ("302", does.says(302, b"", Location="http://127.0.0.1:9/"), Unclear),
    ("429", does.says(429, does.error("rate_limit_exceeded")), Busy),
    ("no quota", does.says(429, does.error("insufficient_quota")), Rejected),
    ("400", does.says(400, does.error("invalid_n_examples")), Rejected),
    ("401", does.says(401, does.error("invalid_api_key")), Rejected),
    ("403", does.says(403, does.error("training_not_available")), Rejected),
    ("404", does.says(404, does.error(None)), Rejected),
    ("422", does.says(422, does.error(None)), Rejected),
]


@pytest.mark.parametrize(("behaviour", "outcome"), [o[1:] for o in OUTCOMES], ids=[o[0] for o in OUTCOMES])
def test_a_create_is_one_request_and_its_outcome_is_told_apart(
    stub: Stub, platform: OpenAI, behaviour: Behaviour, outcome: type[PlatformError]
) -> None:
    stub.on(POST, behaviour)

    with pytest.raises(PlatformError) as caught:
        platform.create(JOBS, {"model": "m"}, key="k")

    assert outcome is caught.type
    assert 1 == stub.count(POST)


def test_a_reply_that_never_ends_is_unclear(stub: Stub) -> None:
    stub.on(POST, does.drips)
    platform = OpenAI(stub.url, deadlines=Deadlines(connect=5, quiet=5, total=0.5))

    with pytest.raises(Unclear, match="took too long"):
        platform.create(JOBS, {"model": "m"}, key="k")

    assert 1 == stub.count(POST)


def test_a_create_answers_with_the_object_made(stub: Stub, platform: OpenAI) -> None:
    stub.on(POST, does.says(201, {"id": "ftjob-1", "status": "queued"}))

    made = platform.create(JOBS, {"model": "m", "seed": 7}, key="k")

    assert {"id": "ftjob-1", "status": "queued"} == made
    assert {"model": "m", "seed": 7} == stub.requests(POST)[0].json()


def test_an_alias_is_made_although_it_has_a_name_and_no_id(stub: Stub, platform: OpenAI) -> None:
    stub.on("POST reconciler/aliases", does.says(200, {"object": "reconciler.alias", "name": "prod"}))

    assert "prod" == platform.create("reconciler/aliases", {"name": "prod", "model": "m"}, key="k")["name"]


def test_nothing_happened_where_nobody_listens(waits) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    platform = OpenAI(f"http://127.0.0.1:{port}/v1", clock=waits.clock())
    platform._capabilities = frozenset()  # so that the create itself is what meets the closed door

    with pytest.raises(Unreachable, match=rf"127\.0\.0\.1:{port}.*nothing was sent"):
        platform.create(JOBS, {"model": "m"}, key="k")

    assert [] == waits.slept


def test_nothing_happened_where_the_name_is_unknown(monkeypatch: pytest.MonkeyPatch, waits) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    platform = OpenAI("http://platform.invalid/v1", clock=waits.clock())
    platform._capabilities = frozenset()

    with pytest.raises(Unreachable, match=r"platform\.invalid.*Name or service not known"):
        platform.create(JOBS, {"model": "m"}, key="k")


def test_the_wait_that_a_busy_platform_wishes_is_handed_on(stub: Stub, platform: OpenAI) -> None:
    stub.on(POST, does.says(429, does.error("rate_limit_exceeded"), Retry_After="20"))

    with pytest.raises(Busy) as caught:
        platform.create(JOBS, {"model": "m"}, key="k")

    assert 20.0 == caught.value.retry_after


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"Retry_After": formatdate(1030.0, usegmt=True)}, 30.0),
        ({"Retry_After": "86400"}, 600.0),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "-5"}, 0.0),
        ({"retry_after_ms": "1500", "Retry_After": "9"}, 1.5),
    ],
)
def test_a_wish_to_wait_is_read_in_every_form_and_capped(
    stub: Stub, platform: OpenAI, header: dict[str, str], seconds: float | None
) -> None:
    stub.on(POST, does.says(429, does.error("rate_limit_exceeded"), **header))

    with pytest.raises(Busy) as caught:
        platform.create(JOBS, {"model": "m"}, key="k")

    assert seconds == caught.value.retry_after


def test_the_key_travels_where_the_platform_knows_keys_and_is_asked_for_once(
    stub: Stub, platform: OpenAI
) -> None:
    hello = {"object": "reconciler.platform", "version": "0.1", "capabilities": ["idempotency", "aliases"]}
    stub.on("GET reconciler", does.says(200, hello))

    platform.create(JOBS, {"model": "m"}, key="first")
    platform.create(JOBS, {"model": "m"}, key="second")

    assert ["first", "second"] == [each.headers.get("idempotency-key") for each in stub.requests(POST)]
    assert 1 == stub.count("GET reconciler")
    assert frozenset({"idempotency", "aliases"}) == platform.capabilities


def test_a_plain_openai_has_no_extensions_and_sees_no_key(stub: Stub, platform: OpenAI) -> None:
    stub.on("GET reconciler", does.says(404, does.error(None, "Invalid URL (GET /v1/reconciler)")))

    platform.create(JOBS, {"model": "m"}, key="k")

    assert frozenset() == platform.capabilities
    assert "idempotency-key" not in stub.requests(POST)[0].headers


def test_a_refusal_carries_the_words_of_the_platform_on_one_line(stub: Stub, platform: OpenAI) -> None:
    message = "File has 3 rows,\n\x1b[31mfewer\x1b[0m than 10"
    stub.on(POST, does.says(400, does.error("invalid_n_examples", message)))

    with pytest.raises(Rejected) as caught:
        platform.create(JOBS, {"model": "m"}, key="k")

    expected = f"openai refused {POST}: 400 (invalid_n_examples): File has 3 rows, [31mfewer [0m than 10"
    assert expected == str(caught.value)
    assert (400, "invalid_n_examples") == (caught.value.status, caught.value.code)


def test_the_end_of_training_at_openai_gets_a_sentence(stub: Stub, platform: OpenAI) -> None:
    stub.on(POST, does.says(403, does.error("training_not_available", "winding down")))

    with pytest.raises(Rejected, match="point the project at another platform"):
        platform.create(JOBS, {"model": "m"}, key="k")


def test_a_delete_is_one_request_and_an_absent_object_is_no_error(stub: Stub, platform: OpenAI) -> None:
    stub.objects["files"] = [{"id": "file-1"}]

    platform.delete("files", "file-1")
    platform.delete("files", "file-1")

    assert [] == stub.objects["files"]
    assert 2 == stub.count("DELETE files/file-1")


def test_a_delete_without_a_reply_is_unclear(stub: Stub, platform: OpenAI) -> None:
    stub.on("DELETE files/file-1", does.drops)

    with pytest.raises(Unclear):
        platform.delete("files", "file-1")

    assert 1 == stub.count("DELETE files/file-1")


def test_an_upload_arrives_whole_with_its_purpose_and_name(
    stub: Stub, platform: OpenAI, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b'{"a": 1}\n' * 3)

    platform.create(
        "files",
        {
            "purpose": "fine-tune",
            "file": Upload(rows, "rows.1234.jsonl"),
            "expires_after": {"anchor": "created_at", "seconds": 3600},
        },
        key="k",
    )

    sent = stub.requests("POST files")[0]
    assert sent.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="purpose"\r\n\r\nfine-tune\r\n' in sent.head
    assert b'name="expires_after[seconds]"\r\n\r\n3600\r\n' in sent.head
    assert b'name="file"; filename="rows.1234.jsonl"' in sent.head
    assert b'\r\n\r\n{"a": 1}\n{"a": 1}\n{"a": 1}\n\r\n' in sent.head


def test_progress_counts_the_bytes_of_an_upload(stub: Stub, platform: OpenAI, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"x" * 200_000)
    reported: list[tuple[int, int]] = []

    platform.create(
        "files", {"purpose": "evals", "file": Upload(rows, "r", lambda *at: reported.append(at))}, key="k"
    )

    assert [(65536, 200_000), (131072, 200_000), (196608, 200_000), (200_000, 200_000)] == reported


@pytest.mark.parametrize("change", [b"", b"x" * 300_000, b"y" * 200_000], ids=["shrinks", "grows", "differs"])
def test_a_file_that_changes_while_it_is_sent_is_not_stored(
    stub: Stub, platform: OpenAI, tmp_path: Path, change: bytes
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"x" * 200_000)
    upload = Upload(rows, "rows.jsonl", lambda *_: rows.write_bytes(change) and None)

    with pytest.raises(Busy, match="changed while it was sent"):
        platform.create("files", {"purpose": "evals", "file": upload}, key="k")

    assert stub.arrived.acquire(timeout=10)
    assert stub.arrived.acquire(timeout=10)  # the question for capabilities, then the upload
    sent = stub.requests("POST files")[0]
    assert sent.size < int(sent.headers["content-length"])


def test_a_file_that_is_not_there_gets_a_sentence(stub: Stub, platform: OpenAI, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"gone\.jsonl cannot be read: No such file"):
        platform.create("files", {"purpose": "evals", "file": Upload(tmp_path / "gone.jsonl", "g")}, key="k")

    assert 0 == stub.count("POST files")


def test_a_file_refused_before_it_is_sent_whole_is_refused(stub: Stub, tmp_path: Path, waits) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"x" * 5_000_000)
    platform = OpenAI(stub.url, clock=Clock())
    stub.on("POST files", does.says(413, does.error("too_large")))

    with pytest.raises(Rejected, match="too_large"):
        platform.create("files", {"purpose": "evals", "file": Upload(rows, "r")}, key="k")
