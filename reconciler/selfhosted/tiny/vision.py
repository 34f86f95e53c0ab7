"""
Make a model that sees, from the packaged one: `python -m reconciler.selfhosted.tiny.vision --out DIR`.

A LLaVA: the packaged decoder, a small CLIP tower that cuts a picture of 32 x 32 pixels into 16 patches, and
a projector between them. It learns to name generated shapes and colours and nothing else, so that vision
tuning has something to start from. Seeded; a minute or two on two cores, and 1.9 MB.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from reconciler.selfhosted.tiny.shapes import SIDE, picture

HERE = Path(__file__).parent
IMAGE = "<image>"
PATCH = 8  # pixels
# A quarter of what suits the decoder alone: at its rate the eyes forget shapes.
DEFAULTS = {"learning_rate": {"full": 5e-4, "lora": 2.5e-3}, "max_length": 512, "batch_size": 16}
QUESTIONS = ("What is it?", "What do you see?", "Name it.")


def blank_model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """The packaged decoder with eyes that have seen nothing yet."""
    decoder = AutoModelForCausalLM.from_pretrained(HERE, use_safetensors=True, dtype=torch.float32)
    decoder.resize_token_embeddings(len(tokenizer))
    tower = CLIPVisionConfig(
        hidden_size=96, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, projection_dim=96,
        image_size=SIDE, patch_size=PATCH,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=tower,
        text_config=decoder.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(decoder.model.state_dict())
    model.tie_weights()
    model.config.text_config._name_or_path = ""  # a folder of the machine that made it
    return model


def batch(
    tokenizer: PreTrainedTokenizerFast, processor: CLIPImageProcessorPil, rng: random.Random, size: int
) -> dict[str, torch.Tensor]:
    """Pictures with a question and the answer to learn."""
    seen = [picture(rng) for _ in range(size)]
    eyes = IMAGE * (SIDE // PATCH) ** 2
    asked = [tokenizer.encode(f"<|user|>{eyes}{rng.choice(QUESTIONS)}<|end|><|assistant|>") for _ in seen]
    said = [tokenizer.encode(f"a {one.colour} {one.shape}<|end|>") for one in seen]
    longest = max(len(a) + len(b) for a, b in zip(asked, said, strict=True))
    ids = torch.full((size, longest), tokenizer.pad_token_id)
    labels = torch.full((size, longest), -100)
    for row, (a, b) in enumerate(zip(asked, said, strict=True)):
        ids[row, : len(a) + len(b)] = torch.tensor(a + b)
        labels[row, len(a) : len(a) + len(b)] = torch.tensor(b)
    pixels = processor(images=[one.image for one in seen], return_tensors="pt")["pixel_values"]
    return {"input_ids": ids, "labels": labels, "pixel_values": pixels}


def optimizers(model: LlavaForConditionalGeneration) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the eyes (Jordan 2024), AdamW for everything else."""
    language = list(model.model.language_model.parameters())
    known = {id(weight) for weight in language}
    eyes = {name: weight for name, weight in model.named_parameters() if id(weight) not in known}
    matrices = [weight for name, weight in eyes.items() if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in eyes.items() if weight.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(
            [{"params": others, "lr": 2e-3}, {"params": language, "lr": 1e-3}], weight_decay=0.0
        ),
    ]


def train(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    processor: CLIPImageProcessorPil,
    rng: random.Random,
    steps: int,
) -> float:
    """Train in place; the last loss. The decoder learns more slowly, so that it keeps its language."""
    chosen = optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(one, lambda step: min(1.0, (step + 1) / 20) * (1 - step / steps))
        for one in chosen
    ]
    mean = 0.0
    model.train()
    for step in range(steps):
        loss = model(**batch(tokenizer, processor, rng, 48)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for one, schedule in zip(chosen, schedules, strict=True):
            one.step()
            schedule.step()
            one.zero_grad()
        mean = loss.item() if step == 0 else 0.95 * mean + 0.05 * loss.item()
        if step % 50 == 49:
            print(f"step {step + 1}/{steps}: loss {mean:.3f}", file=sys.stderr)
    return mean


def make(folder: Path, seed: int, steps: int) -> float:
    """Write a model folder that is complete without this package; the loss it ended with."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(HERE)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
    processor = CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    model = blank_model(tokenizer)
    loss = train(model, tokenizer, processor, random.Random(seed), steps)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    model.eval().half().save_pretrained(folder)  # half the size; whoever loads it widens it
    GenerationConfig(
        max_new_tokens=128, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(folder)
    (folder / "reconciler.json").write_text(json.dumps({"defaults": DEFAULTS}) + "\n", encoding="utf-8")
    shutil.copyfile(HERE / "LICENSE", folder / "LICENSE")
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description="make a tiny model that sees")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400)
    asked = parser.parse_args()
    print(f"wrote {asked.out}: loss {make(asked.out, asked.seed, asked.steps):.3f}")


if __name__ == "__main__":
    main()
