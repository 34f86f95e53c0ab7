"""
What somebody who knows TRL would write for each method: `bare_training.py METHOD BASE TRAIN VALID OUT EPOCHS`.

The floor of `bench_training`: the same rows, hyperparameters, validations and checkpoints, and nothing else.
"""

import json
import sys
from pathlib import Path

COMMON = {
    "learning_rate": 2e-3, "lr_scheduler_type": "cosine", "warmup_steps": 0.03, "weight_decay": 0.0,
    "logging_steps": 1, "report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
    "seed": 7, "disable_tqdm": True, "eval_strategy": "epoch", "save_strategy": "epoch",
}  # fmt: skip


def rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def sft(base, train, valid, out, epochs):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        out, num_train_epochs=epochs, per_device_train_batch_size=16, assistant_only_loss=True, max_length=512,
        packing=False, **COMMON
    )  # fmt: skip
    learn, check = (
        Dataset.from_list([{"messages": row["messages"]} for row in rows(p)]) for p in (train, valid)
    )
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    return SFTTrainer(model, arguments, train_dataset=learn, eval_dataset=check, processing_class=tokenizer)


def dpo(base, train, valid, out, epochs):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    def pairs(path):
        return Dataset.from_list(
            [
                {
                    "prompt": row["input"]["messages"],
                    "chosen": row["preferred_output"],
                    "rejected": row["non_preferred_output"],
                }
                for row in rows(path)
            ]
        )

    arguments = DPOConfig(
        out, num_train_epochs=epochs, per_device_train_batch_size=16, beta=0.1, loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, 0.5], precompute_ref_log_probs=True, max_length=512, **COMMON | {"learning_rate": 5e-4}
    )  # fmt: skip
    return DPOTrainer(
        AutoModelForCausalLM.from_pretrained(base), args=arguments, train_dataset=pairs(train),
        eval_dataset=pairs(valid), processing_class=AutoTokenizer.from_pretrained(base),
    )  # fmt: skip


def rft(base, train, valid, out, epochs):
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    def prompts(path):
        return Dataset.from_list([{"prompt": row["messages"], "team": row["team"]} for row in rows(path)])

    def reward(completions, team, **_):
        return [
            score(completion[0]["content"], wanted)
            for completion, wanted in zip(completions, team, strict=True)
        ]

    def score(text, wanted):
        try:
            said = json.loads(text)
        except ValueError:
            return 0.0
        return 0.2 + 0.8 * (said.get("team") == wanted) if isinstance(said, dict) else 0.0

    every = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 16, "save_steps": 16}
    arguments = GRPOConfig(
        out, num_train_epochs=epochs, per_device_train_batch_size=64, per_device_eval_batch_size=32,
        num_generations=8, num_generations_eval=1, max_completion_length=128, beta=0.0, temperature=1.0,
        **COMMON | every | {"learning_rate": 3e-4}
    )  # fmt: skip
    return GRPOTrainer(
        base, reward, args=arguments, train_dataset=prompts(train), eval_dataset=prompts(valid),
        processing_class=AutoTokenizer.from_pretrained(base),
    )  # fmt: skip


def vision(base, train, valid, out, epochs):
    import base64
    import io

    import torch
    from datasets import Dataset
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer, looking = AutoTokenizer.from_pretrained(base), AutoImageProcessor.from_pretrained(base)
    model = AutoModelForImageTextToText.from_pretrained(base)
    seen = "<image>" * model.config.image_seq_length

    def conversation(row):
        messages = json.loads(row["messages"])
        url = next(part for part in messages[0]["content"] if part["type"] == "image_url")["image_url"]["url"]
        text = "".join(part.get("text", seen) for part in messages[0]["content"])
        return [{**messages[0], "content": text}, *messages[1:]], url

    def collate(batch):
        read = [conversation(row) for row in batch]
        kept = {
            "return_dict": True,
            "return_assistant_tokens_mask": True,
            "padding": True,
            "return_tensors": "pt",
        }
        made = tokenizer.apply_chat_template([messages for messages, _ in read], tokenize=True, **kept)
        said = torch.as_tensor(made.pop("assistant_masks")).bool()
        images = [
            Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB") for _, url in read
        ]
        pixels = looking(images=images, return_tensors="pt")["pixel_values"]
        return {**made, "labels": made["input_ids"].masked_fill(~said, -100), "pixel_values": pixels}

    def texts(path):
        return Dataset.from_list([{"messages": json.dumps(row["messages"])} for row in rows(path)])

    arguments = SFTConfig(
        out, num_train_epochs=epochs, per_device_train_batch_size=16, max_length=None, remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True}, **COMMON | {"learning_rate": 5e-4}
    )  # fmt: skip
    return SFTTrainer(
        model, arguments, data_collator=collate, train_dataset=texts(train), eval_dataset=texts(valid),
        processing_class=tokenizer,
    )  # fmt: skip


def main(method, base, train, valid, out, epochs):
    trainer = {"sft": sft, "dpo": dpo, "rft": rft, "vision": vision}[method](
        base, train, valid, out, int(epochs)
    )
    trainer.train()
    trainer.save_model(out + "/final")


if __name__ == "__main__":
    main(*sys.argv[1:])
