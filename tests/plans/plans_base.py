"""What tests of saved plans share: to plan, to write down, to carry out, with a platform in memory."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core_base import Applier
from memory_platform import MemoryPlatform

from reconciler import celprocess, engine, guards, project, savedplan
from reconciler import plan as planning
from reconciler.cli.terms import Terms
from reconciler.cost import Estimate
from reconciler.engine import Pass
from reconciler.plan import Plan
from reconciler.policy import Policies, Rule
from reconciler.resource import Address
from reconciler.savedplan import SavedPlan

AT = "2026-11-25T12:00:00+00:00"
RULE = "PromotionRule/production"


def planned(applier: Applier) -> Plan:
    """The plan of a tree as it is written now."""
    wanted = project.load(applier.root)
    sight = engine.look(wanted.desired, applier.world)
    made = guards.of(wanted.spec)
    return planning.make(sight.desired, applier.world.kinds, sight.actual, sight.evidence, {}, made)


def saved(applier: Applier, at: str = AT) -> SavedPlan:
    return savedplan.save(
        planned(applier),
        {},
        project="demo",
        platform="memory",
        folder="manifests",
        created_at=at,
        commit=None,
    )


def passes(applier: Applier, terms: Terms, count: int = 3, *, learns: bool = True) -> Pass:
    """So many passes of an apply that is held to terms; jobs and runs end between them."""
    terms.accept("demo", planned(applier), applier.creator)
    wanted = project.load(applier.root)
    world = replace(applier.world, guards=(*guards.of(wanted.spec), *terms.guards))
    platform = applier.platform
    assert isinstance(platform, MemoryPlatform)
    for _ in range(count):
        done = engine.once(wanted.desired, world, applier.creator, Silent())
        platform.finish_jobs()
        platform.finish_runs(lambda model, index: learns and model.startswith("ft:"))
    terms.ended(done, applier.creator)
    return done


def written(path: Path, plan: SavedPlan) -> Path:
    path.write_text(savedplan.text_of(plan))
    return path


class Silent:
    """Sees everything and says nothing."""

    def uploading(self, *_: object) -> None: ...

    def made(self, *_: object) -> None: ...

    def waiting(self, *_: object) -> None: ...


def planned_under(
    applier: Applier, known: Mapping[Address, Estimate], at: float, *, plan: bool = False
) -> Any:
    """The world of a tree under its policies, with so much known of costs at that time; or the plan in it."""
    wanted = project.load(applier.root)
    places = next(each for each in wanted.desired.values() if each.address.kind == "Project").facts[
        "policies"
    ]
    rules = tuple(
        Rule(each.name, each.rule, each.message, where)
        for each, where in zip(wanted.spec.policies, places, strict=True)
    )
    policies = Policies(rules, applier.world.kinds, celprocess.shared(), lambda _: known, lambda: at)
    world = replace(applier.world, guards=guards.of(wanted.spec), policies=policies)
    if not plan:
        return world
    sight = engine.look(wanted.desired, world)
    seen = (sight.desired, world.kinds, sight.actual, sight.evidence, {})
    would = planning.make(*seen, world.guards)
    return planning.make(*seen, (*world.guards, policies.guard(would)))
