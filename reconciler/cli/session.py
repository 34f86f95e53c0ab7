"""Opening a project's world, to look at or to change: the one place where everything is put together."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reconciler import git, guards
from reconciler.cost import Estimate
from reconciler.creation import Creator
from reconciler.engine import World
from reconciler.errors import ReconcilerError
from reconciler.kind import Kind
from reconciler.kinds import all_kinds
from reconciler.kinds.project import Embedded
from reconciler.kinds.promotionrule import PromotionRuleKind
from reconciler.money.accounts import Accounts
from reconciler.plan import Guard, Plan, Remembered
from reconciler.platforms.openai import OpenAI
from reconciler.platforms.releases import WithReleases
from reconciler.platforms.wrappers import ReadOnly
from reconciler.policy import Policies, Rule
from reconciler.project import Project, keep
from reconciler.resource import Address
from reconciler.world import Platform

if TYPE_CHECKING:  # the database library is only loaded by those who need it
    from reconciler.journal import Journal


def chosen(project: Project, name: str | None) -> str:
    """The platform's name: the one asked for, or the project's default. Raises ReconcilerError."""
    name = name or project.spec.platform
    if name not in project.spec.platforms:
        known = ", ".join(project.spec.platforms)
        raise ReconcilerError(f"the project has no platform named {name}; it has {known}")
    return name


@contextmanager
def reading(project: Project, name: str) -> Iterator[World]:
    """The world to look at: nothing can be written through it."""
    with _platform(project, name, write=False) as platform:
        yield World(
            project.name,
            _kinds(project),
            ReadOnly(_releasing(project, name, platform)),
            guards.of(project.spec),
            policies=policies(project, lambda made: estimates(project, name, made)),
            gone=gone(project, name),
        )


@contextmanager
def writing(
    project: Project, name: str, commit: Callable[[], str | None] | None = None, *, trains: bool = True
) -> Iterator[tuple[World, Creator]]:
    """
    The world to change, and the hand that does. A platform that is started for it may be told to train nothing.

    `commit` tells which one the manifests are at; git is asked in their folder if unset.
    """
    from reconciler import owner
    from reconciler.holder import me
    from reconciler.journal import Journal

    keep(project.data)
    journal = Journal.open(project.journal_url(os.environ))
    series = owner.series(journal, project.name, shared=project.spec.journal is not None)
    with _platform(project, name, write=True, trains=trains) as platform:
        books = accounts(project, name, journal).opened()
        world = World(
            project.name, _kinds(project), _releasing(project, name, platform, commit), guards.of(project.spec),
            accounts=books, policies=policies(project, books.estimates), gone=gone(project, name),
        )  # fmt: skip
        yield world, Creator(world.platform, journal, me(), time.time, series)


def renewed(project: Project, world: World) -> World:
    """The same world, for manifests that may have changed all but its platform and its journal."""
    books = world.accounts.following(project.spec) if world.accounts else None
    rules = policies(project, books.estimates if books else lambda made: {})
    return replace(
        world, kinds=_kinds(project), guards=guards.of(project.spec), accounts=books, policies=rules
    )


def policies(project: Project, estimates: Callable[[Plan], Mapping[Address, Estimate]]) -> Policies | None:
    """What the project forbids; None where that is nothing."""
    if not project.spec.policies:
        return None
    from reconciler import celprocess

    declared = next((each for address, each in project.desired.items() if address.kind == "Project"), None)
    places = declared.facts["policies"] if declared else ["the project"] * len(project.spec.policies)
    told = zip(project.spec.policies, places, strict=True)
    rules = tuple(Rule(each.name, each.rule, each.message, where) for each, where in told)
    return Policies(rules, _kinds(project), celprocess.shared(), estimates, time.time)


def accounts(project: Project, name: str, journal: "Journal | None") -> Accounts:
    """The project's prices, budgets and ledger; a journal that was opened to look at is never written."""
    from reconciler.money.ledger import Ledger

    ledger = Ledger(journal) if journal else None
    return Accounts.of(project.name, project.spec, name, project.data, ledger)


def estimates(project: Project, name: str, made: Plan) -> dict[Address, Estimate]:
    """What every step will take that would act."""
    if not made.pending:
        return {}
    return accounts(project, name, peek(project)).estimates(made)


def unaffordable(project: Project, name: str, made: Plan) -> tuple[Guard, ...]:
    """What stops the steps of a plan that the project's budgets have no room for."""
    if not project.spec.budgets or not made.pending:
        return ()
    books = accounts(project, name, peek(project))
    return (guards.budget(books.refusals(made, books.estimates(made), time.time())),)


def memory(project: Project, name: str) -> dict[Address, Remembered]:
    """What every address stood for when it was last applied; empty where nothing ever was."""
    journal = peek(project)
    return journal.recall(name) if journal else {}


def gone(project: Project, name: str) -> frozenset[str]:
    """The ids of what was deleted here, and what the platform lists all the same."""
    from reconciler import upkeep

    journal = peek(project)
    return upkeep.gone(journal, name) if journal else frozenset()


def events(project: Project, address: Address) -> list[dict[str, Any]]:
    """What happened to a resource lately, newest first."""
    journal = peek(project)
    return journal.events(address, limit=10) if journal else []


def peek(project: Project) -> "Journal | None":
    """The journal to look at; None where nothing was ever written."""
    if project.spec.journal is None and not (project.data / "journal.db").exists():
        return None
    from reconciler.journal import Journal

    return Journal.peek(project.journal_url(os.environ))


def _kinds(project: Project) -> dict[str, Kind]:
    """Every kind; the one that judges costs knows the project's prices."""
    return all_kinds() | {"PromotionRule": PromotionRuleKind(project.spec.prices.book().own)}


def _releasing(
    project: Project, name: str, platform: Platform, commit: Callable[[], str | None] | None = None
) -> WithReleases:
    """With releases as files; those of a platform other than the default in a folder of their own."""
    own = name != project.spec.platform
    folder = project.releases / f"@{name}" if own else project.releases
    return WithReleases(platform, folder, commit or (lambda: git.commit(project.root)))


@contextmanager
def _platform(project: Project, name: str, *, write: bool, trains: bool = True) -> Iterator[Platform]:
    from reconciler.platforms import embedded

    spec = project.spec.platforms[name]
    if isinstance(spec, Embedded):
        data = project.data / spec.data
        if write:
            with embedded.attach(data, name=name, trains=trains) as attached:
                yield attached
        else:
            with embedded.look(data, name=name) as looked:
                yield looked
    else:
        key = os.environ.get(spec.api_key_env)
        with closing(OpenAI(spec.base_url, name=name, key=key, key_env=spec.api_key_env)) as platform:
            yield platform
