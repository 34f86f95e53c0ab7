"""
Supervised fine-tuning: TRL's SFTTrainer over rows that were tokenized once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from reconciler.selfhosted.training import auto, bases, hardware, ranks, rows, settings, weights
from reconciler.selfhosted.training.encode import Encoder, Examples
from reconciler.selfhosted.training.folder import JobFolder, Story
from reconciler.selfhosted.training.job import Full, Hyperparameters, Job
from reconciler.selfhosted.training.rows import Param
from reconciler.selfhosted.training.watch import Validation, Watch

_GLANCE_ROWS = 16


def train(
    folder: JobFolder, story: Story, job: Job, base: bases.Base, asked: Hyperparameters
) -> settings.Trained:
    """Train to the end, from the newest resume state. Raises Failure, or Stopped after a SIGTERM."""
    tokenizer = weights.tokenizer(base)
    encoder = Encoder(tokenizer, weights.max_length(base))
    training = _examples(encoder, job.training_file, "training_file", story)
    validation = (
        _examples(encoder, job.validation_file, "validation_file", story) if job.validation_file else None
    )
    plan = auto.plan(
        asked,
        rows=len(training.dataset),
        usual_batch=base.defaults.batch_size,
        longest=training.longest,
        tokens_in_memory=settings.TOKENS_IN_MEMORY,
        processes=ranks.launched(),
    )
    trained = settings.Trained(plan, training.tokens * plan.n_epochs)
    resume = folder.resume_state()
    if resume and resume[0] == plan.total_steps:
        return trained
    settings.join(folder, story, plan)
    model = settings.model(story, job, base)
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
        args=SFTConfig(
            **settings.common(folder, job, base, plan, model),
            max_length=None,  # the rows are cut already
            padding_free=hardware.padding_free(hardware.look(), full=isinstance(job.tuning, Full)),
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
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
        return Validation(lambda: self._measure(few), lambda: self._measure(examples), len(examples))

    def _measure(self, examples: Dataset) -> Mapping[str, float]:
        return settings.measured(self.evaluate(examples))


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
