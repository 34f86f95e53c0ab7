"""
Reinforcement fine-tuning: TRL's GRPOTrainer (Shao et al. 2024), with rewards from a grader.

A batch is so many prompts; each gets a group of sampled answers, and what counts is an answer's reward
beside the others of its group. The order of the prompts is fixed before training, and validation draws its
own random numbers, so a job that is killed and goes on sees the same prompts and samples the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import GenerationConfig, LogitsProcessorList, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from reconciler.selfhosted import grading
from reconciler.selfhosted.engine import prompt
from reconciler.selfhosted.training import auto, bases, constraint, prompts, ranks, settings, weights
from reconciler.selfhosted.training.folder import MODELS_KEPT, JobFolder, Story
from reconciler.selfhosted.training.job import Full, Job, Reinforcement
from reconciler.selfhosted.training.prompts import Prompts
from reconciler.selfhosted.training.rewards import Rewards, Tally, tally
from reconciler.selfhosted.training.watch import Watch

_SHARE = 0.15  # of the learning rate that supervised tuning of the same base takes
_ANSWER = 512  # tokens, where the base does not say how long its answers may be
_AT_ONCE = 64  # validation answers sampled together
_WRITING = 0.7  # what it takes to write an answer, in units of what it takes to learn from it as well

_COLUMNS = (
    "step",
    "train_loss",
    "train_mean_reward",
    "full_valid_mean_reward",
    "completion_tokens_mean",
    "mean_unresponsive_rewards",
    "full_valid_mean_parse_error",
)


class Lesson(NamedTuple):
    """Everything a job trains on, in numbers and tokens."""

    plan: auto.Plan
    layout: auto.Layout
    training: Prompts
    validation: Prompts
    answer: int  # tokens that an answer may have
    response_format: dict[str, Any] | None


def train(
    folder: JobFolder, story: Story, job: Job, base: bases.Base, asked: Reinforcement
) -> settings.Trained:
    """Train to the end, from the newest resume state. Raises Failure, or Stopped after a SIGTERM."""
    tokenizer = weights.tokenizer(base)
    lesson = _lesson(story, job, base, asked, tokenizer)
    hyper, plan = asked.hyperparameters, lesson.plan
    if hyper.reasoning_effort != "default":
        story.say("effort", "reasoning_effort is accepted and changes nothing: the base has no such setting")
    resume = folder.resume_state()
    if not (resume and resume[0] == plan.total_steps):
        rewards = Rewards(asked.grader, job.judges, unsafe=job.unsafe_graders)
        try:
            _learn(folder, story, job, base, lesson, tokenizer, rewards, resume and resume[1])
        finally:
            rewards.close()
    resolved = {
        "reasoning_effort": hyper.reasoning_effort,
        "compute_multiplier": lesson.layout.group / auto.GROUP,
        "eval_interval": lesson.layout.eval_interval,
        "eval_samples": lesson.layout.eval_samples,
    }
    tokens = story.metrics[plan.total_steps]["usage"]["total_tokens"]
    return settings.Trained(plan, tokens, resolved, _COLUMNS)


def _lesson(story: Story, job: Job, base: bases.Base, asked: Reinforcement, tokenizer: Any) -> Lesson:
    assert job.validation_file is not None  # `formats.check_job` saw it
    answer = _longest_answer(base)
    room = weights.context(base) - answer
    training = prompts.read(tokenizer, job.training_file, "training_file", room, story)
    validation = prompts.read(tokenizer, job.validation_file, "validation_file", room, story)
    prompts.refuse_overlap(training, validation)
    group = auto.layout(asked.hyperparameters, 1).group
    plan = auto.plan(
        asked.hyperparameters,
        rows=len(training.items),
        usual_batch=base.defaults.batch_size,
        longest=(max(map(len, training.tokens)) + answer) * group,
        tokens_in_memory=settings.TOKENS_IN_MEMORY,
        processes=ranks.launched(),
        whole_batches=True,
    )
    laid = auto.layout(asked.hyperparameters, plan.total_steps)
    return Lesson(plan, laid, training, validation, answer, asked.response_format)


def _learn(
    folder: JobFolder,
    story: Story,
    job: Job,
    base: bases.Base,
    lesson: Lesson,
    tokenizer: Any,
    rewards: Rewards,
    resume: Path | None,
) -> None:
    plan = lesson.plan
    settings.join(folder, story, plan)
    model = settings.model(story, job, base)
    ordered = auto.order(len(lesson.training.items), plan, job.seed)
    trainer = _Trainer(
        lesson=lesson,
        rewards=rewards,
        model=model,
        args=GRPOConfig(
            **settings.common(folder, job, base, plan, model, _SHARE)
            | {
                "num_train_epochs": 1,  # `order` holds all epochs
                "per_device_train_batch_size": plan.micro_batch * lesson.layout.group,
                "per_device_eval_batch_size": lesson.layout.group,
            },
            num_generations=lesson.layout.group,
            max_completion_length=lesson.answer,
            temperature=1.0,
            beta=0.0,
            shuffle_dataset=False,
        ),
        train_dataset=Dataset.from_dict({"prompt": [str(row) for row in ordered]}),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(
        _Watch(
            folder,
            story,
            plan,
            about=base.about(adapter=not isinstance(job.tuning, Full)),
            vocabulary=model.config.get_text_config().vocab_size,
            save_every=job.save_every_s,
            trainer=trainer,
        )
    )
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)


class _Trainer(GRPOTrainer):  # type: ignore[misc]
    """Its prompts are numbers of rows, so that tools and extra keys stay with their row."""

    def __init__(self, *, lesson: Lesson, rewards: Rewards, **more: Any) -> None:
        super().__init__(reward_funcs=[self._reward], **more)
        self.lesson = lesson
        self._rewards = rewards
        self._tallies: list[Tally] = []
        self._grammars = constraint.grammars(self.processing_class, lesson.response_format)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Nothing: a card is written for every resume state, and nobody reads it."""

    def _tokenize_prompts(self, asked: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.lesson.training.tokens[int(row)] for row in asked], None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *rest: Any, **more: Any) -> Any:
        if self._grammars is None:
            return super()._generate_single_turn(prompt_ids, *rest, **more)
        wanted = self.lesson.response_format or {}
        rule = constraint.Constraint(
            self._grammars, wanted, len(prompt_ids), self.processing_class.eos_token_id
        )
        model = self.accelerator.unwrap_model(self.model_wrapped)
        # TRL calls `generate` with its own arguments only; remove when it takes logits processors.
        model.generate = partial(model.generate, logits_processor=LogitsProcessorList([rule]))
        try:
            return super()._generate_single_turn(prompt_ids, *rest, **more)
        finally:
            del model.generate

    def _reward(self, prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        ours, tally = self._graded(self.lesson.training, [int(row) for row in prompts], completion_ids)
        self._tallies.append(tally)
        return ours

    def _graded(
        self, asked: Prompts, numbers: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> tuple[list[float], Tally]:
        """The scores of these answers, and what the answers of all processes come to."""
        samples = [
            _sample(self.processing_class, asked.items[number], asked.tokens[number], answer)
            for number, answer in zip(numbers, answers, strict=True)
        ]
        grades = self._rewards.grade([asked.items[number] for number in numbers], samples)
        every = ranks.gathered(list(zip(grades, map(len, answers), strict=True)))
        told = tally(self._rewards.grader, [grade for grade, _ in every], [length for _, length in every])
        return [grade.score for grade in grades], told

    def last_tally(self) -> Tally:
        """What the answers of the step that just ended came to."""
        last, self._tallies = self._tallies[-1], []
        return last

    def validate(self) -> Tally:
        """What sampled answers to the validation prompts come to; the same draws after every step."""
        asked = self.lesson.validation
        numbers = ranks.share(
            [n for n in range(len(asked.items)) for _ in range(self.lesson.layout.eval_samples)]
        )
        answers: list[list[int]] = []
        self.model.eval()
        try:
            with torch.random.fork_rng([self.args.device] if self.args.device.type == "cuda" else []):
                torch.manual_seed(self.args.seed + ranks.number())
                for first in range(0, len(numbers), _AT_ONCE):
                    tokens = [asked.tokens[number] for number in numbers[first : first + _AT_ONCE]]
                    answers += self._generate_single_turn(tokens, None, {}, 1)[0]
        finally:
            self.model.train()
        return self._graded(asked, numbers, answers)[1]


class _Watch(Watch):
    """Tells rewards instead of losses, and keeps the three checkpoints with the best validation reward."""

    words = {"train_mean_reward": "training reward", "full_valid_mean_reward": "full validation reward"}

    def __init__(self, *of: Any, trainer: _Trainer, **more: Any) -> None:
        super().__init__(*of, **more)
        self._trainer = trainer

    def ends(self, step: int) -> bool:
        total = self._plan.total_steps
        return step == total or step % self._trainer.lesson.layout.eval_interval == 0

    def guess(self) -> float:
        lesson = self._trainer.lesson
        answers = len(lesson.validation.items) * lesson.layout.eval_samples
        return _WRITING * answers / (lesson.plan.batch_size * lesson.layout.group)

    def numbers(self, step: int, logs: Mapping[str, float], ended: bool) -> dict[str, Any]:
        train = self._trainer.last_tally()
        valid = self._trainer.validate() if ended else None
        return {
            "train_loss": logs["loss"],
            **reported(train, valid, int(logs["num_tokens"]), logs["step_time"]),
        }

    def drop_models(self, step: int) -> None:
        if step == self._plan.total_steps:
            self._folder.finish_model(step)  # it may not be among the best
        told = self._story.metrics
        ended = [each for each in told if "full_valid_mean_reward" in told[each] and each <= step]
        ranked = sorted(ended, key=lambda each: (told[each]["full_valid_mean_reward"], each))
        self._folder.drop_models(set(ranked[:-MODELS_KEPT]))


def reported(train: Tally, valid: Tally | None, tokens: int, seconds: float) -> dict[str, Any]:
    """A step in the names of OpenAI's reinforcement metrics. Pure."""
    graders = [
        {
            "name": name,
            "train_reward_mean": score,
            "valid_reward_mean": valid.graders.get(name) if valid else None,
        }
        for name, score in train.graders.items()
    ]
    told: dict[str, Any] = {
        "scores": {
            "train_reward_mean": train.mean,
            "valid_reward_mean": valid.mean if valid else None,
            "graders": graders,
        },
        "usage": {"total_tokens": tokens},
        "errors": train.errors,
        "timing": {"step_s": round(seconds, 3)},
        "train_mean_reward": train.mean,
        "reasoning_tokens_mean": 0.0,
        "completion_tokens_mean": train.tokens,
        "mean_unresponsive_rewards": train.unresponsive,
        "model_graders_token_usage": train.judges,
    }
    if valid:
        told["full_valid_mean_reward"] = valid.mean
        told["full_valid_mean_parse_error"] = valid.parse_errors
        told["valid_reasoning_tokens_mean"] = 0.0
    return told


def _sample(
    tokenizer: Any, item: Mapping[str, Any], asked: Sequence[int], answer: Sequence[int]
) -> dict[str, Any]:
    """The answer as a grader of an eval would see it."""
    text = tokenizer.backend_tokenizer.decode(list(answer), skip_special_tokens=True)
    said = prompt.said(text, asked) if item.get("tools") else prompt.Said(text, None)
    return grading.sample_of(said.text, said.tool_calls)


def _longest_answer(base: bases.Base) -> int:
    """Tokens: what the base says of its answers, and never more than half of what it can read."""
    try:
        said = GenerationConfig.from_pretrained(base.weights).max_new_tokens
    except OSError:
        said = None
    return min(said or _ANSWER, weights.context(base) // 2)
