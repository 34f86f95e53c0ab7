"""
What `auto` means, and how a job is laid out in steps. Pure.

Epochs follow the helper OpenAI published in its cookbook (`Chat_finetuning_data_prep.ipynb`): three,
more for small files, fewer for huge ones. The learning rate is the multiplier times the rate that the
base model's folder recommends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite, log
from random import Random
from typing import NamedTuple

from reconciler.selfhosted.training.job import Hyperparameters, ReinforcementHyperparameters

_EPOCHS, _MOST_EPOCHS = 3, 25
_FEWEST_EXAMPLES, _MOST_EXAMPLES = 100, 25_000
_MOST_BATCH = 256
_ROWS_PER_BATCHED_ROW = 500  # 0.2 % of the rows make a batch


@dataclass(frozen=True)
class Plan:
    """
    A job in numbers. `batch_size` rows make one step; each of `processes` takes an equal share of them and
    has `micro_batch` in memory at a time.
    """

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    micro_batch: int
    steps_per_epoch: int
    processes: int = 1

    @property
    def micro_batches(self) -> int:
        """How many of them each process goes through in a step."""
        return self.batch_size // (self.processes * self.micro_batch)

    @property
    def total_steps(self) -> int:
        return self.n_epochs * self.steps_per_epoch

    @property
    def valid_every(self) -> int:
        """Steps between two glances at the validation rows; one glance costs about a third of a step."""
        return max(10, self.total_steps // 50)

    def resolved(self) -> dict[str, float]:
        """The hyperparameters as the job object shows them."""
        return {
            "n_epochs": self.n_epochs,
            "batch_size": self.batch_size,
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }


def plan(
    asked: Hyperparameters,
    rows: int,
    usual_batch: int,
    longest: int,
    tokens_in_memory: int,
    *,
    processes: int = 1,
    whole_batches: bool = False,
) -> Plan:
    """
    The steps of a job over `rows` examples, the longest of which has `longest` tokens.

    With `whole_batches` the rows that do not fill a batch wait for another epoch. Steps do not depend on the
    number of processes: where they cannot share a batch evenly, some are left out.
    """
    n_epochs = _epochs(rows) if asked.n_epochs == "auto" else asked.n_epochs
    batch = _batch(rows, usual_batch) if asked.batch_size == "auto" else asked.batch_size
    batch = min(batch, rows) if whole_batches else batch
    multiplier = asked.learning_rate_multiplier
    used = max(n for n in range(1, processes + 1) if batch % n == 0)
    share = batch // used
    micro = max(
        d for d in range(1, share + 1) if share % d == 0 and (d == 1 or d * longest <= tokens_in_memory)
    )
    return Plan(
        n_epochs=n_epochs,
        batch_size=batch,
        learning_rate_multiplier=1.0 if multiplier == "auto" else multiplier,
        micro_batch=micro,
        steps_per_epoch=rows // batch if whole_batches else ceil(rows / batch),
        processes=used,
    )


def _epochs(rows: int) -> int:
    if rows * _EPOCHS < _FEWEST_EXAMPLES:
        return min(_MOST_EPOCHS, _FEWEST_EXAMPLES // rows)
    if rows * _EPOCHS > _MOST_EXAMPLES:
        return max(1, _MOST_EXAMPLES // rows)
    return _EPOCHS


def _batch(rows: int, usual: int) -> int:
    """The usual batch, larger for large files, and never so large that an epoch has fewer than four steps."""
    return max(1, min(max(usual, rows // _ROWS_PER_BATCHED_ROW), _MOST_BATCH, rows // 4))


_WINDOW = 5


def diverged(losses: Sequence[float], vocabulary: int, *, ended: bool) -> bool:
    """
    Whether training went wrong: a loss that is no number, or losses that stay far above guessing.

    Guessing among `vocabulary` tokens costs ln(vocabulary). A base may start above it on text it never saw,
    so the first loss counts too; `losses` are all of them, oldest first.
    """
    if not losses:
        return False
    if not isfinite(losses[-1]):
        return True
    if len(losses) < _WINDOW and not ended:
        return False
    last = losses[-_WINDOW:]
    return sum(last) / len(last) > 3 * max(losses[0], log(vocabulary))


GROUP = 8  # answers to a prompt at compute_multiplier 1
_MOST_GROUP = 64
_EVALS = 6  # validations in a job whose eval_interval is auto


class Layout(NamedTuple):
    """The numbers of reinforcement alone."""

    group: int  # answers to each prompt
    eval_interval: int  # steps
    eval_samples: int  # answers to each validation prompt


def layout(asked: ReinforcementHyperparameters, total_steps: int) -> Layout:
    """What `auto` means for reinforcement. Pure."""
    multiplier = 1.0 if asked.compute_multiplier == "auto" else asked.compute_multiplier
    interval = ceil(total_steps / _EVALS) if asked.eval_interval == "auto" else asked.eval_interval
    samples = 1 if asked.eval_samples == "auto" else asked.eval_samples
    return Layout(min(_MOST_GROUP, max(2, round(GROUP * multiplier))), interval, samples)


def order(rows: int, plan: Plan, seed: int) -> list[int]:
    """The rows of all epochs in the order in which they are asked, each epoch shuffled anew. Pure."""
    rng = Random(seed)
    taken = plan.steps_per_epoch * plan.batch_size
    return [row for _ in range(plan.n_epochs) for row in rng.sample(range(rows), taken)]
