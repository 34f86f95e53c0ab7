import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "core"), str(TESTS / "selfhosted"), str(TESTS / "plans")]

from ci_base import Workflow  # noqa: E402
from comment_base import commit, git  # noqa: E402
from core_base import write  # noqa: E402
from faulty_server import FaultyServer  # noqa: E402
from github_stub import GitHubStub  # noqa: E402


@pytest.fixture
def github() -> Iterator[GitHubStub]:
    with GitHubStub().running() as stub:
        yield stub


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    with FaultyServer(tmp_path_factory.mktemp("platform")).running() as running:
        yield running


@pytest.fixture
def workflow(
    tmp_path: Path, github: GitHubStub, server: FaultyServer, request: pytest.FixtureRequest
) -> Workflow:
    """A clone with an empty `origin/main` and a pull request that brings a whole tree."""
    root = tmp_path / "repository"
    root.mkdir()
    commit(root, "nothing yet")
    git(root, "update-ref", "refs/remotes/origin/main", "HEAD")
    made = Workflow(root, tmp_path, github)
    made.project(write(root / "manifests"), server.url, request.node.name)
    made.commit("a whole tree")
    return made
