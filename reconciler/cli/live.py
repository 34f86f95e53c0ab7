"""What a person sees while something long happens: bars on a terminal, a line per event elsewhere."""

import sys
from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from reconciler.engine import Pass
from reconciler.kind import Progress
from reconciler.plan import Step
from reconciler.resource import Address


class Quiet:
    """Watches and says nothing: for programs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def uploading(self, address: Address, sent: int, total: int) -> None: ...

    def made(self, step: Step) -> None: ...

    def waiting(self, done: Pass, progress: Mapping[Address, Progress]) -> None: ...


class Live(Quiet):
    """Bars for uploads, training and evals, gone when they are done; what was made stays."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24),
                   TextColumn("{task.fields[text]}"), TimeElapsedColumn())  # fmt: skip
        terminal = self._console.is_terminal
        self._bars = Bars(
            *columns, console=self._console, transient=True, disable=not terminal, refresh_per_second=8
        )
        self._tasks: dict[Address, TaskID] = {}
        self._said: dict[Address, str] = {}

    def __enter__(self) -> Self:
        self._console.print()
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def uploading(self, address: Address, sent: int, total: int) -> None:
        self._bar(address, sent, total, f"{sent / 1e6:.1f}/{total / 1e6:.1f} MB")

    def made(self, step: Step) -> None:
        self._drop(step.address)
        observed = step.decision.observed
        self._say(step.address, f"+ {step.address}  {observed.id if observed else ''}")

    def waiting(self, done: Pass, progress: Mapping[Address, Progress]) -> None:
        for address, known in progress.items():
            eta = f", {known.eta:.0f} s left" if known.eta is not None else ""
            self._bar(address, known.done, known.total, f"{known.text}{eta}")
        for address in self._tasks.keys() - progress.keys():
            self._drop(address)
        for step in done.steps:
            if step.address in self._said and step.action.name == "KEEP":
                what = step.decision.observed.body.get("fine_tuned_model") if step.decision.observed else None
                self._say(step.address, f"= {step.address}  ready{f', {what}' if what else ''}")
        for address, held in done.deferred.items():
            self._say(address, f"… {address}  {held.why}")

    def _bar(self, address: Address, done: float, total: float, text: str) -> None:
        if address not in self._tasks:
            self._tasks[address] = self._bars.add_task(str(address), total=None, text="")
        self._bars.update(self._tasks[address], completed=done, total=total or None, text=text)

    def _drop(self, address: Address) -> None:
        if address in self._tasks:
            self._bars.remove_task(self._tasks.pop(address))

    def _say(self, address: Address, line: str) -> None:
        if self._said.get(address) != line:
            self._said[address] = line
            self._console.print(line, markup=False)
