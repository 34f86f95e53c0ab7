"""The one command line, and the words that commands share. Nothing heavy is imported here, nor by any declaration."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reconciler import __version__

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="GitOps for model optimization: manifests in, measured and promoted models out.",
)
platform_app = typer.Typer(help="The self-hosted platform, on its own.")
app.add_typer(platform_app, name="platform")


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


Folder = Annotated[Path, typer.Argument(help="the folder of manifests")]
Out = Annotated[Output, typer.Option("--output", "-o", help="how to say it")]
On = Annotated[
    str | None, typer.Option("--platform", help="a platform of the project other than its default")
]
HERE = Path("manifests")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="say the version and stop")] = False,
) -> None:
    if version:
        print(f"reconciler {__version__}")
        raise typer.Exit
    _help(context)


@platform_app.callback(invoke_without_command=True)
def platform_root(context: typer.Context) -> None:
    _help(context)


def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
