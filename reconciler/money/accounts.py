"""
A project's accounts on one platform: its prices, its budgets and its ledger in one hand.

Whoever plans asks them what steps will take; whoever applies asks for a bill before a create, and has what
finished settled after a pass.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reconciler.cost import NOTHING, Estimate
from reconciler.intent import Intent
from reconciler.kind import Action, Observed, Seen, State, Unseen
from reconciler.kinds.project import BudgetSpec, Embedded, ProjectSpec
from reconciler.money import budgets, expense, work
from reconciler.money.expense import Rates
from reconciler.money.pace import Pace
from reconciler.money.work import Resources, Work
from reconciler.plan import Plan
from reconciler.resource import Address, Wanted
from reconciler.tokens import Counter

if TYPE_CHECKING:  # the database library is only loaded by those who need it
    from reconciler.money.ledger import Bill, Ledger

ACTING = (Action.CREATE, Action.UPDATE)
NEAR = 6.0  # seconds between two looks, within which something may have ended unseen
VENDOR = "openai.com"  # whose hardware nobody rents by the hour


@dataclass(frozen=True)
class Accounts:
    """`ledger` is None where nothing was ever written."""

    project: str
    platform: str
    rates: Rates
    budgets: Sequence[BudgetSpec]
    counter: Counter
    ledger: "Ledger | None" = None
    watched: dict[str, float] = field(default_factory=dict)  # by object, when it was last seen working

    @classmethod
    def of(
        cls, project: str, spec: ProjectSpec, platform: str, data: Path, ledger: "Ledger | None"
    ) -> "Accounts":
        """Those of a project whose data folder is `data`."""
        places = (each for each in spec.platforms.values() if isinstance(each, Embedded))
        hubs = tuple(data / each.data / "hub" for each in places)
        return cls(
            project, platform, _rates(spec, platform), tuple(spec.budgets), Counter(data, hubs), ledger
        )

    def opened(self) -> "Accounts":
        """The same to write to. Raises ReconcilerError."""
        return replace(self, ledger=self.ledger and self.ledger.keep())

    def following(self, spec: ProjectSpec) -> "Accounts":
        """The same with what a newer manifest says."""
        return replace(self, rates=_rates(spec, self.platform), budgets=tuple(spec.budgets))

    def estimates(self, made: Plan) -> dict[Address, Estimate]:
        """What every step will take that would act; nothing is unknown of what costs nothing."""
        acting = [step for step in made.steps if step.action in ACTING]
        resources = {step.address: step.wanted for step in made.steps}
        paces = [*self._paces(), *self._standing(made, resources)] if acting else []
        return {step.address: self._estimate(step.wanted, resources, paces)[1] for step in acting}

    def refusals(self, made: Plan, estimates: Mapping[Address, Estimate], now: float) -> dict[str, str]:
        """By fingerprint, the steps that budgets have no room for, taken in the order of the plan."""
        if not self.budgets:
            return {}
        entries = [line.entry for line in self.ledger.lines(self.project)] if self.ledger else []
        refused: dict[Address, str] = {}
        counted: set[str] = set()  # what two ask for is made once
        for step in made.steps:
            estimate = estimates.get(step.address)
            if not estimate or estimate == NOTHING or step.wanted.fingerprint in counted:
                continue
            if any(need in refused for need in step.after):
                continue
            counted.add(step.wanted.fingerprint)
            labels = step.wanted.labels
            if why := budgets.refusal(self.budgets, entries, labels, estimate, now):
                refused[step.address] = why
            else:
                entries.append(budgets.Entry(now, labels, budgets.most(estimate)))
        return {
            step.wanted.fingerprint: refused[step.address] for step in made.steps if step.address in refused
        }

    def bill(self, wanted: Wanted, resources: Resources) -> "Bill | None":
        """What has to be reserved before it is asked for; None for what costs nothing."""
        if wanted.address.kind not in work.COSTING:
            return None
        from reconciler.money.ledger import Bill

        patient = replace(self, counter=replace(self.counter, whole=True))
        comes_to, estimate = patient._estimate(wanted, resources, self._paces())
        return Bill(self.project, wanted.labels, comes_to, estimate, self.budgets)

    def settle(self, actual: Mapping[str, Seen | Unseen], now: float) -> None:
        """Write down what finished things did cost."""
        if not (waiting := self._unsettled()):
            return
        for observed in _objects(actual):
            if observed.id not in waiting:
                continue
            if observed.state is State.WORKING:
                self.watched[observed.id] = now
                continue
            intent, comes_to = waiting[observed.id]
            seconds = self._watched(observed.id, intent.opened_at, now)
            self._settle(intent, expense.actual(comes_to, observed, seconds, self.rates), now)

    def owed(self, actual: Mapping[str, Seen | Unseen]) -> dict[str, set[str]]:
        """By kind, the ids of what is not settled and was left out of what was seen."""
        seen = {observed.id for observed in _objects(actual)}
        owed: dict[str, set[str]] = {}
        for id, (intent, _) in self._unsettled().items():
            kind = Address.parse(intent.address).kind
            if id not in seen and not isinstance(actual.get(kind), Unseen):
                owed.setdefault(kind, set()).add(id)
        return owed

    def lost(self, ids: Iterable[str], now: float) -> None:
        """What nobody will ever see finished: what was reserved for it stays spent."""
        waiting = self._unsettled()
        for id in ids:
            if id in waiting:
                self._settle(waiting[id][0], expense.Actual(None, None, why="it was deleted unsettled"), now)

    def refusal(self, wanted: Wanted, resources: Resources, now: float) -> str | None:
        """Why there is no money for it now; None where there is."""
        if not self.budgets or not (asked := self.bill(wanted, resources)):
            return None
        entries = [line.entry for line in self.ledger.lines(self.project)] if self.ledger else []
        return budgets.refusal(self.budgets, entries, wanted.labels, asked.estimate, now)

    def _unsettled(self) -> dict[str, tuple[Intent, Work]]:
        return self.ledger.unsettled(self.project, self.platform) if self.ledger else {}

    def _settle(self, intent: Intent, actual: expense.Actual, now: float) -> None:
        assert self.ledger is not None  # or nothing would be unsettled
        self.ledger.settle(intent, actual, now)

    def _watched(self, id: str, since: float, now: float) -> float | None:
        """How long it took, if somebody looked shortly before it ended."""
        last = self.watched.pop(id, None)
        seen_end = last is not None and now - last <= max(NEAR, (now - since) / 10)
        return now - since if seen_end else None

    def _estimate(self, wanted: Wanted, resources: Resources, paces: Sequence[Pace]) -> tuple[Work, Estimate]:
        try:
            comes_to = work.of(wanted, resources, self.platform, self.counter)
        except OSError as error:
            comes_to = replace(work.UNCOUNTED, untold=f"{error.filename} cannot be read")
        return (
            (comes_to, expense.estimate(comes_to, self.rates, paces))
            if comes_to
            else (work.UNCOUNTED, NOTHING)
        )

    def _paces(self) -> list[Pace]:
        return self.ledger.paces(self.platform) if self.ledger else []

    def _standing(self, made: Plan, resources: Resources) -> Iterator[Pace]:
        """What the platform itself still tells of finished jobs and runs."""
        for step in made.steps:
            observed = step.decision.observed
            if step.address.kind in work.COSTING and observed and observed.state is State.READY:
                yield from expense.reported(work.like(step.wanted, resources, self.platform), observed)


def _rates(spec: ProjectSpec, platform: str) -> Rates:
    place = spec.platforms[platform]
    own = isinstance(place, Embedded) or not (urlsplit(place.base_url).hostname or "").endswith(VENDOR)
    return Rates(spec.prices.book(), own)


def _objects(actual: Mapping[str, Seen | Unseen]) -> Iterable[Observed]:
    for kind in work.COSTING:
        seen = actual.get(kind)
        if isinstance(seen, Seen):
            yield from (each for hits in seen.by_fingerprint.values() for each in hits)
            yield from seen.unstamped.values()
