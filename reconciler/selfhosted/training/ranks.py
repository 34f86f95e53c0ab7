"""
The processes of one job among themselves: `rank` 0 tells and writes, the others compute their share.

All of them run the same program and must agree on every decision that a clock or a signal brings about,
or one would wait forever for a step that another never takes. Alone, everything here answers at once.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed

from reconciler.selfhosted.training import hardware

PATIENCE = timedelta(hours=2)  # of one for another; a dead one is noticed by who launched them

T = TypeVar("T")


class NotNeeded(Exception):
    """The job goes on without this process."""


def launched() -> int:
    """How many of us were started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(meeting: Path, processes: int) -> None:
    """
    Meet the other processes at this file, which must be new; NotNeeded if they can do without us.

    Who we are stands in `RANK`, as torchrun has it. Transformers finds the group that is made here.
    """
    rank = int(os.environ.get("RANK", "0"))
    if rank >= processes:
        raise NotNeeded
    os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    if processes == 1:
        os.environ.pop("LOCAL_RANK", None)  # Accelerate's sign of several
        return
    distributed.init_process_group(
        hardware.backend(hardware.look()),
        init_method=meeting.as_uri(),
        rank=rank,
        world_size=processes,
        timeout=PATIENCE,
    )


def count() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def number() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def agreed(wish: bool) -> bool:
    """Whether any of us wishes it."""
    if count() == 1:
        return wish
    wishes = torch.tensor([int(wish)])
    distributed.all_reduce(wishes, distributed.ReduceOp.MAX)
    return bool(wishes.item())


def wait() -> None:
    """Return when all are here."""
    agreed(False)


def share(things: list[T]) -> list[T]:
    """Our part of them; the parts of all, by rank, are all of them."""
    size = -(-len(things) // count())
    return things[number() * size : (number() + 1) * size]


def gathered(ours: list[T]) -> list[T]:
    """What all have, by rank."""
    if count() == 1:
        return ours
    parts: list[list[T]] = [[]] * count()
    distributed.all_gather_object(parts, ours)
    return [thing for part in parts for thing in part]
