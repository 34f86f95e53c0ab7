"""Uploads in parts, through the official SDK."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from eval_base import FakeEngine, Server
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from reconciler.selfhosted.storage import uploads

START = int(time.time())  # about now: the sweep compares it with the ages of files


class Clock:
    """A time that only moves when it is told to."""

    time = float(START)

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path, clock: Clock) -> Iterator[Server]:
    with Server(tmp_path / "data", FakeEngine(), now=clock).running() as running:
        yield running


def begin(server: Server, size: int, **more: Any) -> Any:
    asked = {"filename": "rows.jsonl", "purpose": "fine-tune", "bytes": size, "mime_type": "text/jsonl"}
    return server.client.uploads.create(**{**asked, **more})


def add(server: Server, upload: Any, data: bytes) -> str:
    return server.client.uploads.parts.create(upload.id, data=data).id


def blobs(server: Server) -> list[str]:
    return sorted(path.name for path in server.here.blobs.folder.glob("??/*"))


def test_parts_sent_at_once_become_the_file_in_the_order_that_is_named(server: Server) -> None:
    content = [bytes([65 + n]) * (100_000 + n) for n in range(6)]
    upload = begin(server, sum(map(len, content)))
    with ThreadPoolExecutor(6) as threads:
        parts = list(threads.map(lambda data: add(server, upload, data), content))
    wanted = b"".join(content[::-1])

    done = server.client.uploads.complete(
        upload.id, part_ids=parts[::-1], md5=hashlib.md5(wanted).hexdigest()
    )

    assert ("pending", START + 3600, None) == (upload.status, upload.expires_at, upload.file)
    assert ("completed", upload.id) == (done.status, done.id)
    assert done.file is not None
    assert ("rows.jsonl", "fine-tune", len(wanted)) == (
        done.file.filename,
        done.file.purpose,
        done.file.bytes,
    )
    assert wanted == server.client.files.content(done.file.id).read()
    assert [done.file.id] == blobs(server)  # the parts are gone


def test_the_sdks_own_helper_works(server: Server, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"0123456789" * 10)

    done = server.client.uploads.upload_file_chunked(
        file=tmp_path / "rows.jsonl", mime_type="text/jsonl", purpose="batch", part_size=30
    )

    assert done.file is not None
    assert b"0123456789" * 10 == server.client.files.content(done.file.id).read()
    assert START + 30 * 24 * 3600 == done.file.expires_at


def test_a_part_that_was_sent_twice_counts_once(server: Server) -> None:
    upload = begin(server, 4)
    add(server, upload, b"ab")
    parts = [add(server, upload, b"ab"), add(server, upload, b"cd")]

    done = server.client.uploads.complete(upload.id, part_ids=parts)
    again = server.client.uploads.complete(upload.id, part_ids=parts)

    assert done.file is not None
    assert done == again
    assert b"abcd" == server.client.files.content(done.file.id).read()
    with pytest.raises(BadRequestError, match="completed"):
        add(server, upload, b"ef")
    with pytest.raises(BadRequestError, match="completed"):
        server.client.uploads.cancel(upload.id)


@pytest.mark.parametrize(
    ("parts", "more", "says"),
    [
        (lambda a, b: [a], {}, "2 bytes together and the upload was announced with 4"),
        (lambda a, b: [a, a], {}, "names a part twice"),
        (lambda a, b: [a, "part_unknown"], {}, "part_unknown"),
        (lambda a, b: [a, b], {"md5": "0" * 32}, "the md5 of the parts is e2fc714c4727ee9395f324cd2e7f331f"),
        (lambda a, b: [a, b], {"md5": "abcd"}, "32 hexadecimal"),
    ],
)
def test_what_does_not_add_up_makes_no_file(server: Server, parts: Any, more: Any, says: str) -> None:
    upload = begin(server, 4)
    a, b = add(server, upload, b"ab"), add(server, upload, b"cd")

    with pytest.raises(BadRequestError, match=says):
        server.client.uploads.complete(upload.id, part_ids=parts(a, b), **more)

    assert [] == list(server.client.files.list())
    assert sorted([a, b]) == blobs(server)
    assert "completed" == server.client.uploads.complete(upload.id, part_ids=[a, b]).status


def test_a_part_belongs_to_its_upload(server: Server) -> None:
    other = add(server, begin(server, 2), b"ab")

    with pytest.raises(BadRequestError, match=other):
        server.client.uploads.complete(begin(server, 2).id, part_ids=[other])


def test_a_cancelled_upload_takes_its_parts_with_it(server: Server) -> None:
    upload = begin(server, 2)
    part = add(server, upload, b"ab")

    cancelled = server.client.uploads.cancel(upload.id)

    assert ("cancelled", []) == (cancelled.status, blobs(server))
    assert cancelled == server.client.uploads.cancel(upload.id)
    for call in (
        lambda: add(server, upload, b"cd"),
        lambda: server.client.uploads.complete(upload.id, part_ids=[part]),
    ):
        with pytest.raises(BadRequestError, match="cancelled"):
            call()


def test_an_upload_lives_for_an_hour(server: Server, clock: Clock) -> None:
    upload = begin(server, 4)
    part = add(server, upload, b"ab")
    clock.time += 3599
    late = add(server, upload, b"cd")
    clock.time += 1

    with pytest.raises(BadRequestError, match="expired"):
        server.client.uploads.complete(upload.id, part_ids=[part, late])
    with pytest.raises(BadRequestError, match="expired"):
        add(server, upload, b"ef")
    asyncio.run(uploads.sweep(server.here))

    assert [] == blobs(server)
    with pytest.raises(BadRequestError, match="expired"):
        server.client.uploads.cancel(upload.id)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"purpose": "unknown"}, "purpose"),
        ({"filename": "rows.csv"}, "file"),
        ({"size": 0}, "bytes"),
        ({"size": 8 * 1024**3 + 1}, "bytes"),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "now", "seconds": 3600}}, "expires_after.anchor"),
    ],
)
def test_an_upload_that_can_never_be_a_file_is_refused(
    server: Server, wrong: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        begin(server, **{"size": 4, **wrong})

    assert param == refused.value.param


def test_the_files_expiry_counts_from_its_completion(server: Server, clock: Clock) -> None:
    upload = begin(server, 2, expires_after={"anchor": "created_at", "seconds": 7200})
    part = add(server, upload, b"ab")
    clock.time += 100

    done = server.client.uploads.complete(upload.id, part_ids=[part])

    assert done.file is not None
    assert START + 100 + 7200 == done.file.expires_at


def test_more_than_was_announced_is_not_taken(server: Server) -> None:
    upload = begin(server, 4)

    with pytest.raises(Exception, match="larger than 4 bytes"):
        add(server, upload, b"abcde" * 1000)

    assert [] == blobs(server)


def test_an_unknown_upload_is_a_404(server: Server) -> None:
    for call in (
        lambda: server.client.uploads.parts.create("upload_x", data=b"a"),
        lambda: server.client.uploads.complete("upload_x", part_ids=["a"]),
        lambda: server.client.uploads.cancel("upload_x"),
    ):
        with pytest.raises(NotFoundError, match="upload_x"):
            call()


def test_the_asynchronous_sdk_uploads_too(server: Server) -> None:
    async def upload() -> Any:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return await client.uploads.upload_file_chunked(
                file=b"abcdef", filename="a.jsonl", bytes=6, mime_type="x", purpose="fine-tune", part_size=4
            )

    assert "completed" == asyncio.run(upload()).status
