"""
What one apply is held to, beyond what its project says: only to build, to what was approved, or to a saved plan.

Each first looks at what would be done and may refuse it, then stands guard over every pass.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler import guards, savedplan
from reconciler.engine import Pass
from reconciler.errors import Refused
from reconciler.kind import Action, Halt
from reconciler.plan import Guard, Plan
from reconciler.savedplan import SavedPlan

if TYPE_CHECKING:  # the database library is only loaded by those who write
    from reconciler.creation import Creator


@dataclass(frozen=True)
class Terms:
    """Nothing more than the project says."""

    guards: tuple[Guard, ...] = ()

    def accept(self, project: str, plan: Plan, creator: "Creator") -> None:
        """Let it be done, or raise Refused."""

    def ended(self, done: Pass, creator: "Creator") -> str | None:
        """Take note of how it ended, and say what kept it from coming to its end."""
        return None


FREE = Terms()


@dataclass(frozen=True)
class Approved(Terms):
    """Nothing that was not approved."""

    saved: SavedPlan = field(kw_only=True)

    def accept(self, project: str, plan: Plan, creator: "Creator") -> None:
        _same(project, self.saved)
        savedplan.allow(self.saved, plan)


@dataclass(frozen=True)
class Saved(Terms):
    """Exactly what was planned, once, and while the facts that it rests on hold."""

    saved: SavedPlan = field(kw_only=True)

    def accept(self, project: str, plan: Plan, creator: "Creator") -> None:
        from reconciler.planbook import PlanBook

        _same(project, self.saved)
        journal, platform = creator.journal, creator.platform.name
        book = PlanBook(journal)
        carried = book.find(self.saved.digest)
        if carried and carried.finished_at is not None:
            raise Refused("this plan was carried out before, and is carried out once; plan again")
        asked = journal.open_intents(platform)

        def made(fingerprint: str) -> str | None:
            return "" if fingerprint in asked else journal.made(platform, fingerprint)

        savedplan.hold_to(self.saved, plan, carried is not None, made)
        book.begin(self.saved.digest, platform, creator.now())

    def ended(self, done: Pass, creator: "Creator") -> str | None:
        from reconciler.planbook import PlanBook

        if not done.settled or done.failed:
            return None
        PlanBook(creator.journal).finish(self.saved.digest, creator.now())
        for step in done.steps:
            planned = str(step.address) in self.saved.allowed
            if planned and step.action is Action.BLOCK and step.decision.halt is Halt.LATER:
                return f"{step.address} cannot be finished by this plan: {step.decision.why}"
        return None


def building() -> Terms:
    """Everything is made and measured, and no channel is touched."""
    return Terms((guards.building,))


def approved(saved: SavedPlan) -> Terms:
    return Approved((savedplan.only(saved, Halt.REFUSED),), saved=saved)


def planned(saved: SavedPlan) -> Terms:
    return Saved((savedplan.only(saved, Halt.LATER),), saved=saved)


def _same(project: str, saved: SavedPlan) -> None:
    if saved.project != project:
        raise Refused(f"this plan is for the project {saved.project}, and these manifests are {project}'s")
