"""
The models that are loaded, least recently used first, within a budget of bytes.

Only safetensors in local folders are ever read, and no code that lies beside them. A LoRA folder is its
base plus a thin layer: both are served from one copy of the base.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from reconciler.selfhosted.engine import folders
from reconciler.selfhosted.engine.grammar import Grammars
from reconciler.selfhosted.engine.network import Base, Served
from reconciler.selfhosted.engine.values import EngineError
from reconciler.selfhosted.training import eyes

ATTENTION = {"full_attention", "sliding_attention"}


class Shelf:
    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._served: OrderedDict[str, Served] = OrderedDict()
        self._bases: dict[str, Base] = {}
        self._names = 0
        self._device = "cuda" if torch.cuda.is_available() else "cpu"

    def get(self, folder: str, busy: Collection[str]) -> Served:
        """The model in `folder`, loaded if need be; models in `busy` are not put away for it."""
        if folder in self._served:
            self._served.move_to_end(folder)
            return self._served[folder]
        path = Path(folder)
        if not path.is_dir():
            raise EngineError("model_not_found", f"there is no model folder {folder}")
        try:
            adapter = folders.is_adapter(path)
            self._make_room(_weights(path), busy)
            served = self._adapter(path, busy) if adapter else self._whole(path)
            served.prove()
        except EngineError:
            self._put_away_orphans()
            raise
        # a folder that is not whole makes four libraries raise what they like; tokenizers a bare Exception
        except Exception as error:
            self._put_away_orphans()
            raise EngineError("model_unloadable", f"{folder} cannot be loaded: {_sentence(error)}") from error
        self._served[folder] = served
        return served

    def held(self) -> int:
        """Bytes of weights that are loaded."""
        adapters = sum(served.size for served in self._served.values() if served.adapter)
        return adapters + sum(base.size for base in self._bases.values())

    def _whole(self, path: Path) -> Served:
        return _served(path, self._base(path), None, 0)

    def _base(self, path: Path) -> Base:
        key = str(path.resolve())
        if key not in self._bases:
            self._bases[key] = _load(path, self._device)
        return self._bases[key]

    def _adapter(self, path: Path, busy: Collection[str]) -> Served:
        from peft import (
            PeftConfig,
            PeftModel,
            PeftType,
        )  # a second of imports that a whole model does not need

        config = PeftConfig.from_pretrained(str(path))
        if config.peft_type != PeftType.LORA:
            raise ValueError(f"adapters of type {config.peft_type} are not served, only LoRA")
        where = folders.base_folder(path, config.base_model_name_or_path)
        if str(where) not in self._bases:
            self._make_room(_weights(path) + _weights(where), busy)
        base = self._base(where)
        self._names += 1
        name = f"adapter{self._names}"
        if base.peft is None:
            base.adapted(PeftModel.from_pretrained(base.network, str(path), adapter_name=name), name)
        else:
            base.peft.load_adapter(str(path), adapter_name=name)
            base.adapted(base.peft, name)
        base.network.eval()
        return _served(path, base, name, _weights(path), where)

    def _make_room(self, more: int, busy: Collection[str]) -> None:
        for folder in [folder for folder in self._served if folder not in busy]:
            if self.held() + more <= self._memory:
                return
            served = self._served.pop(folder)
            if served.adapter:
                served.base.forget(served.adapter)
            self._put_away_orphans()

    def _put_away_orphans(self) -> None:
        """Drop what a failed or removed model leaves: adapters nobody serves, then bases nobody uses."""
        for key, base in list(self._bases.items()):
            mine = [served for served in self._served.values() if served.base is base]
            for name in base.adapters - {served.adapter for served in mine}:
                base.forget(name)
            if not mine:
                del self._bases[key]


def _weights(path: Path) -> int:
    """Bytes of weights in a folder; `model_unloadable` when it has none that are safe to read."""
    sizes = [file.stat().st_size for file in path.glob("*.safetensors")]
    if not sizes:
        raise EngineError(
            "model_unloadable", f"{path} has no .safetensors weights, and no other format is read"
        )
    return sum(sizes)


def _load(path: Path, device: str) -> Base:
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
    if not kinds <= ATTENTION or config.is_encoder_decoder:
        raise ValueError(f"the engine does not serve models of type {config.model_type}")
    of = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    network, loading = of.from_pretrained(
        path,
        config=config,
        dtype="auto",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise ValueError(f"its weights lack {len(missing)} tensors, {missing[0]} for one")
    if network.dtype == torch.float16 and device == "cpu":
        network = network.float()  # CPUs compute float16 slowly or not at all
    network = network.to(device).eval().requires_grad_(False)
    return Base(network, sum(weight.nbytes for weight in network.parameters()))


def _served(path: Path, base: Base, adapter: str | None, size: int, weights: Path | None = None) -> Served:
    weights = weights or path
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ValueError("its tokenizer has no tokenizer.json")
    if not tokenizer.chat_template:
        raise ValueError("it has no chat template; add chat_template.jinja")
    generation = base.network.generation_config
    ends: set[int] = set()
    for end in (
        tokenizer.eos_token_id,
        generation.eos_token_id,
        base.network.config.get_text_config().eos_token_id,
    ):
        ends.update(end if isinstance(end, list) else [] if end is None else [end])
    context = getattr(base.network.config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (context, tokenizer.model_max_length) if limit]
    return Served(
        grammars=Grammars(tokenizer, frozenset(ends)),
        folder=str(path),
        base=base,
        adapter=adapter,
        size=size,
        tokenizer=tokenizer,
        ends=frozenset(ends),
        context=int(min(limits)),
        longest_answer=generation.max_new_tokens,
        eyes=eyes.of(weights, base.network.config, tokenizer),
    )


def _sentence(error: BaseException) -> str:
    """The first line of what a loader says, in one line of bounded length. Pure."""
    lines: list[Any] = str(error).strip().splitlines() or [type(error).__name__]
    return str(lines[0])[:300].rstrip(" .")
