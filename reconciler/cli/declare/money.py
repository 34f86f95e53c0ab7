"""The command about money."""

import typer

from reconciler.cli.app import HERE, Folder, Out, Output, app


@app.command()
def costs(folder: Folder = HERE, output: Out = Output.TEXT) -> None:
    """Show what was spent and what is reserved: by resource, by month, by budget."""
    from reconciler.cli import costs

    raise typer.Exit(costs.costs(folder, output))
