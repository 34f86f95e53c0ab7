"""Judges of reinforcement jobs that are served elsewhere: asked with the environment's key, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_base import Server, register, until, upload
from upstream_stub import Reply, Stub, refused, said

from reconciler.selfhosted.training.failures import Failure
from reconciler.selfhosted.training.job import FarJudge
from reconciler.selfhosted.training.rewards import Rewards

KEY = "sk-canary-77a1"
JUDGE = {
    "type": "score_model",
    "name": "judged",
    "model": "far/judge[1]",
    "input": [{"role": "user", "content": "Rate {{ sample.output_text }}"}],
    "range": [0, 1],
}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("FAR_KEY", KEY)
    with Stub().running() as running:
        yield running


def judge(stub: Stub, tmp_path: Path) -> FarJudge:
    return FarJudge(
        base_url=stub.url, model="there", api_key_env="FAR_KEY", concurrency=8, cache=tmp_path / "judged.db"
    )


def rewards(judges: dict[str, Any], *texts: str) -> list[float]:
    made = Rewards(JUDGE, judges, unsafe=False)
    try:
        grades = made.grade([{}] * len(texts), [{"output_text": text} for text in texts])
        return [grade.score for grade in grades]
    finally:
        made.close()


def test_a_trainer_asks_a_judge_elsewhere_and_asks_nothing_again_when_it_goes_on(
    tmp_path: Path, stub: Stub
) -> None:
    async def says(_: Any, body: dict[str, Any]) -> Reply:
        score = 0.75 if "good" in body["messages"][-1]["content"] else 0.25
        return said(json.dumps({"result": score, "steps": []}))

    stub.says = says
    judges = {str(JUDGE["model"]): judge(stub, tmp_path)}

    first = rewards(judges, "good", "bad")
    again = rewards(judges, "good", "bad")

    assert [0.75, 0.25] == first == again
    assert [f"Bearer {KEY}"] * 2 == [headers["authorization"] for headers in stub.headers]
    assert ["there"] * 2 == [body["model"] for body in stub.bodies]


def test_a_judge_that_refuses_the_key_ends_the_job_and_not_only_its_rewards(
    tmp_path: Path, stub: Stub
) -> None:
    async def says(*_: Any) -> Reply:
        return refused(401, f"Incorrect API key provided: {KEY}")

    stub.says = says

    with pytest.raises(Failure) as failure:
        rewards({str(JUDGE["model"]): judge(stub, tmp_path)}, "good")

    assert "grader_unavailable" == failure.value.code
    assert "FAR_KEY" in failure.value.message
    assert KEY not in failure.value.message


def test_a_judge_whose_upstream_is_not_listed_any_more_ends_the_job() -> None:
    with pytest.raises(Failure, match="no upstream has a pattern that fits the judge"):
        rewards({str(JUDGE["model"]): Path("upstream:far/judge[1]")}, "good")


def test_a_job_tells_its_trainer_where_its_judges_are_and_never_a_key(
    stub: Stub, new_server: Callable[..., Server], base_model: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "upstreams.json"
    listed.write_text(
        json.dumps([{"pattern": "far/*", "base_url": stub.url, "api_key_env": "FAR_KEY", "concurrency": 9}])
    )
    server = new_server().start("--allow-model-sources", "--upstreams", str(listed))
    name, file = register(server, base_model), upload(server)
    jobs: Any = server.client().fine_tuning.jobs

    job = jobs.create(
        model=name,
        training_file=file,
        validation_file=upload(server),
        method={"type": "reinforcement", "reinforcement": {"grader": JUDGE}},
    )
    told = until(lambda: _read(server.data / "jobs" / job.id / "job.json"))

    folder = server.data / "jobs" / job.id
    assert KEY not in json.dumps(told)
    assert {
        "far/judge[1]": {
            "base_url": stub.url,
            "model": "far/judge[1]",
            "api_key_env": "FAR_KEY",
            "concurrency": 9,
            "cache": str(folder / "judged.db"),
        }
    } == told["judges"]


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None
