"""
The commands. Each reads its arguments, lets the rest do the work, and says how it ended.

Nothing heavy is imported before a command needs it: `reconciler --version` answers at once.
"""

import getpass
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reconciler import __version__
from reconciler.errors import ReconcilerError

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


class Drawing(StrEnum):
    MERMAID = "mermaid"
    DOT = "dot"


class ReportFormat(StrEnum):
    HTML = "html"
    MARKDOWN = "markdown"
    JUNIT = "junit"
    CSV = "csv"
    JSONL = "jsonl"


Folder = Annotated[Path, typer.Argument(help="the folder of manifests")]
Out = Annotated[Output, typer.Option("--output", "-o", help="how to say it")]
On = Annotated[
    str | None, typer.Option("--platform", help="a platform of the project other than its default")
]
HERE = Path("manifests")
INTERRUPTED = 130  # exit code


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


@app.command()
def validate(folder: Folder = HERE, output: Out = Output.TEXT) -> None:
    """Check every manifest and every row, without any platform."""
    from reconciler.cli import commands

    raise typer.Exit(commands.validate(folder, output))


@app.command()
def plan(folder: Folder = HERE, output: Out = Output.TEXT, platform: On = None) -> None:
    """Show what apply would do, and why. Exit 2 when there is something."""
    from reconciler.cli import commands

    raise typer.Exit(commands.plan(folder, output, platform))


@app.command()
def apply(
    folder: Folder = HERE,
    output: Out = Output.TEXT,
    platform: On = None,
    wait: Annotated[bool, typer.Option(help="stay until everything is settled, or do one pass")] = True,
    timeout: Annotated[float | None, typer.Option(help="stop waiting after so many seconds (exit 7)")] = None,
) -> None:
    """Make it so: upload, train, measure, promote. Safe to stop and to repeat."""
    from reconciler.cli import commands

    raise typer.Exit(commands.apply(folder, output, platform, wait, timeout))


@app.command()
def status(folder: Folder = HERE, output: Out = Output.TEXT, platform: On = None) -> None:
    """Show every resource as it stands."""
    from reconciler.cli import commands

    raise typer.Exit(commands.status(folder, output, platform))


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


@app.command()
def run(
    folder: Folder = HERE,
    platform: On = None,
    interval: Annotated[float, typer.Option(help="seconds between passes when nothing moves")] = 60.0,
) -> None:
    """Keep it so: watch the manifests and reconcile until stopped."""
    from reconciler.cli import commands

    raise typer.Exit(commands.run(folder, platform, interval))


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


def main() -> None:
    """The console script: every failure is a sentence and an exit code."""
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # Typer answers Ctrl-C with it
            raise KeyboardInterrupt
    except ReconcilerError as error:
        _say(error)
        code = error.exit_code
    except typer.TyperException as error:
        print(f"error: {str(error).rstrip('.')}; `reconciler --help` lists what there is", file=sys.stderr)
        code = 1
    except (KeyboardInterrupt, typer.Abort):
        print("\ninterrupted; nothing is lost, the same command goes on from here", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        code = 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
        code = 1
    sys.exit(code)


def _say(error: ReconcilerError) -> None:
    problems = getattr(error, "problems", None)
    if problems is None:
        print(f"error: {error}", file=sys.stderr)
        return
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(problems)} problem{'s' * (len(problems) != 1)}; nothing was done", file=sys.stderr)
