"""
A loaded model as a batch sees it: `prefill` prompts, then `step` all rows by one token.

Prompts are prefilled without their last token and right padded, so causal attention alone keeps padding out
and no logits are needed: the last prompt token goes through the first `step`, together with rows that are
further on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from reconciler.selfhosted.engine.grammar import Grammars
from reconciler.selfhosted.engine.slots import Slots
from reconciler.selfhosted.engine.values import EngineError
from reconciler.selfhosted.training.eyes import Eyes


class Base:
    """The weights of one base model and the LoRA adapters that lie over them; one adapter acts at a time."""

    def __init__(self, network: Any, size: int) -> None:
        self.network = network
        self.size = size  # bytes
        self.peft: Any = None  # the network's PEFT wrapper, once an adapter came
        self.adapters: set[str] = set()
        self._acting: str | None = None
        text = network.config.get_text_config()
        kinds = set(getattr(text, "layer_types", None) or ())
        self.layers: int = text.num_hidden_layers
        self.window: int | None = getattr(text, "sliding_window", None)
        self.mixed = "sliding_attention" in kinds
        self.eager = text._attn_implementation == "eager"
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self.token_size: int = 2 * self.layers * heads * head * network.dtype.itemsize  # bytes of cache

    def act_as(self, adapter: str | None) -> None:
        """Let `adapter`, or the bare base, compute the next forward passes."""
        if self.peft is None or adapter == self._acting:
            return
        if adapter is None:
            self.peft.base_model.disable_adapter_layers()
        else:
            self.peft.base_model.enable_adapter_layers()
            self.peft.set_adapter(adapter, inference_mode=True)
        self._acting = adapter

    def adapted(self, peft: Any, adapter: str) -> None:
        """`adapter` was just loaded into `peft`; nothing acts until the next `act_as`."""
        self.peft = peft
        self.adapters.add(adapter)
        self._acting = ""

    def forget(self, adapter: str) -> None:
        self.act_as(None)  # PEFT would otherwise choose the next acting adapter by itself
        self.peft.delete_adapter(adapter)
        self.adapters.discard(adapter)
        self._acting = ""

    def mask(self, positions: Any, keys: Any) -> Any:
        """What each row's new token attends to: `[rows, 1, 1, keys]`, or one such mask per layer type."""
        past = keys[None, :] <= positions[:, None]
        full = self._mask(past)
        if not self.window or not (self.mixed or self._all_sliding):
            return full
        sliding = self._mask(past & (keys[None, :] > positions[:, None] - self.window))
        return {"full_attention": full, "sliding_attention": sliding} if self.mixed else sliding

    @property
    def _all_sliding(self) -> bool:
        # as in Mistral: a window and no list of layer types
        return not getattr(self.network.config.get_text_config(), "layer_types", None)

    def _mask(self, allowed: Any) -> Any:
        allowed = allowed[:, None, None, :]
        if not self.eager:
            return allowed
        lowest = torch.finfo(self.network.dtype).min
        return torch.zeros(allowed.shape, dtype=self.network.dtype, device=allowed.device).masked_fill(
            ~allowed, lowest
        )


@dataclass(frozen=True)
class Served:
    """A model folder that is loaded: a base, perhaps an adapter, a tokenizer and its limits."""

    folder: str
    base: Base
    adapter: str | None
    size: int  # bytes, without the base's when this is an adapter
    tokenizer: Any
    grammars: Grammars
    ends: frozenset[int]  # tokens that end an answer
    context: int  # tokens of prompt and answer together
    longest_answer: int | None  # tokens, when the model's makers set one
    eyes: Eyes | None = None  # of a model that sees

    def slots(self) -> Slots:
        return Slots(self.base.layers, self.base.network.device)

    def decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.backend_tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def prefill(self, prompts: Sequence[Sequence[int]], slots: Slots, pixels: Sequence[Any] = ()) -> None:
        """Let `prompts` join `slots`, all but their last tokens; `pixels` are their pictures, in their order."""
        heads = [list(prompt[:-1]) for prompt in prompts]
        widest = max(map(len, heads))
        cache = None
        if widest:
            self.base.act_as(self.adapter)
            tokens = torch.tensor([head + [0] * (widest - len(head)) for head in heads], device=slots.device)
            cache = DynamicCache()
            like = {"device": slots.device, "dtype": self.base.network.dtype}
            seen = {"pixel_values": torch.cat(list(pixels)).to(**like)} if pixels else {}
            self.base.network(
                input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1, **seen
            )
        slots.join(cache, [len(head) for head in heads])

    def step(self, tokens: Sequence[int], slots: Slots) -> Any:
        """Feed one token per row; the float32 logits `[rows, vocabulary]` of the next one."""
        self.base.act_as(self.adapter)
        positions, keys = slots.advance()
        out = self.base.network(
            input_ids=torch.tensor(tokens, device=slots.device)[:, None],
            attention_mask=self.base.mask(positions, keys),
            position_ids=positions[:, None],
            past_key_values=slots.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()

    def prove(self) -> None:
        """
        Compare our way through the network with its own on a few tokens; `model_unloadable` when they differ.

        It finds architectures whose attention our masks and slots do not fit, and weights that are not
        numbers.
        """
        kind = self.base.network.config.model_type
        try:
            ours, whole = self._both_ways()
        # code that was not written for our cache and masks fails as it likes
        except Exception as error:
            reason = f"the engine does not serve models of type {kind}: {error}"
            raise EngineError("model_unloadable", f"{self.folder}: {reason}") from error
        if not bool(torch.isfinite(whole).all()):
            raise EngineError("model_unloadable", f"{self.folder}: the weights do not give finite numbers")
        tolerance = 1e-3 if self.base.network.dtype == torch.float32 else 5e-2
        if not float((ours - whole).abs().max()) <= tolerance * max(1.0, float(whole.abs().max())):
            raise EngineError(
                "model_unloadable", f"{self.folder}: the engine does not serve models of type {kind}"
            )

    def _both_ways(self) -> tuple[Any, Any]:
        """The logits after a few tokens, by our steps and by one plain pass."""
        tokens = [3, 4, 5, 6, 7]
        slots = self.slots()
        self.prefill([tokens, tokens[:1]], slots)  # beside a row of another length
        ours = self.step([tokens[-1], tokens[0]], slots)[0]
        whole = self.base.network(input_ids=torch.tensor([tokens], device=slots.device)).logits[0, -1].float()
        return ours, whole
