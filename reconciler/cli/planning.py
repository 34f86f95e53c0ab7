"""Plans that are written down and carried out later: by another command, another person, or a merge."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from reconciler import git, savedplan
from reconciler.cli import commands, terms
from reconciler.cli.terms import FREE
from reconciler.errors import ReconcilerError
from reconciler.plan import Plan
from reconciler.project import Project


def write(out: Path, project: Project, platform: str, made: Plan) -> None:
    """Write a plan down. Raises ReconcilerError."""
    saved = savedplan.save(
        made,
        {},
        project=project.name,
        platform=platform,
        folder=os.path.relpath(project.root),
        created_at=datetime.fromtimestamp(time.time(), UTC).isoformat(),
        commit=git.commit(project.root),
    )
    try:
        temporary = out.with_name(f".{out.name}.{os.getpid()}")
        temporary.write_text(savedplan.text_of(saved))
        temporary.replace(out)
    except OSError as error:
        raise ReconcilerError(f"{out} cannot be written: {error.strerror}") from None


def apply(
    target: Path,
    output: str,
    platform: str | None,
    wait: bool,
    timeout: float | None,
    folder: Path | None,
    approved: Path | None,
    build: bool,
) -> int:
    """Apply a folder, or the plan in a file."""
    if target.is_file():
        return _carry_out(target, output, platform, wait, timeout, folder, approved, build)
    if folder:
        raise ReconcilerError(f"--dir says where the manifests of a saved plan lie; {target} is no plan file")
    if approved and build:
        raise ReconcilerError("--build and --approved do not go together; build before the approval")
    held = FREE
    if approved:
        saved = savedplan.read(approved)
        platform = _on(saved, approved, platform)
        held = terms.approved(saved)
    elif build:
        held = terms.building()
    return commands.apply(target, output, platform, wait, timeout, held)


def _carry_out(
    path: Path,
    output: str,
    platform: str | None,
    wait: bool,
    timeout: float | None,
    folder: Path | None,
    approved: Path | None,
    build: bool,
) -> int:
    if approved or build:
        option = "--approved" if approved else "--build"
        raise ReconcilerError(f"{option} goes with a folder of manifests; {path} is a file")
    saved = savedplan.read(path)
    name = _on(saved, path, platform)
    return commands.apply(folder or Path(saved.folder), output, name, wait, timeout, terms.planned(saved))


def _on(saved: savedplan.SavedPlan, path: Path, platform: str | None) -> str:
    """The platform that it was planned for. Raises ReconcilerError where another one is asked for."""
    if platform not in (None, saved.platform):
        raise ReconcilerError(f"{path} was planned for {saved.platform}, not for {platform}")
    return saved.platform
