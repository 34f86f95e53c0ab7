"""
Loading what is trained. Weights come from safetensors in a local folder, code never comes with them, and
a model whose weights are incomplete is refused instead of being filled up at random.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    set_seed,
)

from reconciler.selfhosted.training import eyes, hardware
from reconciler.selfhosted.training.bases import Base
from reconciler.selfhosted.training.eyes import Eyes
from reconciler.selfhosted.training.failures import Failure
from reconciler.selfhosted.training.job import Full, Lora

_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def tokenizer(base: Base) -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template."""
    try:
        found = AutoTokenizer.from_pretrained(base.tokens, **_LOCAL)
    except (OSError, ValueError, KeyError) as error:
        raise _broken("its tokenizer cannot be loaded") from error
    if not found.is_fast:
        raise _broken("its tokenizer has no fast form (tokenizer.json)")
    if not found.chat_template:
        raise _broken("it has no chat template")
    if found.pad_token is None:
        found.pad_token = found.eos_token
    return found


def max_length(base: Base) -> int:
    """The longest example, in tokens: what the folder recommends, within what the model can read."""
    return min(base.defaults.max_length, context(base))


def context(base: Base) -> int:
    """How many tokens the model can read; what the folder recommends where its config does not say."""
    config = AutoConfig.from_pretrained(base.weights, **_LOCAL).get_text_config()
    return int(getattr(config, "max_position_embeddings", base.defaults.max_length))


def model(base: Base, tuning: Lora | Full, seed: int) -> Any:
    """The model with the parameters to tune marked, in the precision it is tuned in."""
    full = isinstance(tuning, Full)
    here = hardware.look()
    dtype = getattr(torch, hardware.precision(here, full=full))
    loaded = whole(base.weights, dtype, hardware.attention(here, full=full))
    set_seed(seed)  # fresh adapters start at random
    if base.adapter:
        adapted = PeftModel.from_pretrained(loaded, base.adapter, is_trainable=not full)
        return adapted.merge_and_unload().requires_grad_(True) if full else adapted
    if isinstance(tuning, Full):
        return loaded
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        target_modules=tuning.target,
        base_model_name_or_path=str(base.weights),
    )
    adapted = get_peft_model(loaded, config)
    targets = adapted.peft_config["default"]
    targets.target_modules = sorted(targets.target_modules)  # a set would be saved in any order
    return adapted


def eyes_of(base: Base, tokenizer: PreTrainedTokenizerFast) -> Eyes:
    """How the base looks at pictures. Failure when it cannot, or in a way that we do not know."""
    try:
        found = eyes.of(base.weights, AutoConfig.from_pretrained(base.weights, **_LOCAL), tokenizer)
    except (OSError, ValueError) as error:
        raise _broken("what it does with pictures cannot be loaded, or is not known here") from error
    if found is None:
        raise _broken("it reads text only")
    return found


def kept_rank(base: Base, tuning: Lora | Full) -> int | None:
    """The rank of the adapter that is tuned further, when it is not the rank that was asked for."""
    if base.adapter is None or isinstance(tuning, Full):
        return None
    rank = LoraConfig.from_pretrained(str(base.adapter)).r
    return rank if rank != tuning.rank else None


def whole(folder: Path, dtype: torch.dtype, attention: str = "sdpa") -> Any:
    """The model in this folder, every weight of it. Failure when one is missing or cannot be read."""
    try:
        config = AutoConfig.from_pretrained(folder, **_LOCAL)
        of = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
        found, report = of.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            output_loading_info=True,
            **_LOCAL,
        )
    except (ValueError, KeyError, SafetensorError) as error:
        raise _broken("its weights or its config cannot be loaded") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        missing = len(report["missing_keys"]) + len(report["mismatched_keys"])
        raise _broken(f"{missing} of its tensors are missing or have another shape than its config says")
    return found


def _broken(why: str) -> Failure:
    return Failure("invalid_model", f"the base model cannot be trained: {why}")
