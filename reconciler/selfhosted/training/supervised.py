"""
Supervised fine-tuning: TRL's SFTTrainer over rows that were tokenized once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from reconciler.selfhosted.training import auto, bases, rows, weights
from reconciler.selfhosted.training.encode import Encoder, Examples
from reconciler.selfhosted.training.folder import JobFolder, Story
from reconciler.selfhosted.training.job import Full, Job
from reconciler.selfhosted.training.rows import Param
from reconciler.selfhosted.training.watch import Validation, Watch

_TOKENS_IN_MEMORY = 16_384  # of one micro-batch
_LARGE = 500_000_000  # parameters from which activations are computed twice instead of being kept
_GLANCE_ROWS = 16


@dataclass(frozen=True)
class Trained:
    plan: auto.Plan
    tokens: int  # of all epochs


def train(folder: JobFolder, story: Story, job: Job, base: bases.Base) -> Trained:
    """Train to the end, from the newest resume state. Raises Failure, or Stopped after a SIGTERM."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if job.threads:
        torch.set_num_threads(job.threads)
    tokenizer = weights.tokenizer(base)
    encoder = Encoder(tokenizer, weights.max_length(base))
    training = _examples(encoder, job.training_file, "training_file", story)
    validation = (
        _examples(encoder, job.validation_file, "validation_file", story) if job.validation_file else None
    )
    plan = auto.plan(
        job.method.supervised.hyperparameters,
        rows=len(training.dataset),
        usual_batch=base.defaults.batch_size,
        longest=training.longest,
        tokens_in_memory=_TOKENS_IN_MEMORY,
    )
    trained = Trained(plan, training.tokens * plan.n_epochs)
    resume = folder.resume_state()
    if resume and resume[0] == plan.total_steps:
        return trained
    if (rank := weights.kept_rank(base, job.tuning)) is not None:
        story.say(
            "kept-rank", f"The base is an adapter of rank {rank}, which is tuned further and keeps it", "warn"
        )
    model = weights.model(base, job.tuning, job.seed)
    watch = Watch(
        folder,
        story,
        plan,
        about=base.about(adapter=not isinstance(job.tuning, Full)),
        vocabulary=model.config.get_text_config().vocab_size,
        save_every=job.save_every_s,
    )
    trainer = _Trainer(
        model=model,
        args=_arguments(folder, job, base, plan, model),
        train_dataset=training.dataset,
        processing_class=tokenizer,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    if validation:
        watch.validation = trainer.validation(validation.dataset)
    trainer.train(resume_from_checkpoint=str(resume[1]) if resume else None)
    return trained


class _Trainer(SFTTrainer):  # type: ignore[misc]
    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Nothing: a card is written for every resume state, and nobody reads it."""

    def validation(self, examples: Dataset) -> Validation:
        """How to measure this model on these examples."""
        few = examples.select(range(min(_GLANCE_ROWS, len(examples))))
        return Validation(glance=lambda: self._measure(few), whole=lambda: self._measure(examples))

    def _measure(self, examples: Dataset) -> tuple[float, float]:
        measured = self.evaluate(examples)
        return measured["eval_loss"], measured["eval_mean_token_accuracy"]


def _examples(encoder: Encoder, path: Path, param: Param, story: Story) -> Examples:
    examples = encoder.encode(rows.read(path, param), param)
    noun = param.replace("_", " ")
    if examples.truncated:
        text = f"{examples.truncated} example(s) of the {noun} are too long and were truncated at the end"
        story.say(f"truncated-{param}", text, "warn")
    if examples.silent:
        text = f"{examples.silent} example(s) of the {noun} have no assistant turn to learn and were left out"
        story.say(f"silent-{param}", text, "warn")
    return examples


def _arguments(folder: JobFolder, job: Job, base: bases.Base, plan: auto.Plan, model: Any) -> SFTConfig:
    gpu = torch.cuda.is_available()
    rates = base.defaults.learning_rate
    usual = rates.full if isinstance(job.tuning, Full) else rates.lora
    return SFTConfig(
        output_dir=str(folder.saving),
        seed=job.seed,
        data_seed=job.seed,
        num_train_epochs=plan.n_epochs,
        per_device_train_batch_size=plan.micro_batch,
        per_device_eval_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.batch_size // plan.micro_batch,
        learning_rate=usual * plan.learning_rate_multiplier,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        bf16=gpu and torch.cuda.is_bf16_supported(),
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        gradient_checkpointing=model.num_parameters() > _LARGE,
        max_length=None,  # the rows are cut already
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is no number must be seen
        save_strategy="no",  # Watch says when
        report_to="none",
        disable_tqdm=True,
    )
