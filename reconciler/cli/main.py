"""
The console script. A command reads its arguments (`declare/`), lets the rest do the work, and says how it ended.

Nothing heavy is imported before a command needs it.
"""

import sys

import typer

from reconciler.cli.app import app
from reconciler.cli.declare import basics, channels, ci, daemon, money, ownership, platform
from reconciler.errors import ReconcilerError

__all__ = [
    "app",
    "basics",
    "channels",
    "ci",
    "daemon",
    "main",
    "money",
    "ownership",
    "platform",
]  # importing a declaration declares it
INTERRUPTED = 130  # exit code


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
