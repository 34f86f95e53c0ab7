"""
Supervised fine-tuning of a model that sees: TRL's SFTTrainer over rows with pictures.

The text of a row is tokenized once, with its places for pictures; the pictures themselves are read from the
file again whenever their row is learned, so memory does not grow with them. A row with a picture that
cannot be looked at is skipped, and an event says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from datasets import Dataset
from jinja2 import TemplateError
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from reconciler.selfhosted.training import auto, bases, eyes, pictures, ranks, rows, settings, weights
from reconciler.selfhosted.training.encode import IGNORED, Encoder
from reconciler.selfhosted.training.eyes import Eyes
from reconciler.selfhosted.training.failures import Failure
from reconciler.selfhosted.training.folder import JobFolder, Story
from reconciler.selfhosted.training.job import Full, Hyperparameters, Job
from reconciler.selfhosted.training.rows import Param
from reconciler.selfhosted.training.watch import Validation, Watch

_GLANCE_ROWS = 16
_NAMED = 5  # skipped rows that an event names
_MOST_ROWS = 50_000  # with pictures, in one file


class Examples(NamedTuple):
    """`dataset` has `input_ids`, `labels`, the row's `file` and `offset`, and how many `pictures` it shows."""

    dataset: Dataset
    tokens: int
    longest: int


def train(
    folder: JobFolder, story: Story, job: Job, base: bases.Base, asked: Hyperparameters
) -> settings.Trained:
    """Train to the end, from the newest resume state. Raises Failure, or Stopped after a SIGTERM."""
    tokenizer = weights.tokenizer(base)
    looking = weights.eyes_of(base, tokenizer)
    longest = weights.max_length(base)
    encoder = Encoder(tokenizer, longest, looking.text)
    training = _examples(encoder, looking, job.training_file, "training_file", longest, story)
    validation = (
        _examples(encoder, looking, job.validation_file, "validation_file", longest, story)
        if job.validation_file
        else None
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
        beside=[base.weights / name for name in eyes.FILES if (base.weights / name).is_file()],
    )
    trainer = _Trainer(
        model=model,
        args=SFTConfig(
            **settings.common(folder, job, base, plan, model),
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,  # the collator reads them
        ),
        data_collator=_Collator(looking, tokenizer.pad_token_id),
        train_dataset=training.dataset,
        processing_class=tokenizer,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    if validation:
        few = validation.dataset.select(range(min(_GLANCE_ROWS, len(validation.dataset))))
        watch.validation = Validation(
            lambda: trainer.measure(few), lambda: trainer.measure(validation.dataset), len(validation.dataset)
        )
    trainer.train(resume_from_checkpoint=str(resume[1]) if resume else None)
    return trained


class _Trainer(SFTTrainer):  # type: ignore[misc]
    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Nothing: a card is written for every resume state, and nobody reads it."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if Path(resume_from_checkpoint, "adapter_config.json").exists():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        # Transformers saves LLaVA under other names than it computes with, and its Trainer restores by name
        # and passes over what does not fit; remove when a resumed run needs this no more.
        whole = weights.whole(Path(resume_from_checkpoint), self.model.dtype)
        self.model.load_state_dict(whole.state_dict())

    def measure(self, examples: Dataset) -> Mapping[str, float]:
        """What an evaluation on these examples logs."""
        return settings.measured(self.evaluate(examples))


class _Collator:
    """Pads the text of a batch and looks at its pictures."""

    def __init__(self, looking: Eyes, padding: int) -> None:
        self._eyes, self._padding = looking, padding

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        longest = max(len(example["input_ids"]) for example in examples)
        size = (len(examples), longest)
        ids, mask = torch.full(size, self._padding), torch.zeros(size, dtype=torch.long)
        labels = torch.full(size, IGNORED)
        for row, example in enumerate(examples):
            length = len(example["input_ids"])
            ids[row, :length] = torch.tensor(example["input_ids"])
            labels[row, :length] = torch.tensor(example["labels"])
            mask[row, :length] = 1
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        shown = [image for example in examples for image in _shown(example)]
        if shown:
            batch["pixel_values"] = self._eyes.pixels(shown)
        return batch


def _shown(example: Mapping[str, Any]) -> Iterator[Any]:
    if not example["pictures"]:
        return
    with Path(example["file"]).open("rb") as file:
        file.seek(example["offset"])
        row = msgspec.json.decode(file.readline())
    for url in list(pictures.urls(row["messages"]))[: example["pictures"]]:
        yield pictures.read(url)


def _examples(
    encoder: Encoder, looking: Eyes, path: Path, param: Param, longest: int, story: Story
) -> Examples:
    found: dict[str, list[Any]] = {"input_ids": [], "labels": [], "file": [], "offset": [], "pictures": []}
    skipped: list[str] = []
    showing = 0
    for line in rows.lines(path, param):
        row = msgspec.json.decode(line.text)
        try:
            encoded = _encoded(encoder, looking, row, longest)
        except pictures.BadPicture as bad:
            skipped.append(f"row {line.number}: {bad}")
            continue
        except TemplateError:
            message = f"row {line.number}: the chat template of the base model refuses this order of messages"
            raise Failure(f"invalid_{param}", f"{message} or roles", param) from None
        showing += any(count for _, _, count in encoded)
        for ids, labels, count in encoded:
            for column, value in zip(found, (ids, labels, str(path), line.offset, count), strict=True):
                found[column].append(value)
    noun = param.replace("_", " ")
    if skipped:
        more = f"; and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
        text = f"{len(skipped)} example(s) of the {noun} were skipped: {'; '.join(skipped[:_NAMED])}{more}"
        story.say(f"skipped-{param}", text, "warn")
    if not found["input_ids"] or showing > _MOST_ROWS:
        message = (
            f"every row of the {noun} was skipped, the first because in {skipped[0]}"
            if skipped and not found["input_ids"]
            else f"the {noun} has {showing:,} rows with pictures; the least is 1 and the most {_MOST_ROWS:,}"
        )
        raise Failure(f"invalid_{param}", message, param)
    lengths = [len(ids) for ids in found["input_ids"]]
    return Examples(Dataset.from_dict(found), sum(lengths), max(lengths))


def _encoded(
    encoder: Encoder, looking: Eyes, row: Mapping[str, Any], longest: int
) -> list[tuple[list[int], list[int], int]]:
    """Token ids, labels and the number of pictures of each example. Raises BadPicture."""
    urls = list(pictures.urls(row["messages"]))
    if len(urls) > pictures.MOST:
        raise pictures.BadPicture(f"it shows {len(urls)} pictures, and {pictures.MOST} are the most")
    for number, url in enumerate(urls, start=1):
        try:
            pictures.read(url)
        except pictures.BadPicture as bad:
            raise pictures.BadPicture(f"picture {number} {bad}") from None
    examples = []
    for ids, labels in encoder.tokens(encoder.mark(row)):
        count, rest = divmod(int((ids == looking.token).sum()), looking.count)
        if rest or count > len(urls):
            raise pictures.BadPicture("its text spells the mark of a picture")
        if count and len(ids) > longest:
            raise pictures.BadPicture(
                f"it has {len(ids)} tokens with its pictures, and {longest} are the most"
            )
        ids, labels = ids[:longest], labels[:longest]
        if (labels[1:] != IGNORED).any():
            examples.append((ids.tolist(), labels.tolist(), count))
    return examples
