"""What a workflow runs: the same commands, told to the pull request, the check, the summary or the issue."""

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.app import HERE, Folder, On, _help, app

ci_app = typer.Typer(help="In GitHub Actions: check, plan, build and apply, and say it on the pull request.")
app.add_typer(ci_app, name="ci")

Author = Annotated[
    str, typer.Option(help="who the token writes as; only what they wrote is edited", metavar="LOGIN")
]
WRITER = "github-actions[bot]"
Kept = Annotated[Path, typer.Option("--out", help="where the plan is written for upload", metavar="FILE")]
PLAN = Path("plan.json")
Base = Annotated[
    str | None,
    typer.Option(help="the commit to compare with; the branch it asks to be merged into", metavar="REF"),
]
Timeout = Annotated[float | None, typer.Option(help="stop waiting after so many seconds (exit 7)")]


@ci_app.callback(invoke_without_command=True)
def root(context: typer.Context) -> None:
    _help(context)


@ci_app.command()
def validate(folder: Folder = HERE) -> None:
    """Check every manifest and every row, and mark what is wrong. Needs no token: forks may run it."""
    from reconciler.cli import ci

    raise typer.Exit(ci.validate(folder))


@ci_app.command()
def plan(
    folder: Folder = HERE, platform: On = None, out: Kept = PLAN, base: Base = None, author: Author = WRITER
) -> None:
    """Plan a pull request: one comment, a check with remarks at lines, and the plan in a file."""
    from reconciler.cli import ci

    raise typer.Exit(ci.plan(ci.job(folder, platform, author), out, base))


@ci_app.command()
def build(
    folder: Folder = HERE,
    platform: On = None,
    out: Kept = PLAN,
    base: Base = None,
    timeout: Timeout = None,
    author: Author = WRITER,
) -> None:
    """Train and measure what a pull request asks for, touching no channel; then plan it again."""
    from reconciler.cli import ci

    raise typer.Exit(ci.build(ci.job(folder, platform, author), out, base, timeout))


@ci_app.command()
def apply(
    folder: Folder = HERE, platform: On = None, timeout: Timeout = None, author: Author = WRITER
) -> None:
    """Apply a merge, and nothing that its pull request's plan did not show."""
    from reconciler.cli import ci

    raise typer.Exit(ci.apply(ci.job(folder, platform, author), timeout))


@ci_app.command()
def drift(
    folder: Folder = HERE,
    platform: On = None,
    days: Annotated[
        int, typer.Option(help="how many days before a model is switched off it is told", min=0)
    ] = 90,
    author: Author = WRITER,
) -> None:
    """Keep one issue up to date about what drifted; closed while nothing has."""
    from reconciler.cli import ci

    raise typer.Exit(ci.drift(ci.job(folder, platform, author), days))
