"""A daemon deletes what nobody wants where the project says so, and keeps to the part of a tree that it was given."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from core_base import FILES, write
from daemon_base import PROJECT, running
from faulty_server import FaultyServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    with FaultyServer(tmp_path_factory.mktemp("platform")).running() as running:
        yield running


def test_a_daemon_prunes_and_a_broken_manifest_lets_nothing_go(tmp_path: Path, server: FaultyServer) -> None:
    tree = write(tmp_path / "manifests", {file: FILES[file] for file in ("train.yaml", "train.jsonl")})
    (tree / "project.yaml").write_text(
        PROJECT.format(url=server.url, more="  prune: true\n  prune_after: 0s\n")
    )
    (tree / "more.jsonl").write_text(FILES["train.jsonl"].replace("say", "tell"))
    more = FILES["train.yaml"].split("---\n")[1].replace("train", "more")
    (tree / "more.yaml").write_text(more)

    with running(tmp_path / "log", tree, "--interval", "0.5", "--exclude", "FineTuneJob/*") as daemon:
        daemon.settles()
        assert server.asked["POST files"] == 2
        assert server.asked["POST fine_tuning/jobs"] == 0
        assert [] == daemon.named("object.deleted")  # a part of a tree is never pruned
    with running(tmp_path / "log", tree, "--interval", "0.5") as daemon:
        daemon.settles(after=len(daemon.events))
        (tree / "broken.yaml").write_text("kind: [")
        daemon.until("manifests.refused")
        (tree / "more.yaml").unlink()
        daemon.settles(after=len(daemon.events))
        assert [] == daemon.named("object.deleted")
        (tree / "broken.yaml").unlink()
        gone = daemon.until("object.deleted")

    assert ("Dataset", "no manifest wants Dataset/more") == (gone["kind"], gone["why"])
    assert 1 == sum(count for asked, count in server.asked.items() if asked.startswith("DELETE files/"))
