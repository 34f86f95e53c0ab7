"""
`python -m reconciler.selfhosted serve | keys`: the platform as a process, and the keys to it.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m reconciler.selfhosted", description="The self-hosted platform."
    )
    commands = top.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve a data folder")
    _add_store(serve)
    serve.add_argument("--uds", type=Path, metavar="PATH", help="listen on one more Unix socket")
    serve.add_argument("--host", help="listen on TCP; beyond loopback a key must exist")
    serve.add_argument("--port", type=int, default=0, help="TCP port; 0 picks a free one (with --host)")
    serve.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a Host header to accept"
    )
    serve.add_argument("--allow-model-sources", action="store_true", help="let TCP callers register models")
    serve.add_argument(
        "--allow-private-webhooks",
        action="store_true",
        help="send webhooks to private addresses too, as a server on loopback does",
    )
    serve.add_argument(
        "--upstreams",
        type=Path,
        metavar="FILE",
        help="YAML list of servers that have other models: pattern, base_url, api_key_env, model, concurrency",
    )
    serve.add_argument(
        "--upstream-cache",
        type=int,
        default=1024,
        metavar="MIB",
        help="keep so much of what upstreams answered to seeded or greedy eval and judge requests; 0: nothing",
    )
    serve.add_argument(
        "--embedding-model",
        default="tiny-chat",
        metavar="NAME",
        help="the model whose embeddings `cosine` compares",
    )
    serve.add_argument(
        "--unsafe-graders",
        action="store_true",
        help="run python graders as plain processes of this user, without any isolation",
    )
    serve.add_argument(
        "--engine",
        choices=("auto", "transformers", "vllm"),
        default="auto",
        help="what generates text; auto: vllm where it is installed and there is a GPU, else our own",
    )
    serve.add_argument(
        "--vllm",
        default="vllm serve",
        metavar="COMMAND",
        help="starts vllm, with options of its own if you like: 'vllm serve --gpu-memory-utilization 0.5'",
    )
    serve.add_argument("--organization", default="local", help="goes into the names of tuned models")
    serve.add_argument("--jobs", type=int, default=1, metavar="N", help="jobs that train at once")
    serve.add_argument(
        "--processes",
        type=_positive,
        metavar="N",
        help="processes that train one job together; default: one for each GPU, one where there is none",
    )
    serve.add_argument("--trainer", metavar="COMMAND", help="train with this command instead of our own")
    serve.add_argument(
        "--parent-death", type=int, metavar="PID", help="stop when this process, which started us, is gone"
    )
    serve.add_argument("--log", type=Path, metavar="FILE", help="append the log to a file instead of stderr")
    keys = commands.add_parser("keys", help="add, list and revoke API keys").add_subparsers(
        dest="verb", required=True
    )
    for verb, text in (
        ("add", "make a key and print it once"),
        ("list", "names"),
        ("revoke", "forget a key"),
    ):
        one = keys.add_parser(verb, help=text)
        _add_store(one)
        if verb != "list":
            one.add_argument("name")
        if verb == "add":
            one.add_argument("--project", default="default", help="whose objects the key sees")
    return top


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _add_store(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder of everything we keep"
    )
    command.add_argument("--store", metavar="URL", help="SQLAlchemy URL; default: SQLite in the data folder")


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    # Imported late: --help should not wait for the server's libraries. They stay, so nothing is collected
    # while they are read (a tenth of the start), nor looked at by any later collection.
    gc.disable()
    from sqlalchemy.exc import DatabaseError

    from reconciler.selfhosted import serve

    gc.freeze()
    gc.enable()

    try:
        return serve.keys(asked) if asked.command == "keys" else serve.serve(asked)
    except serve.Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename or asked.data}: {error.strerror or error}", file=sys.stderr)
    except DatabaseError as error:
        print(f"error: the store of {asked.data} cannot be used: {error.orig}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
