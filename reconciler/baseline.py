"""
What the manifests of a folder were at another commit, read with git into a folder of its own.

No checkout, index or worktree is touched. Where the folder did not exist there, or held nothing that can be
used, everything is new, and `note` says why.
"""

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from reconciler import project
from reconciler.errors import ManifestError, ReconcilerError
from reconciler.resource import Desired

PATIENCE = 60.0  # seconds that git may take


@dataclass(frozen=True)
class Baseline:
    """`commit` is what `ref` meant. Files of `desired` are named as they were in the folder."""

    ref: str
    commit: str
    desired: Desired
    note: str = ""


@contextmanager
def at(folder: Path, ref: str) -> Iterator[Baseline]:
    """
    A folder's manifests at `ref`, or those in a file, and the files they name while this is open.

    Raises ReconcilerError where there is no git, no repository, or no such commit.
    """
    here = folder.parent if folder.is_file() else folder
    commit = _git(here, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if commit is None:
        _insist(here, folder, ref)
        raise ReconcilerError(
            f"git knows no commit {ref} here; fetch it first (in CI: check out with fetch-depth: 0)"
        )
    name = commit.decode().strip()
    prefix = (_git(here, "rev-parse", "--show-prefix") or b"").decode().rstrip("\n")
    top = Path((_git(here, "rev-parse", "--show-toplevel") or b".").decode().rstrip("\n"))
    archive = _git(top, "archive", "--format=tar", f"{name}:{prefix}" if prefix else name)
    if archive is None:
        yield Baseline(ref, name, {}, f"{prefix.rstrip('/')} does not exist at {ref}: everything is new")
        return
    with tempfile.TemporaryDirectory(prefix="reconciler-base-") as kept:
        root = Path(kept, "tree").resolve()
        yield _loaded(root, archive, folder, ref, name)


def _loaded(root: Path, archive: bytes, folder: Path, ref: str, commit: str) -> Baseline:
    tree = root / folder.name if folder.is_file() else root
    here = folder.parent if folder.is_file() else folder

    def named(text: str) -> str:
        return text.replace(str(root), str(here))

    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(root, filter="data")
        found = project.load(tree).desired
    except tarfile.FilterError as error:
        return Baseline(
            ref, commit, {}, f"what is at {ref} cannot be used ({error}): everything counts as new"
        )
    except ManifestError as error:
        first, more = named(str(error.problems[0])), len(error.problems) - 1
        also = f" and {more} more" if more else ""
        what = f"the manifests at {ref} cannot be used ({first}{also}): everything counts as new"
        return Baseline(ref, commit, {}, what)
    desired = {address: replace(each, file=named(each.file)) for address, each in found.items()}
    return Baseline(ref, commit, desired)


def _insist(here: Path, folder: Path, ref: str) -> None:
    """Raises ReconcilerError where git does not want to look at the folder at all."""
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "--git-dir"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except OSError:
        raise ReconcilerError(
            f"git is not installed, so nobody can tell what {folder} was at {ref}"
        ) from None
    if "dubious ownership" in done.stderr:
        what = f"git does not trust {folder}, which belongs to somebody else"
        raise ReconcilerError(f"{what}; git config --global --add safe.directory {here.resolve()}")
    if done.returncode:
        raise ReconcilerError(f"{folder} is in no git repository, so nothing of it stands at {ref}")


def _git(folder: Path, *command: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, timeout=PATIENCE)
    except OSError:
        return None
    except subprocess.TimeoutExpired:
        raise ReconcilerError(f"git {command[0]} took more than {PATIENCE:.0f} s; try again") from None
    return done.stdout if done.returncode == 0 else None
