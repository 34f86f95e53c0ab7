"""
Whom a rule compares: a model, or a model with a prompt of its own; and the runs that measure them. Pure.

A subject's name is its address, or both addresses: `Model/tiny-chat+Prompt/v2`. Every sample of an item is
a run of its own, with a seed of its own: so it works on every platform, and more samples later cost only
what is new.
"""

from collections.abc import Iterable
from typing import Annotated

from reconciler.resource import Address, Ref, Spec

MODELS = ("Model", "FineTuneJob")
AGAIN = "+canary"  # behind the subject of a run that a canary's time made necessary


class Pair(Spec):
    """A model with a prompt of its own, in place of those that the evals name."""

    model: Annotated[str, Ref(*MODELS)]
    prompt: Annotated[str, Ref("Prompt")]

    def __str__(self) -> str:
        return f"{self.model}+Prompt/{self.prompt.removeprefix('Prompt/')}"


Subject = Annotated[str, Ref(*MODELS)] | Pair


def model_of(subject: str) -> Address:
    return Address.parse(subject.partition("+")[0])


def prompt_of(subject: str) -> Address | None:
    """The prompt of its own that a subject has."""
    prompt = subject.partition("+")[2]
    return Address.parse(prompt) if prompt else None


def run_of(eval_: str, subject: str, sample: int = 1) -> Address:
    """The implied run of an eval on a subject; from the second on, its samples are numbered."""
    number = f"#{sample}" if sample > 1 else ""
    return Address("EvalRun", f"{eval_.removeprefix('Eval/')}@{subject}{number}")


def samples_of(first: Address, among: Iterable[Address]) -> list[Address]:
    """The run of the first sample, and those of the others in the order in which they are found."""
    further = (each for each in among if each.kind == first.kind and each.name.startswith(f"{first.name}#"))
    return [first, *further]


def again(run: Address) -> Address:
    """The run that measures the same once more, for a canary."""
    first, number, sample = run.name.partition("#")
    return Address(run.kind, f"{first}{AGAIN}{number}{sample}")


def measured_by(run: Address) -> str:
    """The name of the subject that an implied run measures."""
    return run.name.partition("@")[2].partition("#")[0].removesuffix(AGAIN)
