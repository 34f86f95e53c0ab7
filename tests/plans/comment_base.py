"""A git repository with a tree of manifests on a branch, and the comment that its pull request gets."""

import subprocess
from pathlib import Path

from core_base import Applier

from reconciler import baseline, engine, project
from reconciler import plan as planning
from reconciler.cli import commands, comment
from reconciler.cli import planning as cli
from reconciler.compare import compare


def git(folder: Path, *command: str) -> str:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *command], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(folder: Path, message: str = "a change") -> str:
    """Everything in a folder, as a commit of its repository, which is made if need be."""
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
    (folder / ".gitignore").write_text(".reconciler/\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


def commented(applier: Applier, ref: str = "main", **known: object) -> str:
    """The comment on what stands in the working tree, against `ref`."""
    with baseline.at(applier.root, ref) as before:
        wanted = project.load(applier.root)
        sight = engine.look(wanted.desired, applier.world)
        made = planning.make(sight.desired, applier.world.kinds, sight.actual, sight.evidence, {}, ())
        compared = compare(made, before.desired)
        subject = comment.Subject(
            "demo", "memory", ref, compared, before.note,
            examples=cli._examples(compared, before.desired, wanted.spec.show_rows),
            detectable=cli._detectable(compared),
            **known,  # type: ignore[arg-type]  # estimates
        )  # fmt: skip
        return comment.comment(subject, commands.locate)
