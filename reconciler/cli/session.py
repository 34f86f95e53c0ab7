"""Opening a project's world, to look at or to change: the one place where everything is put together."""

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

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
    from reconciler.journal import Journal, me

    keep(project.data)
    journal = Journal.at(project.journal)
    with _platform(project, name, write=True, trains=trains) as platform:
        world = World(project.name, all_kinds(), _releasing(project, name, platform), guards.of(project.spec))
        yield world, Creator(world.platform, journal, me(), time.time)


def memory(project: Project, name: str) -> dict[Address, Remembered]:
    """What every address stood for when it was last applied; empty where nothing ever was."""
    if not project.journal.exists():
        return {}
    from reconciler.journal import Journal

    journal = Journal.peek(project.journal)
    return journal.recall(name) if journal else {}


def events(project: Project, address: Address) -> list[dict[str, Any]]:
    """What happened to a resource lately, newest first."""
    if not project.journal.exists():
        return []
    from reconciler.journal import Journal

    journal = Journal.peek(project.journal)
    return journal.events(address, limit=10) if journal else []


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
