"""
What `vllm serve` looks like from outside: its options, its OpenAI wire for chats, and its run-time adapters.

It answers with the name of the model and the question. Each start is a line of its log: the process, a process
that it started itself, and what it was told.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

DIES = "die"  # a question that ends the process, once
STICKS = "stick"  # a question that is begun to be answered and never finished


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--served-model-name")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--load-format", choices=["safetensors"])
    parser.add_argument("--enable-auto-tool-choice", action="store_true")
    parser.add_argument("--tool-call-parser", choices=["hermes"])
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--max-lora-rank", type=int, default=16)
    parser.add_argument("--lora-modules", nargs="+", default=[])
    return parser.parse_args()


def refused(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "BadRequestError"}}, status)


class Program:
    def __init__(self, told: argparse.Namespace, log: Path) -> None:
        self.told, self.log = told, log
        self.models = {told.served_model_name, *(each.partition("=")[0] for each in told.lora_modules)}

    def known(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {os.environ['VLLM_API_KEY']}"

    async def health(self, request: Request) -> Response:
        return Response()

    async def load(self, request: Request) -> Response:
        body = await request.json()
        if not self.known(request) or os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") != "1":
            return refused(401, "unauthorized")
        rank = json.loads((Path(body["lora_path"]) / "adapter_config.json").read_text())["r"]
        if not self.told.enable_lora or rank > self.told.max_lora_rank:
            return refused(400, "there is no room for this rank")
        self.models.add(body["lora_name"])
        return PlainTextResponse("Success")

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        if not self.known(request):
            return refused(401, "unauthorized")
        if body["model"] not in self.models:
            return refused(404, f"The model `{body['model']}` does not exist.")
        question = body["messages"][-1]["content"]
        if question == DIES and not (once := self.log.with_suffix(".died")).exists():
            once.touch()
            os._exit(1)
        text = f"{body['model']}: {question}"
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        if body.get("stream"):
            return StreamingResponse(self.events(text, usage), media_type="text/event-stream")
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return JSONResponse({"object": "chat.completion", "choices": [choice], "usage": usage})

    async def events(self, text: str, usage: dict[str, int]) -> AsyncIterator[bytes]:
        def event(delta: dict[str, str], finish: str | None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return b"data: " + json.dumps({"choices": [choice], "usage": usage}).encode() + b"\n\n"

        yield event({"content": text}, None)
        if text.endswith(STICKS):
            await asyncio.Event().wait()
        yield event({}, "stop")
        yield b"data: [DONE]\n\n"


def main() -> None:
    told = options()
    if not (told.model / "config.json").exists():
        sys.exit("this is no model")
    log = Path(os.environ["STANDIN_LOG"])
    helper = subprocess.Popen(["sleep", "1000"])
    with log.open("a") as lines:
        lines.write(json.dumps({"pid": os.getpid(), "helper": helper.pid, "argv": sys.argv[1:]}) + "\n")
    program = Program(told, log)
    routes = [
        Route("/health", program.health),
        Route("/v1/chat/completions", program.chat, methods=["POST"]),
        Route("/v1/load_lora_adapter", program.load, methods=["POST"]),
    ]
    uvicorn.run(Starlette(routes=routes), host=told.host, port=told.port, log_level="warning")


if __name__ == "__main__":
    main()
