"""Commands of the self-hosted platform."""

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.app import platform_app

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@platform_app.command(context_settings=PASS_ON)
def serve(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="where the platform keeps everything")] = Path("platform-data"),
    host: Annotated[
        str, typer.Option(help="the address to listen on; beyond loopback a key must exist")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="the port to listen on")] = 8321,
) -> None:
    """Serve OpenAI's contract from this machine, for any OpenAI client. More options go to the server as they are."""
    from reconciler.cli import commands

    commands.serve(["serve", "--data", str(data), "--host", host, "--port", str(port), *context.args])


@platform_app.command(context_settings=PASS_ON)
def keys(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="where the platform keeps everything")] = Path("platform-data"),
) -> None:
    """Keys to the platform: add NAME, list, revoke NAME."""
    from reconciler.cli import commands

    commands.serve(["keys", *context.args, "--data", str(data)])
