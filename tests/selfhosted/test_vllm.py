"""vLLM as the engine, against a program of its name that speaks as it does: no vLLM was ever seen here."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import vllm_standin
from server_base import HERE, Server, alive, register, until

from reconciler.selfhosted.engine import Answer, Ask, Engine, EngineError
from reconciler.selfhosted.upstream import engines
from reconciler.selfhosted.upstream.vllm import Vllm
from reconciler.selfhosted.upstream.vllmprocess import BASE, name_of


class Standin:
    """The program on the PATH, and what is known of its starts."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def starts(self) -> list[dict[str, Any]]:
        return list(map(json.loads, self.log.read_text().splitlines())) if self.log.exists() else []

    def pids(self) -> list[int]:
        return [pid for start in self.starts() for pid in (start["pid"], start["helper"])]


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Standin:
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "vllm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "vllm_standin.py"} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "starts.jsonl"))
    return Standin(tmp_path / "starts.jsonl")


def model(folder: Path) -> str:
    folder.mkdir()
    for name, content in (("config.json", "{}"), ("model.safetensors", ""), ("tokenizer.json", "{}")):
        (folder / name).write_text(content)
    return str(folder)


def adapter(folder: Path, base: str, rank: int = 16) -> str:
    folder.mkdir()
    config = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


def with_engine(use: Callable[[Vllm], Awaitable[Any]]) -> Any:
    async def using() -> Any:
        engine = Vllm(Engine())
        try:
            return await use(engine)
        finally:
            await engine.close()

    return asyncio.run(using())


def ask(model: str, text: str = "hello") -> Ask:
    return Ask(model, [{"role": "user", "content": text}], seed=1)


def text_of(result: Answer | EngineError) -> str:
    assert isinstance(result, Answer), result
    return result.text


def test_a_base_and_its_adapters_are_served_by_one_process(tmp_path: Path, standin: Standin) -> None:
    base = model(tmp_path / "base")
    one, two = adapter(tmp_path / "one", base), adapter(tmp_path / "two", base, rank=4)

    async def use(engine: Vllm) -> list[Answer | EngineError]:
        await engine.load(one)
        return await engine.generate([ask(base), ask(one), ask(two)])

    said = with_engine(use)

    names = [BASE, name_of(Path(one)), name_of(Path(two))]
    assert [f"{name}: hello" for name in names] == list(map(text_of, said))
    [start] = standin.starts()
    assert {"--enable-lora", "--lora-modules", f"{names[1]}={one}"} <= set(start["argv"])


def test_an_adapter_that_needs_more_room_or_another_base_starts_another_process(
    tmp_path: Path, standin: Standin
) -> None:
    base, other = model(tmp_path / "base"), model(tmp_path / "other")
    wide = adapter(tmp_path / "wide", base, rank=40)

    async def use(engine: Vllm) -> list[Answer | EngineError]:
        return [*await engine.generate([ask(base)]), *await engine.generate([ask(wide), ask(other)])]

    said = with_engine(use)

    assert [BASE, name_of(Path(wide)), BASE] == [text_of(each).split(":")[0] for each in said]
    first, second, third = (start["argv"] for start in standin.starts())
    assert [base, base, other] == [first[1], second[1], third[1]]
    assert "--enable-lora" not in first
    assert "64" == second[second.index("--max-lora-rank") + 1]


def test_another_base_waits_until_the_first_is_not_used(tmp_path: Path, standin: Standin) -> None:
    base, other = model(tmp_path / "base"), model(tmp_path / "other")

    async def use(engine: Vllm) -> tuple[bool, str]:
        stream = engine.stream(ask(base, vllm_standin.STICKS))
        await anext(stream)
        waiting = asyncio.create_task(engine.generate([ask(other)]))
        await asyncio.sleep(0)
        waited = not waiting.done() and len(standin.starts()) == 1
        await stream.aclose()
        return waited, text_of((await waiting)[0])

    assert (True, f"{BASE}: hello") == with_engine(use)


def test_a_process_that_died_is_started_again_and_asked_again(tmp_path: Path, standin: Standin) -> None:
    base = model(tmp_path / "base")
    tuned = adapter(tmp_path / "tuned", base)

    async def use(engine: Vllm) -> list[str]:
        asks = [ask(tuned, "a"), ask(tuned, vllm_standin.DIES)]
        said = list(map(text_of, await engine.generate(asks)))
        os.kill(standin.starts()[-1]["pid"], signal.SIGKILL)
        return [
            *said,
            *[text_of(part) async for part in engine.stream(ask(tuned, "b")) if isinstance(part, Answer)],
        ]

    said = with_engine(use)

    assert [f"{name_of(Path(tuned))}: {text}" for text in ("a", "die", "b")] == said
    assert 3 == len(standin.starts())


def test_what_cannot_be_served_says_why(tmp_path: Path, standin: Standin) -> None:
    base = model(tmp_path / "base")
    broken = model(tmp_path / "broken")
    (tmp_path / "broken" / "config.json").unlink()
    huge = adapter(tmp_path / "huge", base, rank=1000)

    async def use(engine: Vllm) -> list[tuple[str, str]]:
        refusals = []
        for folder in (str(tmp_path / "nowhere"), broken, huge):
            with pytest.raises(EngineError) as refusal:
                await engine.load(folder)
            refusals.append((refusal.value.code, refusal.value.message))
        return refusals

    missing, ended, too_wide = with_engine(use)

    assert ("model_not_found", f"there is no model folder {tmp_path / 'nowhere'}") == missing
    assert "model_unloadable" == ended[0]
    assert "vLLM ended with code 1 at its start" in ended[1]
    assert "rank 512 at most" in too_wide[1]


def test_nothing_of_it_outlives_its_engine(tmp_path: Path, standin: Standin) -> None:
    base = model(tmp_path / "base")

    with_engine(lambda engine: engine.load(base))

    assert 2 == len(standin.pids())
    assert until(lambda: not any(map(alive, standin.pids())))


class Platform(Server):
    """The server as it is started by hand, with the engine that it chooses itself."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "reconciler.selfhosted", "serve", "--engine", "vllm"]


def test_the_platform_serves_by_it_and_nothing_of_it_outlives_a_server_that_was_killed(
    tmp_path: Path, standin: Standin, new_server: Callable[..., Platform]
) -> None:
    server = new_server(Platform).start("--allow-model-sources")
    name, chat = register(server, Path(model(tmp_path / "mine"))), server.client().chat.completions
    hello: Any = [{"role": "user", "content": "hello"}]

    said = chat.create(model=name, messages=hello)
    with pytest.raises(openai.NotFoundError):
        chat.create(model="unknown", messages=hello)
    pids = standin.pids()
    server.kill(signal.SIGKILL)

    assert f"{BASE}: hello" == said.choices[0].message.content
    assert 5 == said.usage.total_tokens if said.usage else False
    assert until(lambda: not any(map(alive, pids)))


def test_a_server_that_is_told_to_use_vllm_does_not_start_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ValueError, match="there is no program 'vllm serve' to be the engine"):
        engines.own("vllm", "vllm serve", tmp_path, None, {})


def test_without_vllm_or_a_gpu_to_see_the_engine_is_our_own(tmp_path: Path) -> None:
    assert isinstance(engines.own("auto", "vllm serve", tmp_path, None, {"CUDA_VISIBLE_DEVICES": ""}), Engine)
    assert isinstance(engines.own("transformers", "vllm serve", tmp_path, None, {}), Engine)
