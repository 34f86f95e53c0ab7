"""
The eval runner against an upstream in a process of its own, which answers at once or after 200 ms.

Wanted: 1,000 items at zero latency in at most a second from the claim of the run to its end, cache and
store included; 1,000 at 200 ms with 128 in flight in at most 1.3 × the ideal; 20,000 in at most 300 MiB.
The floor is a bare aiohttp loop over as many questions in the same run. A pace starts with 20 in flight and
has to find out that more are taken well: `cold` is the first run of a server, `warm` its next. The ideal is
`items / 128 * latency`, which no whole number of rounds reaches: 1,000 items are eight rounds, 1.02 × as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from reconciler.selfhosted.upstream.upstreamcache import Cache
from reconciler.selfhosted.upstream.upstreamclient import Everywhere, Upstreams
from reconciler.selfhosted.upstream.upstreams import Upstream
from tests.bench.bench_runner import Instant, measure, rows

IN_FLIGHT = 128
MODEL = "far"
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "K4821"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 60, "completion_tokens": 5, "total_tokens": 65},
}


class Stub(asyncio.Protocol):
    """HTTP by hand, so that the stub costs less than what it measures."""

    body = json.dumps(REPLY).encode()
    reply = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )

    def __init__(self, latency: float) -> None:
        self._latency, self._heard = latency, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, end, body = self._heard.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            self._heard = b""
            asyncio.get_running_loop().call_later(self._latency, self._transport.write, self.reply)


async def stub(latency: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Stub(latency), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def upstream(latency: float) -> Iterator[Upstream]:
    command = [sys.executable, "-m", "tests.bench.bench_upstream", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
            yield Upstream(MODEL, url, concurrency=IN_FLIGHT)
        finally:
            process.kill()


async def bare(url: str, count: int) -> float:
    """Seconds of as many questions over aiohttp, 128 in flight, and nothing else."""
    asked = [json.loads(line)["item"] for line in rows(count).splitlines()]
    waiting = iter(asked)

    async def ask(session: aiohttp.ClientSession) -> None:
        for item in waiting:
            message = {"role": "user", "content": f"Triage {item['id']}: {item['ticket']}"}
            async with session.post(url, json={"model": MODEL, "messages": [message]}) as response:
                assert "K4821" == (await response.json())["choices"][0]["message"]["content"]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        started = time.perf_counter()
        await asyncio.gather(*(ask(session) for _ in range(IN_FLIGHT)))
        return time.perf_counter() - started


async def through_the_runner(folder: Path, far: Upstream, count: int) -> list[float]:
    """Seconds of a cold run and of a warm one, which asks other questions."""
    took = []
    elsewhere = Upstreams((far,), Cache(folder / "upstreams.db", 1 << 30))
    engine = Everywhere(Instant(), elsewhere)
    for first in (0, count):
        place = folder / str(first)
        place.mkdir()
        seconds, run = await measure(place, count, MODEL, engine, (far,), first)
        assert {"total": count, "errored": 0, "failed": 0, "passed": count} == run["result_counts"], run
        took.append(seconds)
    await elsewhere.close()
    return took


def bench(latency: float, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name, upstream(latency) as far:
        floor = asyncio.run(bare(f"{far.base_url}/chat/completions", count))
        cold, warm = asyncio.run(through_the_runner(Path(name), far, count))
    ideal = (
        {
            "cold_to_ideal": cold / (count / IN_FLIGHT * latency),
            "warm_to_ideal": warm / (count / IN_FLIGHT * latency),
        }
        if latency
        else {}
    )
    return {
        "latency_s": latency,
        "items": count,
        "bare_s": floor,
        "cold_s": cold,
        "warm_s": warm,
        "cold_to_bare": cold / floor,
        "warm_to_bare": warm / floor,
        **ideal,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def main(smoke: bool) -> None:
    for latency, count in ((0.0, 200), (0.02, 200)) if smoke else ((0.0, 1000), (0.2, 1000), (0.0, 20_000)):
        print(
            json.dumps({name: round(value, 3) for name, value in bench(latency, count).items()}), flush=True
        )


if __name__ == "__main__":
    asyncio.run(stub(float(sys.argv[1])))
