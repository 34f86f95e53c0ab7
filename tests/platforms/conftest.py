from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from platform_stub import Stub

from reconciler.platforms.exchange import Deadlines
from reconciler.platforms.openai import Clock, OpenAI


@dataclass
class Waits:
    """A clock that sleeps by moving on."""

    at: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds

    def clock(self) -> Clock:
        return Clock(now=lambda: self.at, wall=lambda: self.at, sleep=self.sleep, random=lambda: 0.5)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.stop()


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def platform(stub: Stub, waits: Waits) -> Iterator[OpenAI]:
    platform = OpenAI(
        stub.url,
        clock=waits.clock(),
        deadlines=Deadlines(connect=5, quiet=0.3, total=60),
        transport=httpx.HTTPTransport(verify=False),  # reading the certificates takes longer than a test
    )
    yield platform
    platform.close()
