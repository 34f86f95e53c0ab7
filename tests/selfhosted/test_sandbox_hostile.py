"""Fifty graders that mean harm, all in one pool, each followed by honest items."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from hostile_graders import HOSTILE
from sandbox_pool import HONEST, Pool, needs_bwrap

from reconciler.selfhosted.grading import GraderFailed, Limits

REAL = (
    "opens a TCP socket",
    "makes a pair of sockets",
    "reads /etc/passwd",
    "reads a file of ours",
    "lists /tmp",
    "lists processes",
    "makes a file in memory",
    "runs a program",
)


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, list[Any]]]:
    """What came of each hostile grader, and of two honest items run right after it, all in one pool."""
    secret = tmp_path_factory.mktemp("ours") / "secret"
    secret.write_text("a secret")
    pool = Pool(turns=6, limits=Limits(wall_seconds=2.0, memory_bytes=512 << 20))

    async def attack(source: str, item: dict[str, Any]) -> tuple[Any, list[Any]]:
        (outcome,) = await asyncio.gather(pool.sandbox.run(source, item, {}), return_exceptions=True)
        honest = (pool.sandbox.run(HONEST, {"label": "x"}, {"output_text": text}) for text in "xy")
        return outcome, await asyncio.gather(*honest, return_exceptions=True)

    async def all_at_once(item: dict[str, Any]) -> list[tuple[Any, list[Any]]]:
        return await asyncio.gather(*(attack(source, item) for source in HOSTILE.values()))

    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        patch.setenv("RECONCILER_CANARY", "a secret")
        item = {"port": server.getsockname()[1], "secret_file": str(secret)}
        outcomes = pool.do(all_at_once(item))
    pool.close()
    return dict(zip(HOSTILE, outcomes, strict=True))


@needs_bwrap
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_grader_fails_its_own_item_and_the_pool_goes_on(
    name: str, refusals: dict[str, tuple[Any, list[Any]]]
) -> None:
    outcome, honest = refusals[name]

    assert isinstance(outcome, GraderFailed), outcome
    assert outcome.kind in ("raised", "no_answer", "not_a_number", "timeout", "forged", "syntax"), outcome
    assert [1.0, 0.25] == honest


@pytest.mark.parametrize("name", REAL)
def test_the_attacks_are_real_where_nothing_isolates(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    pool = Pool(unsafe=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        item = {"port": server.getsockname()[1], "secret_file": str(secret)}

        assert 1.0 == pool.run(HOSTILE[name], item)
    pool.close()


def test_there_are_fifty_of_them_at_least() -> None:
    assert len(HOSTILE) >= 50
