"""Writing a report: look, tell, put it where it is wanted."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from reconciler.cli import session
from reconciler.errors import ReconcilerError
from reconciler.project import load
from reconciler.report import collect, junit, markdown, page, rows
from reconciler.report.values import Report

Tell = Callable[[Report, bool], Iterable[str]]
FORMATS: Mapping[str, Tell] = {
    "html": lambda report, _: [page.html(report)],
    "markdown": lambda report, texts: [markdown.markdown(report, texts)],
    "junit": junit.junit,
    "csv": lambda report, _: rows.csv_lines(report),
    "jsonl": lambda report, _: rows.jsonl(report),
}


def report(
    address: str, folder: Path, format_: str, out: Path | None, platform: str | None, texts: bool
) -> int:
    """Tell of an eval run or a promotion rule, on the terminal or in a file that is whole or not there."""
    project = load(folder)
    wanted = project.find(address)
    name = session.chosen(project, platform)
    with session.reading(project, name) as world:
        found = collect.report(project.desired, wanted, world, time.time())
    told = FORMATS[format_](found, texts)
    if out is None:
        for piece in told:
            sys.stdout.write(
                piece.encode("utf-8", "backslashreplace").decode()
            )  # half a character is no UTF-8
        return 0
    try:
        _write(out, told)
    except OSError as error:
        what = f"{out} cannot be written: {error.strerror}; name another file with --out"
        raise ReconcilerError(what) from None
    print(f"{found.address}: {found.headline}; {out}")
    return 0


def _write(path: Path, pieces: Iterable[str]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.writelines(pieces)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
