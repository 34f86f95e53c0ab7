"""
Direct preference optimisation (Rafailov et al. 2023): TRL's DPOTrainer over pairs that were tokenized once.

The reference is the model before the first step. What it says of every pair is computed once, before
training, so that no second copy of weights or adapter stays in memory. Beside the preference stands a
supervised term on the preferred answers: without it small models unlearn what they were told to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from jinja2 import TemplateError
from torch.utils.data import DataLoader
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer

from reconciler.selfhosted.training import auto, bases, formats, ranks, rows, settings, watch, weights
from reconciler.selfhosted.training.encode import IGNORED, Encoder
from reconciler.selfhosted.training.failures import Failure
from reconciler.selfhosted.training.folder import METRICS, JobFolder, Story
from reconciler.selfhosted.training.job import Full, Job, PreferenceHyperparameters
from reconciler.selfhosted.training.rows import Param

BETA = 0.1
_SUPERVISED = 0.5  # weight of the supervised term beside the preference
_SHARE = 0.25  # of the learning rate that supervised tuning of the same base takes
_NAMES = watch.NAMES | {"rewards/accuracies": "reward_accuracy", "rewards/margins": "reward_margin"}
_COLUMNS = (
    *METRICS,
    *(
        f"{of}_{name}"
        for of in ("train", "valid", "full_valid")
        for name in ("reward_accuracy", "reward_margin")
    ),
)
_GLANCE_ROWS = 16


@dataclass(frozen=True)
class Pairs:
    """`dataset` has the columns `prompt_ids`, `chosen_ids` and `rejected_ids`."""

    dataset: Dataset
    tokens: int
    longest: int


def train(
    folder: JobFolder, story: Story, job: Job, base: bases.Base, asked: PreferenceHyperparameters
) -> settings.Trained:
    """Train to the end, from the newest resume state. Raises Failure, or Stopped after a SIGTERM."""
    tokenizer = weights.tokenizer(base)
    encoder, longest = Encoder(tokenizer, weights.max_length(base)), weights.max_length(base)
    training = _pairs(encoder, job.training_file, "training_file", longest, story)
    validation = (
        _pairs(encoder, job.validation_file, "validation_file", longest, story)
        if job.validation_file
        else None
    )
    plan = auto.plan(
        asked,
        rows=len(training.dataset),
        usual_batch=base.defaults.batch_size,
        longest=training.longest,
        tokens_in_memory=settings.TOKENS_IN_MEMORY // 2,  # both answers of a pair are in memory
        processes=ranks.launched(),
    )
    beta = BETA if asked.beta == "auto" else asked.beta
    trained = settings.Trained(plan, training.tokens * plan.n_epochs, {"beta": beta}, _COLUMNS)
    resume = folder.resume_state()
    if resume and resume[0] == plan.total_steps:
        return trained
    settings.join(folder, story, plan)
    model = settings.model(story, job, base)
    trainer = _Trainer(
        model=model,
        args=DPOConfig(
            **settings.common(folder, job, base, plan, model, _SHARE),
            beta=beta,
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, _SUPERVISED],
            max_length=None,  # the pairs are cut already
            precompute_ref_log_probs=True,
        ),
        train_dataset=training.dataset,
        eval_dataset=_glance_and_whole(validation.dataset) if validation else None,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    told = watch.Watch(
        folder,
        story,
        plan,
        about=base.about(adapter=not isinstance(job.tuning, Full)),
        vocabulary=model.config.get_text_config().vocab_size,
        save_every=job.save_every_s,
        names=_NAMES,
    )
    if validation:
        told.validation = watch.Validation(
            lambda: trainer.measure("glance"), lambda: trainer.measure("whole"), len(validation.dataset)
        )
    trainer.add_callback(told)
    trainer.train(resume_from_checkpoint=str(resume[1]) if resume else None)
    return trained


class _Trainer(DPOTrainer):  # type: ignore[misc]
    def __init__(self, model: Any, **more: Any) -> None:
        super().__init__(model=model, **more)
        if "ref" in getattr(model, "peft_config", {}):
            model.delete_adapter("ref")  # what it was for has been computed

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        # TRL hands the numbers on in a cache file, whose name only one of several processes knows; remove
        # when it does not.
        batches = DataLoader(dataset, batch_size, collate_fn=self.data_collator)
        found = [
            self.accelerator.gather_for_metrics(self.compute_ref_log_probs(self.model, batch))
            for batch in self.accelerator.prepare(batches)
        ]
        columns = zip(("ref_chosen_logps", "ref_rejected_logps"), zip(*found, strict=True), strict=True)
        told = {name: torch.cat(parts).cpu().numpy() for name, parts in columns}
        return concatenate_datasets([dataset, Dataset.from_dict(told)], axis=1)

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset  # tokenized already

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Nothing: a card is written for every resume state, and nobody reads it."""

    def measure(self, rows: str) -> Mapping[str, float]:
        """What an evaluation on these validation rows logs."""
        return settings.measured(self.evaluate(rows))


def _glance_and_whole(examples: Dataset) -> dict[str, Dataset]:
    return {"glance": examples.select(range(min(_GLANCE_ROWS, len(examples)))), "whole": examples}


def _pairs(encoder: Encoder, path: Path, param: Param, longest: int, story: Story) -> Pairs:
    found: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    cut = left_out = 0
    for number, row in rows.read(path, param):
        try:
            prompt, *answers = pair(encoder, row)
        except TemplateError:
            message = (
                f"row {number}: the chat template of the base model refuses this order of messages or roles"
            )
            raise Failure(f"invalid_{param}", message, param) from None
        room = longest - len(prompt)
        if room < 1 or not all(answers):
            left_out += 1
            continue
        cut += any(len(answer) > room for answer in answers)
        for column, ids in zip(found, (prompt, answers[0][:room], answers[1][:room]), strict=True):
            found[column].append(ids)
    noun = param.replace("_", " ")
    if cut:
        text = f"{cut} example(s) of the {noun} are too long and were truncated at the end"
        story.say(f"truncated-{param}", text, "warn")
    if left_out:
        text = f"{left_out} example(s) of the {noun} have no room for an answer and were left out"
        story.say(f"silent-{param}", text, "warn")
    if not found["prompt_ids"]:
        message = f"no row of the {noun} leaves room for an answer within the length of {longest} tokens"
        raise Failure(f"invalid_{param}", message, param)
    lengths = [
        (len(prompt) + len(chosen), len(prompt) + len(rejected))
        for prompt, chosen, rejected in zip(*found.values(), strict=True)
    ]
    return Pairs(Dataset.from_dict(found), sum(map(sum, lengths)), max(map(max, lengths)))


def pair(encoder: Encoder, row: Mapping[str, Any]) -> tuple[list[int], list[int], list[int]]:
    """The tokens of the prompt, of the preferred answer and of the other one."""
    prompt = [
        {key: value for key, value in message.items() if key != "weight"} | _unlearned(message)
        for message in row["input"]["messages"]
    ]
    sides = []
    for names in (formats.PREFERRED, formats.NOT_PREFERRED):
        answer = {**formats.one_of(row, names)[0], "weight": 1}
        [marked] = encoder.mark({**row["input"], "messages": [*prompt, answer]})
        [(ids, labels)] = encoder.tokens([marked])
        learned = (labels != IGNORED).nonzero()[0]
        begin, end = (int(learned[0]), int(learned[-1]) + 1) if len(learned) else (len(ids), len(ids))
        sides.append((ids[:begin].tolist(), ids[begin:end].tolist()))
    (before, chosen), (other, rejected) = sides
    shared = next((i for i, (a, b) in enumerate(zip(before, other, strict=False)) if a != b), None)
    at = min(len(before), len(other)) if shared is None else shared
    return before[:at], before[at:] + chosen, other[at:] + rejected


def _unlearned(message: Mapping[str, Any]) -> dict[str, int]:
    """An answer that stands in the prompt is read, not learned."""
    return {"weight": 0} if message["role"] == "assistant" else {}
