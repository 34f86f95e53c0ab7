"""
What the machine has, and what follows from it. Everything but `gpus` and `look` is pure.

On a GPU a model computes in bfloat16 where the GPU can, and pays for no padding where FlashAttention is
installed: then the rows of a micro-batch stand one behind the other in a single line. That is packing which
leaves a batch as many rows as were asked for. Full tuning keeps its weights in float32 and is left to
PyTorch's own attention, for FlashAttention reads half precision only.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

LARGE = 500_000_000  # parameters from which activations are computed twice instead of being kept


class Hardware(NamedTuple):
    """`gpus` that this job may use; 0 is a CPU."""

    gpus: int
    bf16: bool = False  # they compute in bfloat16
    flash: bool = False  # FlashAttention is installed


def gpus() -> int:
    """How many this process may use. It asks the driver and wakes none of them."""
    import torch

    return int(torch.cuda.device_count())


def look() -> Hardware:
    """Once `CUDA_VISIBLE_DEVICES` is settled, for from here on it is not read again."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    if not torch.cuda.is_available():
        return Hardware(0)
    return Hardware(torch.cuda.device_count(), torch.cuda.is_bf16_supported(), is_flash_attn_2_available())


def processes(asked: int | Literal["auto"], gpus: int) -> int:
    """One for each GPU, one on a CPU; never more than there are GPUs, for none is shared."""
    if asked == "auto":
        return max(1, gpus)
    return min(asked, gpus) if gpus else asked


def threads(asked: int | None, processes: int, cores: int) -> int | None:
    """Of each process; None leaves the choice to the libraries."""
    if processes == 1:
        return asked
    return max(1, (asked or cores) // processes)


def devices(visible: str | None, gpus: int, processes: int) -> str:
    """`CUDA_VISIBLE_DEVICES` for so many processes: Transformers would spread one over all that it sees."""
    names = visible.split(",") if visible is not None else [str(number) for number in range(max(1, gpus))]
    return ",".join(names[:processes])


def backend(hardware: Hardware) -> str:
    """How processes talk: numbers of the GPUs by NCCL, everything else by Gloo."""
    return "cpu:gloo,cuda:nccl" if hardware.gpus else "gloo"


def precision(hardware: Hardware, *, full: bool) -> Literal["float32", "bfloat16"]:
    """Of the weights. Those that are tuned are kept in full precision, so that small steps count."""
    return "bfloat16" if hardware.bf16 and not full else "float32"


def attention(hardware: Hardware, *, full: bool) -> Literal["sdpa", "flash_attention_2"]:
    flash = hardware.flash and precision(hardware, full=full) == "bfloat16"
    return "flash_attention_2" if flash else "sdpa"


def padding_free(hardware: Hardware, *, full: bool) -> bool:
    """Whether rows stand one behind the other; only FlashAttention skips what lies between two of them."""
    return attention(hardware, full=full) == "flash_attention_2"


def arguments(hardware: Hardware, parameters: int) -> dict[str, Any]:
    """What of it TRL's trainers are told."""
    return {
        "use_cpu": not hardware.gpus,
        "bf16": hardware.bf16,
        "dataloader_pin_memory": bool(hardware.gpus),
        "gradient_checkpointing": parameters > LARGE,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},  # the other way breaks several processes
        "ddp_find_unused_parameters": True,  # a batch without pictures does not need the eyes
    }
