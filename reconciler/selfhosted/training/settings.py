"""
What every method asks of TRL's trainers in the same way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.utils import logging

from reconciler.selfhosted.training import auto, bases, hardware, ranks, weights
from reconciler.selfhosted.training.folder import METRICS, JobFolder, Story
from reconciler.selfhosted.training.job import Full, Job

TOKENS_IN_MEMORY = 16_384  # of one micro-batch


@dataclass(frozen=True)
class Trained:
    plan: auto.Plan
    tokens: int  # of all epochs
    resolved: Mapping[str, Any] = field(default_factory=dict)  # the method's own hyperparameters
    columns: tuple[str, ...] = METRICS  # of the result file


def quiet(job: Job) -> None:
    """Have the libraries say nothing, and use as many threads as the job may."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))


def join(folder: JobFolder, story: Story, plan: auto.Plan) -> None:
    """Meet the other processes of the job. Raises ranks.NotNeeded in those that the plan leaves out."""
    launched = ranks.launched()
    ranks.join(folder.meeting, plan.processes)
    if plan.processes < launched:
        reason = f"a batch of {plan.batch_size} rows has no equal shares for more"
        story.say("processes", f"Training in {plan.processes} of {launched} processes: {reason}", "warn")
    elif plan.processes > 1:
        story.say("processes", f"Training in {plan.processes} processes, each with its share of every batch")


def model(story: Story, job: Job, base: bases.Base) -> Any:
    """The model to train; says so when its adapter keeps a rank that was not asked for."""
    if (rank := weights.kept_rank(base, job.tuning)) is not None:
        story.say(
            "kept-rank", f"The base is an adapter of rank {rank}, which is tuned further and keeps it", "warn"
        )
    return weights.model(base, job.tuning, job.seed)


def common(
    folder: JobFolder, job: Job, base: bases.Base, plan: auto.Plan, model: Any, share: float = 1.0
) -> dict[str, Any]:
    """The arguments that all methods share; `share` is the method's part of the base's learning rate."""
    rates = base.defaults.learning_rate
    usual = rates.full if isinstance(job.tuning, Full) else rates.lora
    return {
        "output_dir": str(folder.saving),
        "seed": job.seed,
        "data_seed": job.seed,
        "num_train_epochs": plan.n_epochs,
        "per_device_train_batch_size": plan.micro_batch,
        "per_device_eval_batch_size": plan.micro_batch,
        "gradient_accumulation_steps": plan.micro_batches,
        "learning_rate": usual * share * plan.learning_rate_multiplier,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        **hardware.arguments(hardware.look(), model.num_parameters()),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is no number must be seen
        "save_strategy": "no",  # Watch says when
        "report_to": "none",
        "disable_tqdm": True,
    }


def measured(logs: Mapping[str, float]) -> dict[str, float]:
    """What an evaluation logged, under the names that training uses. Pure."""
    return {key.removeprefix("eval_"): value for key, value in logs.items()}
