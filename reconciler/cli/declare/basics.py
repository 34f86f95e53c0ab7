"""Commands of every day: check, plan, apply, look, explain, report."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.app import HERE, Excludes, Folder, On, Out, Output, Sets, Targets, app


class Drawing(StrEnum):
    MERMAID = "mermaid"
    DOT = "dot"


class ReportFormat(StrEnum):
    HTML = "html"
    MARKDOWN = "markdown"
    JUNIT = "junit"
    CSV = "csv"
    JSONL = "jsonl"


@app.command()
def validate(folder: Folder = HERE, output: Out = Output.TEXT, given: Sets = None) -> None:
    """Check every manifest and every row, without any platform."""
    from reconciler.cli import commands

    raise typer.Exit(commands.validate(folder, output))


@app.command()
def plan(
    folder: Folder = HERE,
    output: Out = Output.TEXT,
    platform: On = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="write the plan to a file that apply takes", metavar="FILE")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="explain what differs from this commit; as markdown: the comment of a pull request",
            metavar="REF",
        ),
    ] = None,
    targets: Targets = None,
    excludes: Excludes = None,
    given: Sets = None,
) -> None:
    """Show what apply would do, and why. Exit 2 when there is something."""
    from reconciler.cli import planning
    from reconciler.selection import choice

    raise typer.Exit(planning.plan(folder, output, platform, out, base, choice(targets, excludes)))


@app.command()
def apply(
    target: Annotated[
        Path, typer.Argument(help="the folder of manifests, or a plan file", metavar="DIR|PLAN")
    ] = HERE,
    output: Out = Output.TEXT,
    platform: On = None,
    wait: Annotated[bool, typer.Option(help="stay until everything is settled, or do one pass")] = True,
    timeout: Annotated[float | None, typer.Option(help="stop waiting after so many seconds (exit 7)")] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="where the manifests of a plan file lie now", metavar="DIR")
    ] = None,
    approved: Annotated[
        Path | None,
        typer.Option("--approved", help="do nothing that is not in this plan file", metavar="PLAN"),
    ] = None,
    build: Annotated[
        bool, typer.Option("--build", help="train and measure everything, and touch no channel")
    ] = False,
    targets: Targets = None,
    excludes: Excludes = None,
    given: Sets = None,
) -> None:
    """Make it so: upload, train, measure, promote. Safe to stop and to repeat."""
    from reconciler.cli import planning
    from reconciler.selection import choice

    chosen = choice(targets, excludes)
    raise typer.Exit(planning.apply(target, output, platform, wait, timeout, folder, approved, build, chosen))


@app.command()
def status(
    folder: Folder = HERE,
    output: Out = Output.TEXT,
    platform: On = None,
    targets: Targets = None,
    excludes: Excludes = None,
    given: Sets = None,
) -> None:
    """Show every resource as it stands."""
    from reconciler.cli import commands
    from reconciler.selection import choice

    raise typer.Exit(commands.status(folder, output, platform, choice(targets, excludes)))


@app.command()
def explain(
    address: Annotated[str, typer.Argument(help="Kind/name", metavar="KIND/NAME")],
    folder: Folder = HERE,
    output: Out = Output.TEXT,
    platform: On = None,
) -> None:
    """Say why a resource is in the state it is in, and what is next."""
    from reconciler.cli import commands

    raise typer.Exit(commands.explain(address, folder, output, platform))


@app.command()
def report(
    address: Annotated[str, typer.Argument(help="EvalRun/name or PromotionRule/name", metavar="KIND/NAME")],
    folder: Folder = HERE,
    format_: Annotated[ReportFormat, typer.Option("--format", help="what to write")] = ReportFormat.HTML,
    out: Annotated[Path | None, typer.Option(help="the file to write; the terminal if left out")] = None,
    items: Annotated[
        bool, typer.Option("--items", help="put items and answers into markdown and junit too")
    ] = False,
    platform: On = None,
) -> None:
    """
    Write what was measured: an offline page, Markdown for a pull request, JUnit, CSV or JSON Lines.

    html, csv and jsonl hold the eval's items and the models' answers: that is what they are for. markdown and
    junit hold names and numbers only, unless --items. Training rows and secrets are in none of them.
    """
    from reconciler.cli import reports

    raise typer.Exit(reports.report(address, folder, format_, out, platform, items))


@app.command()
def schema(kind: Annotated[str | None, typer.Argument(help="one kind; all if left out")] = None) -> None:
    """Print the JSON Schema of manifests, for editors."""
    from reconciler.cli import commands

    raise typer.Exit(commands.schema(kind))


@app.command()
def graph(
    folder: Folder = HERE,
    drawing: Annotated[Drawing, typer.Option("--format", help="how to draw it")] = Drawing.MERMAID,
) -> None:
    """Draw what depends on what."""
    from reconciler.cli import commands

    raise typer.Exit(commands.graph(folder, drawing))
