"""Files, as the official SDK and as a rude client use them."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from server_base import ROWS, Server, until

from reconciler.selfhosted.storage.blobs import Blobs


def test_an_uploaded_file_comes_back_byte_for_byte(shared_server: Server) -> None:
    client = shared_server.client()

    file = client.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")

    assert ROWS == client.files.content(file.id).read()
    assert (len(ROWS), "rows.jsonl", "fine-tune", "processed") == (
        file.bytes,
        file.filename,
        file.purpose,
        file.status,
    )
    assert file == client.files.retrieve(file.id)


def test_a_list_pages_through_every_file_newest_first(server: Server) -> None:
    client = server.client()
    made = [client.files.create(file=(f"{n}.jsonl", ROWS), purpose="evals").id for n in range(5)]
    client.files.create(file=("other.jsonl", ROWS), purpose="fine-tune")

    pages = list(client.files.list(purpose="evals", limit=2))
    first = client.files.list(purpose="evals", limit=2)
    oldest_first = [file.id for file in client.files.list(purpose="evals", order="asc")]

    assert made[::-1] == [file.id for file in pages]
    assert (made[4], made[3], True) == (first.first_id, first.last_id, first.has_more)
    assert made == oldest_first


def test_a_deleted_file_is_gone_with_its_bytes(server: Server) -> None:
    client = server.client()
    file = client.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")

    gone = client.files.delete(file.id)

    assert (file.id, True) == (gone.id, gone.deleted)
    assert [] == [p for p in (server.data / "blobs").rglob("*") if p.is_file()]
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        client.files.retrieve(file.id)


def test_a_file_expires_when_it_was_asked_to(shared_server: Server) -> None:
    client = shared_server.client()

    file = client.files.create(
        file=("rows.jsonl", ROWS),
        purpose="fine-tune",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )

    assert 3600 == (file.expires_at or 0) - file.created_at


@pytest.mark.parametrize(
    ("purpose", "name", "more", "param"),
    [
        ("fine-tune", "rows.txt", {}, "file"),
        ("batch", "rows.csv", {}, "file"),
        ("nonsense", "rows.jsonl", {}, "purpose"),
        (None, "rows.jsonl", {}, "purpose"),
        ("evals", None, {}, "file"),
        ("evals", "a", {"expires_after[anchor]": "now"}, "expires_after.anchor"),
        (
            "evals",
            "a",
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"},
            "expires_after.seconds",
        ),
    ],
)
def test_an_upload_that_breaks_a_rule_is_refused_with_the_field(
    shared_server: Server, purpose: str | None, name: str | None, more: dict[str, str], param: str
) -> None:
    form = {**({"purpose": purpose} if purpose else {}), **more}
    files = {"file": (name, ROWS)} if name else {"other": (None, b"x")}

    with shared_server.http() as http:
        answer = http.post("/v1/files", data=form, files=files)

    assert (400, param) == (answer.status_code, answer.json()["error"]["param"])


def test_an_upload_that_is_cut_off_leaves_nothing(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'

    with socket.create_connection((host, int(port))) as rude:
        rude.sendall(
            b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + head + b"a" * 5000
        )
    with server.http() as http:
        http.get("/v1/files")

        assert [] == http.get("/v1/files").json()["data"]
    assert [] == [p for p in (server.data / "blobs").rglob("*.jsonl") if p.is_file()]


@pytest.mark.parametrize(
    "body", [b"", b"--x\r\n", b"--x--", b'--x\r\nContent-Disposition: form-data; name="file"']
)
def test_a_broken_form_is_a_bad_request(shared_server: Server, body: bytes) -> None:
    with shared_server.http() as http:
        kind = {"content-type": "multipart/form-data; boundary=x"}
        answer = http.post("/v1/files", content=body, headers=kind)

    assert (400, "invalid_request_error") == (answer.status_code, answer.json()["error"]["type"])


def test_a_large_upload_takes_no_memory(server: Server, tmp_path: Path) -> None:
    large = tmp_path / "large.jsonl"
    block = os.urandom(1 << 20)
    with large.open("wb") as file:
        for _ in range(200):
            file.write(block)
    with server.http() as http, large.open("rb") as file:
        http.get("/v1/files")
        before = _peak(server)

        made = http.post("/v1/files", data={"purpose": "evals"}, files={"file": ("large.jsonl", file)}).json()
        digest = hashlib.sha256()
        with http.stream("GET", f"/v1/files/{made['id']}/content") as content:
            for chunk in content.iter_bytes():
                digest.update(chunk)

    assert large.stat().st_size == made["bytes"]
    assert hashlib.sha256(block * 200).hexdigest() == digest.hexdigest()
    assert _peak(server) - before < 40_000  # KiB


def _peak(server: Server) -> int:
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


@pytest.fixture
def small_disk() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="small-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small disk cannot be mounted here; that needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
    folder.rmdir()


def test_a_full_disk_refuses_an_upload_and_the_server_lives(
    new_server: Callable[[], Server], small_disk: Path
) -> None:
    server = new_server()
    (server.data / "blobs").symlink_to(small_disk)
    server.start()

    with server.http() as http:
        form, rows = {"purpose": "evals"}, {"file": ("a.jsonl", b"x" * 3_000_000)}
        full = http.post("/v1/files", data=form, files=rows)
        small = http.post("/v1/files", data=form, files={"file": ("a.jsonl", ROWS)})

    assert (507, "disk_full") == (full.status_code, full.json()["error"]["code"])
    assert 200 == small.status_code
    assert [small.json()["id"]] == [file.id for file in server.client().files.list()]


def test_bytes_that_a_crash_left_nameless_are_swept_away(new_server: Callable[[], Server]) -> None:
    server = new_server().start()
    named = server.client().files.create(file=("rows.jsonl", ROWS), purpose="evals").id
    server.kill()
    blobs = Blobs(server.data / "blobs")
    kept, nameless = blobs.path(named), blobs.path("file-nameless")
    nameless.parent.mkdir(exist_ok=True)
    nameless.write_bytes(b"x")
    for blob in (kept, nameless):
        os.utime(blob, (0, 0))

    server.start()

    until(lambda: not nameless.exists())
    assert ROWS == server.client().files.content(named).read()
