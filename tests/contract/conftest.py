"""One real server on a real port for the whole contract, with a stub trainer, a stub engine and a memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "selfhosted"))  # the stand-ins of the platform's own tests

from contract_server import Exchange, Platform
from contract_spec import Spec
from contract_tour import tour_async, tour_sync

SPEC = Path(__file__).parents[3] / "shared/reference/openai-openapi.yaml"


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("platform")).running() as platform:
        yield platform


@pytest.fixture(scope="session")
def toured(platform: Platform) -> list[Exchange]:
    """Everything that was said while the SDK visited every endpoint, both ways."""
    before = len(platform.exchanges)
    tour_sync(platform)
    tour_async(platform)
    return platform.exchanges[before:]


@pytest.fixture(scope="session")
def spec() -> Spec:
    path = Path(os.environ.get("RECONCILER_OPENAPI", SPEC))
    if not path.is_file():
        pytest.skip(f"OpenAI's specification is not at {path}; name it in RECONCILER_OPENAPI")
    return Spec.read(path)
