"""A model small enough to train within a test: a random Llama with a tokenizer trained on a few sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MARKED = (
    "{% if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}"
    "{% endfor %}"
    "<|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
UNMARKED = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
ROLES = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
COLOURS = ["red", "green", "blue", "black", "white", "brown", "grey", "pink"]
THINGS = ["door", "car", "hat", "cup", "ball", "bird", "boat", "lamp"]


def row(i: int) -> dict[str, Any]:
    """An example of a task that a few steps teach: say the colour, then the thing."""
    colour, thing = COLOURS[i % 8], THINGS[(i // 8 + i) % 8]
    return {
        "messages": [
            {"role": "system", "content": "Say the colour and the thing."},
            {"role": "user", "content": f"There is a {thing}, and it is {colour}."},
            {"role": "assistant", "content": f"{colour} {thing}"},
        ]
    }


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def tokenizer(template: str = MARKED) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=ROLES,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bare.train_from_iterator([m["content"] for i in range(64) for m in row(i)["messages"]], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|end|>", pad_token="<|end|>")
    made.chat_template = template
    return made


def base_model(folder: Path, max_length: int = 128, **config: Any) -> Path:
    """A model folder with random weights, the same on every call."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tokenizer()
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": max_length,
        "tie_word_embeddings": True,
    }
    eos = made.eos_token_id
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(made), eos_token_id=eos, bos_token_id=None, **sizes | config)
    )
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    defaults = {"learning_rate": {"full": 1e-2, "lora": 1e-2}, "max_length": max_length, "batch_size": 8}
    (folder / "reconciler.json").write_text(json.dumps({"defaults": defaults}))
    return folder
