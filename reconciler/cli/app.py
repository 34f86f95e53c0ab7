"""The one command line, and the words that commands share. Nothing heavy is imported here, nor by any declaration."""

import os
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


def _given(assignments: list[str] | None) -> list[str] | None:
    """Say them in this process's environment, where whoever reads manifests looks for them."""
    from reconciler.variables import SET

    for each in assignments or ():
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{each} is no NAME=VALUE")
        os.environ[SET + name] = value
    return assignments


Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="only this and what it needs; * stands for anything, and more may be named",
        metavar="KIND/NAME",
    ),
]
Excludes = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude", help="leave this as it stands; what needs it waits for it", metavar="KIND/NAME"
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="the value of a variable of the project", metavar="NAME=VALUE", callback=_given
    ),
]


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
