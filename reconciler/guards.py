"""
What may stop a step that would act, beside what stands: each guard looks at one step and answers with
the decision that takes its place, or lets it act. Plan and apply ask the same guards. Pure.
"""

from collections.abc import Mapping

from reconciler.kind import Action, Decision, Halt
from reconciler.kinds.project import ProjectSpec
from reconciler.plan import Guard, Step
from reconciler.resource import LEFT_OUT


def of(project: ProjectSpec) -> tuple[Guard, ...]:
    """All that a project asks for."""
    return (suspension(project.suspend), exclusion)


def suspension(project: bool) -> Guard:
    """Nothing is made for what its manifest, or the whole project, suspends."""

    def guard(step: Step) -> Decision | None:
        if not (project or step.wanted.body.get("suspend")):
            return None
        who = "its project" if project else "it"
        why = f"{who} is suspended; take suspend: true out of the manifest to go on"
        return Decision(Action.BLOCK, why, step.decision.observed, halt=Halt.SUSPENDED)

    return guard


def budget(refusals: Mapping[str, str]) -> Guard:
    """Nothing is made that budgets have no room for; `refusals` are sentences, by fingerprint."""

    def guard(step: Step) -> Decision | None:
        why = refusals.get(step.wanted.fingerprint)
        return Decision(Action.BLOCK, why, step.decision.observed, halt=Halt.REFUSED) if why else None

    return guard


def exclusion(step: Step) -> Decision | None:
    """Nothing is made for what somebody left out; what needs it waits."""
    pattern = step.wanted.facts.get(LEFT_OUT)
    why = f"left out by --exclude {pattern}"
    return Decision(Action.BLOCK, why, step.decision.observed, halt=Halt.LATER) if pattern else None


def building(step: Step) -> Decision | None:
    """No channel is touched; what was measured is told, and moves it another time."""
    decision = step.decision
    if step.address.kind != "PromotionRule":
        return None
    why = f"{decision.why}; not moved, because this apply only builds"
    return Decision(Action.BLOCK, why, decision.observed, evidence=decision.evidence, halt=Halt.LATER)
