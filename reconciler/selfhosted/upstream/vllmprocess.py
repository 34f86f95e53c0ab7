"""
One `vllm serve` process: how it is started, when it is ready, and how an adapter joins it.

It listens on loopback, with a key that only it and we have. It never outlives us.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from reconciler.selfhosted.engine.values import EngineError
from reconciler.selfhosted.upstream import upstreamreply
from reconciler.selfhosted.upstream.upstreamcache import Cache
from reconciler.selfhosted.upstream.upstreamclient import Patience, Upstreams
from reconciler.selfhosted.upstream.upstreams import Upstream

BASE = "base"  # what a base model is called in its process
IN_FLIGHT = 512  # vLLM queues what does not fit into a batch
LOOK = 0.1  # seconds between two looks whether it is ready
STARTING = 1800.0  # seconds: large weights on a slow disk, and the compilation of kernels
DYING = 1.0  # seconds in which a process that dropped a connection shows that it is dead
ONCE_MORE = Patience(tries=2)


@dataclass
class Running:
    """A process of vLLM's, and how it is asked."""

    base: Path
    rank: int  # of the adapters that it has room for; 0: for none
    adapters: list[Path]
    process: asyncio.subprocess.Process
    url: str
    key: str = field(repr=False)
    client: Upstreams
    users: int = 0

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def dies(self) -> bool:
        """Whether it is dead, or about to be: a connection was lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DYING):
                await self.process.wait()
        return not self.alive

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        await self.process.wait()
        await self.client.close()


async def start(
    command: Sequence[str], base: Path, rank: int, adapters: list[Path], log: Path | None
) -> Running:
    """A process that is ready. Raises EngineError."""
    if shutil.which(command[0]) is None:
        raise EngineError("engine_unavailable", f"there is no program {command[0]} on the PATH")
    port, key = _free_port(), secrets.token_hex(16)
    whole = [*command, *arguments(base, rank, adapters, port)]
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("ab")) if log else None
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "reconciler.selfhosted.engine.leash", str(os.getpid()), *whole),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ
            | {"VLLM_API_KEY": key, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "HF_HUB_OFFLINE": "1"},
        )
    url = f"http://127.0.0.1:{port}"
    elsewhere = Upstream("*", f"{url}/v1", "VLLM_API_KEY", key, concurrency=IN_FLIGHT)
    client = Upstreams((elsewhere,), Cache(Path(os.devnull), 0), ONCE_MORE)
    running = Running(base, rank, adapters, process, url, key, client)
    try:
        await _ready(running, log)
    except BaseException:  # a cancel too: nobody would know of it
        await running.stop()
        raise
    return running


async def _ready(running: Running, log: Path | None) -> None:
    where = f"see {log}" if log else "its standard error says why"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STARTING), aiohttp.ClientSession() as session:
            while running.alive:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{running.url}/health") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(LOOK)
    ended = f"ended with code {running.process.returncode}" if not running.alive else "did not get ready"
    raise EngineError("model_unloadable", f"vLLM {ended} at its start with {running.base}; {where}")


def arguments(base: Path, rank: int, adapters: Sequence[Path], port: int) -> list[str]:
    """What `vllm serve` is told. Pure."""
    told = [str(base), "--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(port)]
    told += ["--load-format", "safetensors", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    if rank:
        told += ["--enable-lora", "--max-lora-rank", str(rank)]
    if adapters:
        told += ["--lora-modules", *(f"{name_of(adapter)}={adapter}" for adapter in adapters)]
    return told


def name_of(adapter: Path) -> str:
    return "adapter-" + hashlib.sha256(os.fsencode(adapter)).hexdigest()[:16]


async def add_adapter(running: Running, adapter: Path) -> None:
    body = {"lora_name": name_of(adapter), "lora_path": str(adapter)}
    headers = {"authorization": f"Bearer {running.key}"}
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{running.url}/v1/load_lora_adapter", json=body) as response,
        ):
            status, said = response.status, (await response.text())[: upstreamreply.MOST_SHOWN]
    except aiohttp.ClientError as error:
        raise EngineError("engine_failed", f"vLLM went away while it loaded {adapter}") from error
    if status != 200:
        raise EngineError("model_unloadable", f"vLLM does not load {adapter} (HTTP {status}): {said}")
    running.adapters.append(adapter)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
