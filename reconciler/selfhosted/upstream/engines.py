"""
Which engine a server has: our own process, or vLLM where there is a GPU for it; and upstreams beside it.

What is not chosen is not imported: an HTTP client alone takes a fifth of a second.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from reconciler.selfhosted import context
from reconciler.selfhosted.engine import Engine
from reconciler.selfhosted.upstream.upstreams import Upstream

GPUS = ("/dev/nvidiactl", "/dev/kfd")
HIDDEN = ("", "-1")  # CUDA_VISIBLE_DEVICES that shows none


def own(asked: str, vllm: str, data: Path, socket: Path | None, environ: Mapping[str, str]) -> context.Engine:
    """The engine for models in folders: `auto`, `transformers` or `vllm`. Raises ValueError without a vllm."""
    ours = Engine(socket, log=data / "engine.log")
    if asked == "transformers" or (asked == "auto" and not has_vllm(environ)):
        return ours
    command = shlex.split(vllm)
    if not command or shutil.which(command[0]) is None:
        raise ValueError(f"there is no program {vllm!r} to be the engine; install vllm, or name it by --vllm")
    from reconciler.selfhosted.upstream.vllm import Vllm

    return Vllm(ours, command, log=data / "vllm.log")


def has_vllm(environ: Mapping[str, str]) -> bool:
    """Whether vLLM is installed and there is a GPU for it to see."""
    hidden = environ.get("CUDA_VISIBLE_DEVICES") in HIDDEN
    gpu = not hidden and any(map(os.path.exists, GPUS))
    return gpu and importlib.util.find_spec("vllm") is not None


def everywhere(own: context.Engine, data: Path, elsewhere: Sequence[Upstream], cache: int) -> context.Engine:
    """The engine with the upstreams, whose answers fill a cache of so many bytes."""
    if not elsewhere:
        return own
    from reconciler.selfhosted.upstream.upstreamcache import Cache
    from reconciler.selfhosted.upstream.upstreamclient import Everywhere, Upstreams

    return Everywhere(own, Upstreams(elsewhere, Cache(data / "upstreams.db", cache)))
