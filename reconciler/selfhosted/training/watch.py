"""
What happens beside the training loop: telling, measuring, saving, and stopping when asked.

A resume state is saved at the end of every epoch and, inside an epoch, when the last one is old; never
more often than costs two percent of the time. Saving draws no random numbers, so when it happens changes
nothing in the result. Where several processes train, each has a watch; they measure, save and stop
together, and the first of them writes.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from reconciler.selfhosted.training import auto, ranks
from reconciler.selfhosted.training.failures import Failure, Stopped
from reconciler.selfhosted.training.folder import JobFolder, Story
from reconciler.selfhosted.training.pace import Kind, Pace

# What the trainer calls a number, and what we call it behind `train_`, `valid_` and `full_valid_`.
NAMES = {"loss": "loss", "mean_token_accuracy": "mean_token_accuracy"}

_SAVING_SHARE = 50  # training time between two saves, in units of what a save took
_READING = 1 / 3  # what it takes to read a row, in units of what it takes to learn it


@dataclass(frozen=True)
class Validation:
    """What the trainer logs about a few validation rows, and about all of them, of which there are `rows`."""

    glance: Callable[[], Mapping[str, float]]
    whole: Callable[[], Mapping[str, float]]
    rows: int


class Watch(TrainerCallback):  # type: ignore[misc]
    """Tells the job's story while the trainer trains."""

    words = {
        "train_loss": "training loss",
        "valid_loss": "validation loss",
        "full_valid_loss": "full validation loss",
    }

    def __init__(
        self,
        folder: JobFolder,
        story: Story,
        plan: auto.Plan,
        *,
        about: dict[str, Any],
        vocabulary: int,
        save_every: float,
        names: Mapping[str, str] = NAMES,
        beside: Sequence[Path] = (),
    ) -> None:
        self._folder, self._story, self._plan = folder, story, plan
        self._about, self._vocabulary, self._save_every = about, vocabulary, save_every
        self._names, self._beside = names, beside
        self.validation: Validation | None = None
        self.stopping = False
        self._losses: list[float] = []
        self._done = self._saved = time.monotonic()
        self._save_took = 0.0
        self._pace = Pace({}, 0.0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        ahead = Counter(self.kind(step) for step in range(state.global_step + 1, self._plan.total_steps + 1))
        self._pace = Pace(ahead, self.guess())
        self._done = self._saved = time.monotonic()
        told = self._story.metrics
        self._losses = [told[step]["train_loss"] for step in sorted(told) if step <= state.global_step]
        if state.global_step:
            self._story.say(f"resumed-{state.global_step}", f"Training resumed from step {state.global_step}")
        else:
            self._story.say("started", "Fine-tuning job started")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        age = time.monotonic() - self._saved
        old = age > max(self._save_every, _SAVING_SHARE * self._save_took)
        self.stopping = ranks.agreed(self.stopping)
        if ranks.agreed(old) or self.stopping:
            control.should_save = True
        if self.stopping:
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **_: Any,
    ) -> None:
        if "loss" not in logs:  # the log of an evaluation, or the summary at the end
            return
        state.log_history.clear()  # it would be written with every resume state, and the events have it all
        step = state.global_step
        self._losses.append(logs["loss"])
        self._refuse_divergence(step, logs)
        ended = self.ends(step)
        numbers = self.numbers(step, logs, ended)
        self._pace.took(self.kind(step), self._lap())
        self._tell(step, numbers)
        if ended:
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        ranks.wait()  # until all have written their part
        if state.is_world_process_zero:
            self._keep(state.global_step)
        ranks.wait()
        self._save_took = self._lap()
        self._saved = self._done
        self._pace.longer(self.kind(state.global_step), self._save_took)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.stopping and state.global_step < self._plan.total_steps:
            raise Stopped

    def ends(self, step: int) -> bool:
        """Whether this step ends a stretch of training, after which a model is kept."""
        return step % self._plan.steps_per_epoch == 0

    def numbers(self, step: int, logs: Mapping[str, float], ended: bool) -> dict[str, Any]:
        """What is told of a step, in the contract's names."""
        return self._named("train", logs) | self._measured(step, whole=ended)

    def kind(self, step: int) -> Kind:
        """What happens beside training in this step."""
        if self.ends(step):
            return "whole"
        return "glance" if self.validation and step % self._plan.valid_every == 0 else "plain"

    def guess(self) -> float:
        """What all validation rows may take, in steps."""
        return _READING * self.validation.rows / self._plan.batch_size if self.validation else 0.0

    def drop_models(self, step: int) -> None:
        """Throw away the models that are not kept any longer."""
        self._folder.drop_older_models(self._plan.steps_per_epoch)

    def _keep(self, step: int) -> None:
        """Make what was just written the resume state, and a model where one is due."""
        for file in self._beside:  # what belongs to a model and the trainer does not write
            shutil.copyfile(file, self._folder.saving / f"checkpoint-{step}" / file.name)
        if self.ends(step) or (self.stopping and self._folder.pausing.exists()):
            self._folder.keep_model(step, self._about)
            told = self._story.metrics[step]
            left = ("eta_s", "total_steps")
            kept = {key: told[key] for key in told if key not in left and not isinstance(told[key], dict)}
            self._story.checkpoint(step, kept)
            self._story.say(f"checkpoint-{step}", f"Checkpoint created at step {step}")
            self.drop_models(step)
        self._story.sync()
        self._folder.keep_resume_state(step)

    def _lap(self) -> float:
        """Seconds since the last lap."""
        before, self._done = self._done, time.monotonic()
        return self._done - before

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _refuse_divergence(self, step: int, logs: dict[str, float]) -> None:
        gradient = logs.get("grad_norm", 0.0)
        ended = step == self._plan.total_steps
        if auto.diverged(self._losses, self._vocabulary, ended=ended) or gradient != gradient:
            message = f"training diverged at step {step}: the loss exploded or is no number"
            raise Failure("training_diverged", f"{message}; choose a smaller learning_rate_multiplier")

    def _named(self, prefix: str, logs: Mapping[str, float]) -> dict[str, float]:
        return {f"{prefix}_{name}": logs[log] for log, name in self._names.items()}

    def _measured(self, step: int, *, whole: bool) -> dict[str, float]:
        if self.validation is None:
            return {}
        measured: dict[str, float] = {}
        if whole or step % self._plan.valid_every == 0:
            measured |= self._named("valid", self.validation.glance())
        if whole:
            measured |= self._named("full_valid", self.validation.whole())
        return measured

    def _tell(self, step: int, told: dict[str, Any]) -> None:
        total = self._plan.total_steps
        data = {"step": step, **told, "total_steps": total, "eta_s": round(self._pace.left(), 1)}
        said = ", ".join(f"{word}={told[key]:.2f}" for key, word in self.words.items() if key in told)
        self._story.measure(f"Step {step}/{total}: {said}", data)
