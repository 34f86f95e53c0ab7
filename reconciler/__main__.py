"""`reconciler`, or `python -m reconciler`. The version is answered before anything is loaded: scripts ask often."""

import sys

from reconciler import __version__


def main() -> None:
    """The console script."""
    if sys.argv[1:] == ["--version"]:
        print(f"reconciler {__version__}")
        return
    from reconciler.cli.main import main as commands

    commands()


if __name__ == "__main__":
    main()
