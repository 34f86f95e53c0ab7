"""
A supervised job through the platform against the same TRL run without it, start-up included, in one run.

`python -m tests.bench training`: upload, train, save, load in the serving engine and answer, against a
bare script that tokenizes, trains, evaluates and saves at each epoch.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reconciler.platforms import embedded
from reconciler.selfhosted import tiny
from reconciler.world import Upload

DATA = Path(__file__).parents[2] / "manifests" / "data"
WANTED = 1.15  # times the bare run
BARE = """
import sys
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
base, train, valid, out, steps = sys.argv[1:]
rows = load_dataset("json", data_files={"train": train, "valid": valid}, cache_dir=out)
arguments = SFTConfig(
    out, max_steps=int(steps), num_train_epochs=3, per_device_train_batch_size=16, learning_rate=2e-3,
    lr_scheduler_type="cosine", warmup_steps=0.03, weight_decay=0.0, assistant_only_loss=True, max_length=512,
    eval_strategy="epoch", save_strategy="epoch", logging_steps=1, report_to="none", use_cpu=True, bf16=False,
    gradient_checkpointing=False, seed=7, disable_tqdm=True, packing=False)
model = AutoModelForCausalLM.from_pretrained(base)
trainer = SFTTrainer(model, arguments, train_dataset=rows["train"], eval_dataset=rows["valid"],
                     processing_class=AutoTokenizer.from_pretrained(base))
trainer.train()
trainer.save_model(out + "/final")
"""


def main(smoke: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        train = place / "train.jsonl"
        rows = (DATA / "triage-train.jsonl").read_text().splitlines(keepends=True)
        train.write_text("".join(rows[: 64 if smoke else None]))
        bare = bare_seconds(place / "bare", train, steps=4 if smoke else -1)
        job = job_seconds(place / "platform", train, epochs=1 if smoke else 3)
    print(
        f"bare TRL {bare:.1f} s, a job on the platform {job:.1f} s: {job / bare:.2f} times; wanted ≤ {WANTED}"
    )


def bare_seconds(out: Path, train: Path, steps: int) -> float:
    base, valid = Path(tiny.__file__).parent, DATA / "triage-validation.jsonl"
    start = time.perf_counter()
    command = [sys.executable, "-c", BARE, *map(str, (base, train, valid, out, steps))]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def job_seconds(data: Path, train: Path, epochs: int) -> float:
    hyperparameters = {"n_epochs": epochs, "batch_size": 16, "learning_rate_multiplier": 1}
    with embedded.attach(data) as platform:
        valid = DATA / "triage-validation.jsonl"
        start = time.perf_counter()
        files = [
            platform.create(
                "files", {"purpose": "fine-tune", "file": Upload(path, path.name)}, key=path.name
            )["id"]
            for path in (train, valid)
        ]
        body = {
            "model": "tiny-chat", "training_file": files[0], "validation_file": files[1], "seed": 7,
            "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
            "reconciler": {"tuning": {"type": "full"}},
        }  # fmt: skip
        job = platform.create("fine_tuning/jobs", body, key="job")["id"]
        while (found := platform.get("fine_tuning/jobs", job) or {})["status"] not in ("succeeded", "failed"):
            time.sleep(0.5)
        took = time.perf_counter() - start
    assert found["status"] == "succeeded", found["error"]
    return took
