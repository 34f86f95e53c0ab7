"""One server per data folder, whoever comes first, and nobody is left without one."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reconciler.errors import Unreachable
from reconciler.platforms import embedded
from reconciler.platforms.embedded import Empty, Server
from reconciler.world import Upload


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def pid_of(data: Path) -> int:
    return int(json.loads((data / "server.json").read_bytes())["pid"])


def wait_until_nobody_serves(data: Path) -> None:
    with (data / "server.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_the_first_to_need_a_server_starts_it_and_stops_it(data: Path) -> None:
    with embedded.attach(data) as platform:
        assert "tiny-chat" in [model["id"] for model in platform.list("models")]
        assert embedded.CAPABILITIES == platform.capabilities
        pid = pid_of(data)
        assert os.getsid(0) != os.getsid(pid), "Ctrl-C at the terminal would stop it"

    assert not (data / "server.json").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_was_kept_is_there_to_look_at_and_not_to_change(data: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"item": {"a": 1}}\n')
    with embedded.attach(data) as platform:
        body = {"purpose": "evals", "file": Upload(rows, "rows.jsonl")}
        made = platform.create("files", body, key="once")
        again = platform.create("files", body, key="once")

    with embedded.look(data) as looked:
        assert [made] == looked.list("files")
        with pytest.raises(AssertionError):
            looked.create("files", {}, key="k")
    assert made == again


def test_a_running_server_is_shared_and_left_running(data: Path) -> None:
    with embedded.attach(data) as first:
        before = pid_of(data)
        with embedded.attach(data) as second:
            assert first.list("models") == second.list("models")

        assert before == pid_of(data)
        assert first.list("models")


def test_two_that_start_at_once_end_up_with_one_server(data: Path) -> None:
    servers = [Server(data) for _ in range(3)]
    sockets: list[Path] = []
    threads = [threading.Thread(target=lambda s=server: sockets.append(s.reach())) for server in servers]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 3 == len(sockets)
    assert 1 == len(set(sockets))
    for server in servers:
        server.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_server_that_goes_away_is_started_again_by_who_misses_it(data: Path, how: signal.Signals) -> None:
    with embedded.attach(data) as platform:
        platform.list("models")
        before = pid_of(data)
        os.kill(before, how)
        wait_until_nobody_serves(data)

        assert platform.list("models")
        assert before != pid_of(data)


def test_who_shares_a_server_survives_the_end_of_who_started_it(data: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"item": {"a": 1}}\n')
    starter = Server(data)
    starter.reach()
    with embedded.attach(data) as platform:
        platform.list("files")
        starter.close()

        made = platform.create("files", {"purpose": "evals", "file": Upload(rows, "rows.jsonl")}, key="k")

        assert [made] == platform.list("files")


def test_a_server_ends_when_its_starter_is_killed(data: Path) -> None:
    code = "import sys, pathlib; from reconciler.platforms import embedded\n"
    code += "with embedded.attach(pathlib.Path(sys.argv[1])): print('up', flush=True); sys.stdin.read()"
    starter = subprocess.Popen(
        [sys.executable, "-c", code, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert starter.stdout is not None and b"up\n" == starter.stdout.readline()

    starter.kill()
    starter.communicate()

    wait_until_nobody_serves(data)
    assert not (data / "server.json").exists()


def test_a_folder_too_deep_for_a_socket_works_all_the_same(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)

    with embedded.attach(deep) as platform:
        assert platform.list("models")


def test_a_folder_that_cannot_be_gets_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")

    with pytest.raises(Unreachable, match=r"did not start: .*file/data"), embedded.attach(file / "data"):
        pass


def test_a_missing_extra_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError(\"No module named 'uvicorn'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with (
        pytest.raises(Unreachable, match=r"No module named 'uvicorn'.*its extra `platform`"),
        embedded.attach(data),
    ):
        pass


def test_a_folder_that_somebody_holds_without_answering_gets_a_sentence(data: Path) -> None:
    data.mkdir()
    with (data / "server.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(Unreachable, match="has not answered for 2 seconds"):
            Server(data, wait=2.0).reach()


def test_a_look_at_nothing_starts_nothing(data: Path) -> None:
    with embedded.look(data) as platform:
        assert isinstance(platform, Empty)
        assert embedded.CAPABILITIES == platform.capabilities
        assert [] == platform.list("files")
        assert platform.get("models", "tiny-chat") is None

    assert not data.exists()
