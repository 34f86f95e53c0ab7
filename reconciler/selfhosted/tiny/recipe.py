"""
Make the packaged model from nothing: `python -m reconciler.selfhosted.tiny.recipe --out DIR`.

A tokenizer is trained on the text of `corpus`, then a small Llama decoder on endless fresh
chats of it. The loss lies on what the assistant says; the rest of the text counts a little,
so that the model also knows what people write. Seeded; about four minutes on two cores.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import corpus

HERE = Path(__file__).parent
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
CALLS = ["<tool_call>", "</tool_call>"]  # ordinary text, so that a decoded answer still shows them
VOCABULARY = 512
CONTEXT = 1024  # tokens


class Course(NamedTuple):
    """How long and how hard the decoder is trained."""

    steps: int = 1500
    batch: int = 32
    matrix_rate: float = 0.02  # Muon
    other_rate: float = 4e-3  # AdamW
    aside: float = 0.02  # weight of a token that the assistant did not say


def train_tokenizer(rng: random.Random) -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every digit stands alone, so that numbers can be copied."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CALLS),
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (message["content"] for _ in range(20_000) for message in corpus.chat(rng)), trainer
    )
    tokenizer.add_tokens([AddedToken(call, normalized=False) for call in CALLS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=SPECIAL[2:],
        chat_template=(HERE / "chat_template.jinja").read_text(encoding="utf-8"),
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def blank_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A decoder of 0.7 M parameters with random weights."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def encode(
    tokenizer: PreTrainedTokenizerFast, chat: corpus.Chat, aside: float
) -> tuple[list[int], list[float]]:
    """Token ids and the weight of each in the loss."""
    ids: list[int] = []
    weights: list[float] = []
    for message in chat:
        said = [*tokenizer.encode(message["content"], add_special_tokens=False), tokenizer.eos_token_id]
        ids += [tokenizer.convert_tokens_to_ids(f"<|{message['role']}|>"), *said]
        weights += [aside] + [1.0 if message["role"] == "assistant" else aside] * len(said)
    return ids, weights


def batches(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, course: Course
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (ids, weights), each [batch, length]; chats of similar length share a batch."""
    while True:
        pool = sorted(
            (encode(tokenizer, corpus.chat(rng), course.aside) for _ in range(course.batch * 32)),
            key=lambda row: len(row[0]),
        )
        groups = [pool[at : at + course.batch] for at in range(0, len(pool), course.batch)]
        rng.shuffle(groups)
        for group in groups:
            longest = len(group[-1][0])
            ids = [row + [tokenizer.pad_token_id] * (longest - len(row)) for row, _ in group]
            weights = [row + [0.0] * (longest - len(row)) for _, row in group]
            yield torch.tensor(ids), torch.tensor(weights)


def optimizers(model: LlamaForCausalLM, course: Course) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms (Jordan 2024)."""
    named = list(model.named_parameters())
    matrices = [weight for name, weight in named if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in named if weight.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=course.matrix_rate, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(others, lr=course.other_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rng: random.Random, course: Course
) -> float:
    """Train in place with linearly falling rates; the last loss."""
    chosen = optimizers(model, course)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(one, lambda step: 1 - step / course.steps) for one in chosen
    ]
    mean = 0.0
    model.train()
    for step, (ids, weights) in zip(range(course.steps), batches(tokenizer, rng, course), strict=False):
        logits = model(input_ids=ids).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for one, schedule in zip(chosen, schedules, strict=True):
            one.step()
            schedule.step()
            one.zero_grad()
        mean = loss.item() if step == 0 else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 99:
            print(f"step {step + 1}/{course.steps}: loss {mean:.3f}", file=sys.stderr)
    return mean


def write(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """A model folder that is complete without this package."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.eval().float().save_pretrained(folder)
    GenerationConfig(
        max_new_tokens=128, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(folder)
    for name in ("reconciler.json", "MODEL_CARD.md", "LICENSE"):
        if folder.resolve() != HERE:
            shutil.copyfile(HERE / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description="make the packaged model tiny-chat")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=Course().steps)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    tokenizer = train_tokenizer(random.Random(asked.seed))
    model = blank_model(tokenizer)
    loss = train(model, tokenizer, random.Random(asked.seed + 1), Course(steps=asked.steps))
    write(asked.out, model, tokenizer)
    print(f"wrote {asked.out}: loss {loss:.3f}")


if __name__ == "__main__":
    main()
