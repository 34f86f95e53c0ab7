"""A real server on a real port and a real database; only the engine and the trainer are stand-ins."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server_base import Server


@pytest.fixture
def new_server() -> Iterator[Callable[..., Server]]:
    """Makes servers over fresh data folders and stops them at the end."""
    made: list[Server] = []

    def make(kind: type[Server] = Server) -> Server:
        made.append(kind(Path(tempfile.mkdtemp(prefix="platform-"))))  # short, for the sockets in it
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.kill(signal.SIGTERM)
        shutil.rmtree(one.data, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """One server for the tests that do not mind what others left."""
    server = Server(Path(tempfile.mkdtemp(prefix="platform-"))).start("--allow-model-sources")
    yield server
    server.kill(signal.SIGTERM)
    shutil.rmtree(server.data, ignore_errors=True)


@pytest.fixture
def server(new_server: Callable[[], Server]) -> Server:
    return new_server().start("--allow-model-sources")


@pytest.fixture
def base_model(tmp_path: Path) -> Path:
    """A folder that looks like a model to everybody who does not load it."""
    for name, content in (("config.json", "{}"), ("model.safetensors", ""), ("tokenizer.json", "{}")):
        (tmp_path / name).write_text(content)
    return tmp_path
