"""Opening a project's world, to look at or to change: the one place where everything is put together."""

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

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
        yield World(project.name, all_kinds(), ReadOnly(WithReleases(platform, project.releases)))


@contextmanager
def writing(project: Project, name: str) -> Iterator[tuple[World, Creator]]:
    """The world to change, and the hand that does."""
    from reconciler.journal import Journal, me

    keep(project.data)
    journal = Journal.at(project.journal)
    with _platform(project, name, write=True) as platform:
        world = World(project.name, all_kinds(), WithReleases(platform, project.releases))
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


@contextmanager
def _platform(project: Project, name: str, *, write: bool) -> Iterator[Platform]:
    from reconciler.platforms import embedded

    spec = project.spec.platforms[name]
    if isinstance(spec, Embedded):
        opened = embedded.attach if write else embedded.look
        with opened(project.data / spec.data, name=name) as platform:
            yield platform
    else:
        key = os.environ.get(spec.api_key_env)
        with closing(OpenAI(spec.base_url, name=name, key=key, key_env=spec.api_key_env)) as platform:
            yield platform
