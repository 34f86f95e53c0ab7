"""A platform whose store is PostgreSQL is visited at every endpoint too, and goes on where it was left."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from contract_server import ContractEngine, Platform
from contract_tour import tour_async, tour_sync
from eval_base import Server, make_eval, run_of

from reconciler.selfhosted import app

pytestmark = pytest.mark.slow


def test_the_sdk_is_answered_at_every_endpoint_over_postgresql(tmp_path: Path, postgres: str) -> None:
    platform = Platform(tmp_path / "data", store=postgres)
    with platform.running():
        tour_sync(platform)
        tour_async(platform)

    served = {f"{method} {route.path}" for route in app.all_routes() for method in route.methods - {"HEAD"}}
    visited = {f"{each.method} {each.route}" for each in platform.exchanges if each.status < 300}
    assert set() == served - visited
    assert [] == [str(each) for each in platform.exchanges if each.status >= 500]
    assert not (tmp_path / "data" / "platform.db").exists()


def test_what_a_server_left_undone_in_postgresql_is_done_by_the_next(tmp_path: Path, postgres: str) -> None:
    first, stuck = ContractEngine(), {"model": "tiny", "input": "stuck", "background": True}
    with Server(tmp_path / "data", first, store=postgres).running() as server:
        response = server.client.responses.create(**stuck)  # type: ignore[call-overload]
        run: Any = run_of(server, make_eval(server).id, [{"item": {"word": "stuck", "expected": "stuck"}}])
        assert first.stuck.wait(10)

    class Unstuck(ContractEngine):
        async def _stick(self, ask: Any) -> None: ...

    pause = threading.Event()
    with Server(tmp_path / "data", Unstuck(), store=postgres).running() as server:
        ended = server.ended(run)
        while (answered := server.client.responses.retrieve(response.id)).status == "in_progress":
            pause.wait(0.005)

    assert ("completed", 1) == (ended.status, ended.result_counts.passed)
    assert ("completed", "stuck") == (answered.status, answered.output_text)
