"""One real platform for all tests here, with its real engine; every test has a channel of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from release_base import Channel, tree_of_models

from reconciler.platforms import embedded
from reconciler.world import Platform


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree_of_models(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def platform(models: Path) -> Iterator[Platform]:
    with embedded.attach(models / ".reconciler" / "platform") as platform:
        yield platform


@pytest.fixture
def channel(models: Path, platform: Platform, request: pytest.FixtureRequest) -> Channel:
    return Channel(models, f"demo/{request.node.name.replace('_', '-')[:80]}")
