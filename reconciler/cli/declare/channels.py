"""Commands about releases: where channels lead, and who says so."""

import getpass
from typing import Annotated

import typer

from reconciler.cli.app import HERE, Folder, On, Out, Output, app

Channel = Annotated[str, typer.Argument(help="the name that applications call")]
By = Annotated[str, typer.Option("--by", help="who says so, for the record", default_factory=getpass.getuser)]


@app.command()
def releases(folder: Folder = HERE, output: Out = Output.TEXT, platform: On = None) -> None:
    """Show where every channel leads, since when, by whom, and what holds it."""
    from reconciler.cli import channels

    raise typer.Exit(channels.releases(folder, output, platform))


@app.command()
def approve(
    rule: Annotated[str, typer.Argument(help="PromotionRule/name", metavar="RULE")],
    by: By,
    folder: Folder = HERE,
    platform: On = None,
) -> None:
    """Say yes to what a rule found good, and move its channel."""
    from reconciler.cli import channels

    raise typer.Exit(channels.approve(rule, by, folder, platform))


@app.command()
def hold(
    channel: Channel,
    by: By,
    reason: Annotated[str, typer.Option(help="why")],
    folder: Folder = HERE,
    platform: On = None,
) -> None:
    """Let nothing automatic move a channel, until it is lifted."""
    from reconciler.cli import channels

    raise typer.Exit(channels.hold(channel, reason, by, folder, platform))


@app.command()
def lift(channel: Channel, by: By, folder: Folder = HERE, platform: On = None) -> None:
    """End a hold."""
    from reconciler.cli import channels

    raise typer.Exit(channels.lift(channel, by, folder, platform))


@app.command()
def rollback(
    channel: Channel,
    by: By,
    folder: Folder = HERE,
    to: Annotated[
        str | None, typer.Option(help="a model that was released there, or how many releases back")
    ] = None,
    reason: Annotated[str, typer.Option(help="why")] = "rolled back by hand",
    platform: On = None,
) -> None:
    """Lead a channel back to what it led to before, at once, and hold it there. Trains nothing."""
    from reconciler.cli import channels

    raise typer.Exit(channels.rollback(channel, to, reason, by, folder, platform))
