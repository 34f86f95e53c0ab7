"""Opening a project's world, to look at or to change: the one place where everything is put together."""

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from reconciler import git, guards
from reconciler.creation import Creator
from reconciler.engine import World
from reconciler.errors import ReconcilerError
from reconciler.kinds import all_kinds
from reconciler.kinds.project import Embedded
from reconciler.plan import Remembered
from reconciler.platforms.openai import OpenAI
from reconciler.platforms.releases import WithReleases
from reconciler.platforms.wrappers import ReadOnly
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
            project.name, all_kinds(), ReadOnly(_releasing(project, name, platform)), guards.of(project.spec)
        )


@contextmanager
def writing(project: Project, name: str, *, trains: bool = True) -> Iterator[tuple[World, Creator]]:
    """The world to change, and the hand that does. A platform that is started for it may be told to train nothing."""
    from reconciler.holder import me
    from reconciler.journal import Journal

    keep(project.data)
    journal = Journal.open(project.journal_url(os.environ))
    with _platform(project, name, write=True, trains=trains) as platform:
        world = World(project.name, all_kinds(), _releasing(project, name, platform), guards.of(project.spec))
        yield world, Creator(world.platform, journal, me(), time.time)


def memory(project: Project, name: str) -> dict[Address, Remembered]:
    """What every address stood for when it was last applied; empty where nothing ever was."""
    journal = peek(project)
    return journal.recall(name) if journal else {}


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


def _releasing(project: Project, name: str, platform: Platform) -> WithReleases:
    """With releases as files; those of a platform other than the default in a folder of their own."""
    own = name != project.spec.platform
    folder = project.releases / f"@{name}" if own else project.releases
    return WithReleases(platform, folder, lambda: git.commit(project.root))


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
