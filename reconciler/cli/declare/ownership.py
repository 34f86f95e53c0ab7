"""Commands about what belongs to a project: drift, prune, destroy, adopt."""

from typing import Annotated

import typer

from reconciler.cli.app import HERE, Folder, On, Out, Output, Sets, app
from reconciler.cli.declare.channels import By

Empty = Annotated[
    bool, typer.Option("--empty", help="believe a list that came back empty although something was applied")
]


@app.command()
def drift(
    folder: Folder = HERE,
    output: Out = Output.TEXT,
    platform: On = None,
    days: Annotated[
        int, typer.Option(help="how many days before a model is switched off it is told", min=0)
    ] = 90,
    given: Sets = None,
) -> None:
    """Say what has come about since the last apply. Exit 3 when something has."""
    from reconciler.cli import drifts

    raise typer.Exit(drifts.tell(folder, output, platform, days))


@app.command()
def prune(
    by: By,
    folder: Folder = HERE,
    output: Out = Output.TEXT,
    platform: On = None,
    yes: Annotated[bool, typer.Option("--yes", help="delete, do not only say what would be")] = False,
    superseded: Annotated[
        bool, typer.Option("--superseded", help="also old versions of what is still declared")
    ] = False,
    fuse: Annotated[
        int | None,
        typer.Option(help="how many at most; 3, or a tenth of what stands if that is more", min=0),
    ] = None,
    empty: Empty = False,
    given: Sets = None,
) -> None:
    """
    Delete what the project made, no manifest wants any more and nothing needs. Exit 2 when there is something.

    What a release leads to or led to stays, what is protected stays, and a channel goes with destroy alone.
    """
    from reconciler.cli import ownership
    from reconciler.pruning import Policy

    policy = Policy(superseded, fuse)
    raise typer.Exit(ownership.prune(folder, output, platform, policy, by, yes=yes, empty=empty))


@app.command()
def destroy(
    by: By,
    folder: Folder = HERE,
    output: Out = Output.TEXT,
    platform: On = None,
    yes: Annotated[
        str | None, typer.Option("--yes", help="the project's name: take it down", metavar="PROJECT")
    ] = None,
    releases: Annotated[
        bool, typer.Option("--releases", help="take its channels off the air as well")
    ] = False,
    empty: Empty = False,
    given: Sets = None,
) -> None:
    """
    Delete everything the project made on a platform. Exit 2 when there is something, 6 when something forbids it.

    Its manifests stay, and so does what other projects made.
    """
    from reconciler.cli import ownership

    raise typer.Exit(ownership.destroy(folder, output, platform, by, yes=yes, releases=releases, empty=empty))


@app.command()
def adopt(
    address: Annotated[str, typer.Argument(help="Kind/name", metavar="KIND/NAME")],
    id: Annotated[str, typer.Argument(help="the object's id on the platform", metavar="ID")],
    by: By,
    folder: Folder = HERE,
    platform: On = None,
    given: Sets = None,
) -> None:
    """Let something that was made elsewhere stand for a manifest, if it is what that asks for."""
    from reconciler.cli import ownership

    raise typer.Exit(ownership.adopt(address, id, folder, platform, by))
