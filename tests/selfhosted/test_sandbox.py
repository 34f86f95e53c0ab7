"""A grader can fail its own item and nothing else: not pass, not touch another item, not reach the host."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_graders import HOSTILE
from sandbox_pool import HONEST, Pool, needs_bwrap

from reconciler.selfhosted import grading
from reconciler.selfhosted.grading import GraderFailed, Limits, isolation


class NoJudge:
    """Nobody is asked here."""

    async def ask(self, *asked: Any) -> grading.JudgeAnswer:
        raise grading.JudgeFailed("there is no judge here")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(turns=2, limits=Limits(wall_seconds=2.0, memory_bytes=512 << 20))
    yield pool
    pool.close()


@needs_bwrap
def test_a_hostile_item_does_not_touch_the_next_item_of_the_same_source(pool: Pool) -> None:
    source = """
import builtins, json, os, random, sys
seen = []
def grade(sample, item):
    seen.append(item)
    if item.get("attack"):
        builtins.float = json.loads = os.write = None
        sys.modules.clear()
        os.kill(os.getppid(), 9)
    return float(len(seen))
"""
    scores = []
    for attack in (False, True, False):
        try:
            scores.append(pool.run(source, {"attack": attack}))
        except GraderFailed:
            scores.append(0.0)

    assert [1.0, 0.0, 1.0] == scores


@needs_bwrap
def test_items_that_fail_beside_others_fail_alone(pool: Pool) -> None:
    source = "def grade(sample, item):\n    while item['n'] % 5 == 0: pass\n    return item['n']"

    async def all_at_once() -> list[Any]:
        runs = (pool.sandbox.run(source, {"n": n}, {}) for n in range(1, 11))
        return await asyncio.gather(*runs, return_exceptions=True)

    scores = pool.do(all_at_once())

    assert ["timeout", "timeout"] == [e.kind for e in scores if isinstance(e, GraderFailed)]
    assert [1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0] == [s for s in scores if isinstance(s, float)]


@needs_bwrap
def test_a_run_that_is_cancelled_does_not_answer_for_the_next(pool: Pool) -> None:
    source = "import time\ndef grade(sample, item):\n    time.sleep(item['s'])\n    return item['score']"

    async def cancel_one() -> float:
        slow = asyncio.ensure_future(pool.sandbox.run(source, {"s": 0.9, "score": 1.0}, {}))
        await asyncio.wait([slow], timeout=0.2)
        slow.cancel()
        await asyncio.wait([slow])
        return await pool.sandbox.run(source, {"s": 0, "score": 0.5}, {})

    assert 0.5 == pool.do(cancel_one())


@needs_bwrap
@pytest.mark.parametrize(
    ("body", "score"),
    [
        ("return sample['output_text'] == 'x'", 1.0),
        ("return 3", 3.0),
        ("return -0.5", -0.5),
        ("import math; return math.pi", 3.141592653589793),
        ("import numpy as np; return np.float32(0.5)", 0.5),
        ("import numpy as np; return np.ones((200, 200)).dot(np.ones(200)).mean() / 200", 1.0),
        ("from rapidfuzz import fuzz; return fuzz.ratio('ab', 'ab') / 100", 1.0),
        ("import re, json; return float(json.loads(re.sub('a', '1', 'a')))", 1.0),
        ("from decimal import Decimal; return Decimal('0.1')", 0.1),
        ("print('chatty'); import sys; sys.stderr.write('x'); return 0.5", 0.5),
        ("return float(item['grüße'] == 'ü' and sample['nested'] == {'a': [1, None, True]})", 1.0),
    ],
)
def test_an_honest_grader_returns_its_number(body: str, score: float, pool: Pool) -> None:
    source = "def grade(sample, item):\n    " + body
    sample = {"output_text": "x", "nested": {"a": [1, None, True]}}

    assert score == pool.do(pool.sandbox.run(source, {"grüße": "ü"}, sample))


@needs_bwrap
def test_a_failure_says_what_and_where_in_the_source(pool: Pool) -> None:
    with pytest.raises(GraderFailed) as failed:
        pool.run("def grade(sample, item):\n    x = 1\n    return item['absent']")

    assert ("raised", "KeyError: 'absent' (line 3)") == (failed.value.kind, failed.value.details)


def graded(pool: Pool, source: str) -> grading.Grade:
    grader = {"type": "python", "name": "p", "source": source}
    sample = grading.sample_of("x")
    grade: grading.Grade = pool.do(
        grading.grade(grader, {"label": "x"}, sample, judge=NoJudge(), sandbox=pool.sandbox)
    )
    return grade


@needs_bwrap
def test_a_python_grader_passes_from_half_on_and_fails_with_the_error_of_its_source(pool: Pool) -> None:
    passed, failed, wrong = (
        graded(pool, source)
        for source in (HONEST, "def grade(s, i): return 0.4", "def grade(s, i): return i['absent']")
    )

    assert [(1.0, True), (0.4, False), (0.0, False)] == [(g.score, g.passed) for g in (passed, failed, wrong)]
    assert (None, None) == (passed.error, failed.error)
    assert wrong.metadata["errors"]["python_grader_runtime_error"] is True
    details = wrong.metadata["errors"]["python_grader_runtime_error_details"]
    assert "KeyError: 'absent' (line 1)" == details == wrong.error


def test_a_python_grader_that_may_not_run_is_an_error_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    pool = Pool()

    grade = graded(pool, HONEST)

    assert (0.0, False) == (grade.score, grade.passed)
    assert grade.metadata["errors"]["python_grader_server_error"] is True
    assert "--unsafe-graders" in (grade.error or "")
    pool.close()


@needs_bwrap
def test_a_source_can_be_checked_before_it_runs(pool: Pool) -> None:
    assert pool.do(pool.sandbox.check(HONEST)) is None
    assert "source is not Python: invalid syntax (line 2)" == pool.do(
        pool.sandbox.check("x = 1\ndef grade(:")
    )


@needs_bwrap
def test_a_worker_that_was_ended_from_outside_is_replaced() -> None:
    pool = Pool(turns=1)
    assert 1.0 == pool.run(HONEST, {"label": "x"}, "x")
    (worker,) = pool.sandbox._live

    worker._process.kill()
    pool.do(worker._process.wait())

    assert 1.0 == pool.run(HONEST, {"label": "x"}, "x")
    pool.close()


@needs_bwrap
def test_more_sources_than_workers_take_turns() -> None:
    pool = Pool(turns=2, workers=2)
    sources = [f"def grade(sample, item): return {n}" for n in range(6)]

    async def all_at_once() -> list[float]:
        return await asyncio.gather(*(pool.sandbox.run(source, {}, {}) for source in sources * 2))

    assert [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] * 2 == pool.do(all_at_once())
    pool.close()


def test_without_isolation_graders_are_refused_with_the_way_to_allow_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    pool = Pool()

    refusal = pool.do(pool.sandbox.refusal())

    assert "bubblewrap is not installed (apt-get install bubblewrap)" in refusal
    assert "--unsafe-graders" in refusal
    with pytest.raises(GraderFailed) as refused:
        pool.run(HONEST, {"label": "x"}, "x")
    assert ("unavailable", refusal) == (refused.value.kind, refused.value.details)
    pool.close()


def test_a_bubblewrap_that_does_not_work_is_refused_with_its_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: no permission to make a namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    pool = Pool()

    assert "no permission to make a namespace" in pool.do(pool.sandbox.refusal())
    pool.close()


def test_graders_run_as_plain_processes_only_when_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setenv("RECONCILER_CANARY", "a secret")
    pool = Pool(unsafe=True, limits=Limits(wall_seconds=1.0))

    assert pool.do(pool.sandbox.refusal()) is None
    assert 1.0 == pool.run(HONEST, {"label": "x"}, "x")
    for name in ("loops for ever", "returns NaN", "takes it at once", "reads a secret of the environment"):
        with pytest.raises(GraderFailed):
            pool.run(HOSTILE[name])
    pool.close()


@needs_bwrap
def test_only_libraries_and_the_worker_are_visible_inside() -> None:
    command = isolation.launch(unsafe=False, seccomp_file=9).command
    shown = [command[at + 1] for at, word in enumerate(command) if word.endswith("bind")]

    assert "--bind" not in command
    assert not {"/", "/usr", "/etc", "/home", "/root", os.getcwd()} & set(shown)
    ours = (sys.prefix, str(Path(isolation.__file__).parent))  # wherever they are installed
    rest = [path for path in shown if not path.startswith(ours)]
    assert not any(path.startswith(("/proc", "/sys", "/var", "/tmp", "/etc")) for path in rest)
