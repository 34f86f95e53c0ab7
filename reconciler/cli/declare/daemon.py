"""The command that stays."""

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.app import HERE, Excludes, Folder, On, Sets, Targets, app


@app.command()
def run(
    folder: Folder = HERE,
    platform: On = None,
    interval: Annotated[float, typer.Option(help="seconds between passes when nothing moves")] = 60.0,
    git: Annotated[
        str | None, typer.Option(help="follow a remote repository instead of a folder", metavar="URL")
    ] = None,
    branch: Annotated[str, typer.Option(help="its branch")] = "main",
    path: Annotated[str, typer.Option(help="the folder of manifests in it")] = ".",
    home: Annotated[
        Path | None,
        typer.Option(help="keeps what is fetched, the journal and the releases [./reconciler-home]"),
    ] = None,
    git_token_env: Annotated[
        str | None, typer.Option(help="the environment variable that holds a token for it", metavar="NAME")
    ] = None,
    verify_commits: Annotated[
        Path | None,
        typer.Option(help="take signed commits only; ssh's allowed signers file, or a GnuPG home"),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(help="answer health, metrics, status and webhooks here", metavar="HOST:PORT"),
    ] = None,
    http_token_env: Annotated[
        str, typer.Option(help="the variable with the token that /api wants; needed beyond 127.0.0.1")
    ] = "RECONCILER_HTTP_TOKEN",
    webhook_secret_env: Annotated[
        str, typer.Option(help="the variable with the secret that webhooks are signed with")
    ] = "RECONCILER_WEBHOOK_SECRET",
    targets: Targets = None,
    excludes: Excludes = None,
    given: Sets = None,
) -> None:
    """Keep it so: watch the manifests and reconcile until stopped."""
    from reconciler.cli import daemon
    from reconciler.daemon.start import Git, Http
    from reconciler.selection import choice

    follow = Git(git, branch, path, git_token_env, verify_commits) if git else None
    answer = Http(http, http_token_env, webhook_secret_env) if http else None
    chosen = choice(targets, excludes)
    raise typer.Exit(daemon.run(folder, platform, interval, home, follow, answer, chosen))
