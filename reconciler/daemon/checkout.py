"""
A branch of a remote repository, kept bare and shallow, and every revision of it in a folder of its own.

A revision's folder never changes once it has its name. Files that two revisions share are one file on
the disk, so that a commit to a large tree costs what it changes.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from reconciler import git
from reconciler.git import GitFailed, Remote
from reconciler.project import DATA

TIP = "refs/reconciler/tip"  # what we fetched last
RELEASES = "releases"  # not checked out: they are written here, and compared with what git says
MINIMAL = ("-c", "core.trustctime=false", "-c", "core.checkStat=minimal")  # a new link changes only its ctime


class Place(NamedTuple):
    """Where in a remote the manifests are."""

    remote: Remote
    branch: str
    path: str = "."

    def inside(self, name: str) -> str:
        """A file's path in the repository, by its path below the manifests' folder."""
        return name if self.path == "." else f"{self.path}/{name}"


class Checkout:
    """`folder` holds `repository.git`, `revisions/<commit>/` and `current`. Every method may raise GitFailed."""

    def __init__(self, place: Place, folder: Path, signers: Path | None = None) -> None:
        self.place = place
        self._home = folder = folder.absolute()
        self._git = folder / "repository.git"
        self._revisions = folder / "revisions"
        self._signers = signers
        self._prepared = False

    def fetch(self) -> str:
        """The newest commit of the branch."""
        self._prepare()
        spec = f"+refs/heads/{self.place.branch}:{TIP}"
        quiet = ("--quiet", "--no-tags", "--no-write-fetch-head", "--depth=1")
        self.git("-c", "gc.autoDetach=false", "fetch", *quiet, "origin", spec, far=True)
        return self.git("rev-parse", TIP)

    def verify(self, commit: str) -> None:
        """Whether somebody signed it whom we know: `signers` is ssh's allowed signers file or a GnuPG home."""
        if self._signers is None:
            return
        env = {"GNUPGHOME": str(self._signers)} if self._signers.is_dir() else {}
        try:
            self.git("-c", f"gpg.ssh.allowedSignersFile={self._signers}", "verify-commit", commit, env=env)
        except GitFailed:
            raise GitFailed(
                f"commit {commit[:12]} of {self.place.remote.place} carries no signature of anybody in {self._signers};"
                " have it signed, or merge it through somebody who signs"
            ) from None

    def root(self, commit: str) -> Path:
        """The manifests' folder at a commit."""
        return self._revisions / commit / self.place.path

    def folder(self, commit: str) -> Path:
        return self._revisions / commit

    def commit_of(self, file: Path) -> str:
        """The commit whose folder a file lies in; nothing for another file."""
        file = file.absolute()
        return file.relative_to(self._revisions).parts[0] if file.is_relative_to(self._revisions) else ""

    def has(self, commit: str) -> bool:
        return self.root(commit).is_dir()

    def check_out(self, commit: str, like: str | None = None) -> Path:
        """Put a commit into its folder, sharing what it has in common with an earlier one; its manifests' folder."""
        if self.has(commit):
            return self.root(commit)
        self._find(commit)
        temporary, index = self._revisions / f".{commit}", self._index(f".{commit}")
        shutil.rmtree(temporary, ignore_errors=True)
        index.unlink(missing_ok=True)
        try:
            if like and self.has(like) and self._index(like).exists():
                shutil.copytree(self.folder(like), temporary, copy_function=_link, symlinks=True)
                shutil.copyfile(self._index(like), index)
            temporary.mkdir(parents=True, exist_ok=True)
            env = {"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(temporary)}
            patience = git.FAR * 10  # what is large is fetched now where large files are kept elsewhere
            self.git(*MINIMAL, "read-tree", "--reset", "-u", commit, env=env, far=True, patience=patience)
            self._link(temporary / self.place.path, self.root(commit))
            index.replace(self._index(commit))
            _remove(self.folder(commit))
            temporary.replace(self.folder(commit))
        except OSError as error:
            raise GitFailed(
                f"{temporary} cannot be written: {error.strerror or error}; free the disk"
            ) from None
        return self.root(commit)

    def show(self, commit: str) -> None:
        """`current` leads to the manifests of this commit."""
        temporary, current = self._home / f".current.{os.getpid()}", self._home / "current"
        with contextlib.suppress(OSError):  # for people only
            temporary.symlink_to(os.path.relpath(self.root(commit), self._home))
            temporary.replace(current)

    def keep(self, commits: Iterable[str]) -> None:
        """Remove the folders of all other revisions."""
        kept = set(commits)
        for found in self._revisions.glob("[!.]*"):
            if found.name.removesuffix(".index") not in kept:
                with contextlib.suppress(OSError):  # it is in nobody's way, and tried again next time
                    _remove(found)

    def releases(self, commit: str) -> dict[str, bytes]:
        """What `releases/` holds at a commit, by the files' paths below the manifests' folder."""
        listed = self.git("ls-tree", "-r", "-z", "--name-only", commit, "--", self.place.inside(RELEASES))
        names = [path for path in listed.split("\0") if path.endswith(".yaml")]
        above = "" if self.place.path == "." else f"{self.place.path}/"
        return {name.removeprefix(above): self.blob(commit, name) for name in names}

    def blob(self, commit: str, path: str) -> bytes:
        return git.output(f"--git-dir={self._git}", "cat-file", "blob", f"{commit}:{path}")

    def author(self, commit: str) -> tuple[str, str]:
        """Who wrote a commit, and its first line."""
        name, _, subject = self.git("show", "--no-patch", "--format=%an%x00%s", commit).partition("\0")
        return name, subject

    def write(self, onto: str, files: Mapping[str, bytes | None], message: str) -> str:
        """A commit on top of another one that differs from it in these files (None removes one)."""
        index = self._git / "index.written"
        env = {"GIT_INDEX_FILE": str(index)}
        try:
            self.git("read-tree", onto, env=env)
            for name, content in files.items():
                path = self.place.inside(name)
                if content is None:
                    self.git("update-index", "--force-remove", "--", path, env=env)
                else:
                    blob = self.git("hash-object", "-w", "--stdin", stdin=content)
                    self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=env)
            tree = self.git("write-tree", env=env)
        finally:
            index.unlink(missing_ok=True)
        signed = ["-S"] if self._said("config", "--bool", "commit.gpgsign") == "true" else []
        return self.git(
            "commit-tree", *signed, "-p", onto, "-F", "-", tree, stdin=message.encode(), env=self._me()
        )

    def push(self, commit: str, branch: str, *, force: bool = False) -> None:
        """Put a commit onto a branch of the remote. Raises Behind when the branch has moved meanwhile."""
        self._prepare()
        spec = f"{'+' * force}{commit}:refs/heads/{branch}"
        self.git("push", "--quiet", "origin", spec, far=True)

    def git(
        self,
        *command: str,
        env: Mapping[str, str] = {},
        stdin: bytes | None = None,
        far: bool = False,
        patience: float | None = None,
    ) -> str:
        remote = self.place.remote if far else None
        return git.run(
            f"--git-dir={self._git}", *command, remote=remote, env=env, stdin=stdin, patience=patience
        )

    def _said(self, *command: str) -> str | None:
        try:
            return self.git(*command)
        except GitFailed:
            return None

    def _me(self) -> dict[str, str]:
        """Who signs as the author of what we write, unless git's configuration says."""
        if self._said("config", "user.email"):
            return {}
        who = {"NAME": "reconciler", "EMAIL": "reconciler@localhost"}
        return {f"GIT_{role}_{what}": who[what] for role in ("AUTHOR", "COMMITTER") for what in who}

    def _prepare(self) -> None:
        if self._prepared:
            return
        if not (self._git / "HEAD").exists():
            try:
                self._revisions.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise GitFailed(f"{self._revisions} cannot be made: {error.strerror}") from None
            git.run("init", "--quiet", "--bare", str(self._git))
        self.git("config", "remote.origin.url", self.place.remote.url)
        self.git("config", "core.sparseCheckout", "true")
        wanted = "/*" if self.place.path == "." else f"/.gitattributes\n/{self.place.path}/"
        info = self._git / "info"
        info.mkdir(exist_ok=True)
        (info / "sparse-checkout").write_text(f"{wanted}\n!/{self.place.inside(RELEASES)}/\n")
        self._prepared = True

    def _link(self, here: Path, root: Path) -> None:
        """What outlives a revision is seen in each, so that every command works in its folder."""
        here.mkdir(parents=True, exist_ok=True)
        for name in (DATA, RELEASES):
            (self._home / name).mkdir(exist_ok=True)
            if not (here / name).is_symlink():
                (here / name).symlink_to(os.path.relpath(self._home / name, root))

    def _find(self, commit: str) -> None:
        if self.place.path == ".":
            return
        if self._said("cat-file", "-t", f"{commit}:{self.place.path}") != "tree":
            what = f"has no folder {self.place.path} at {commit[:12]}; name the right one with --path"
            raise GitFailed(f"branch {self.place.branch} of {self.place.remote.place} {what}")

    def _index(self, commit: str) -> Path:
        return self._revisions / f"{commit}.index"


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without links, or with too many of them
        shutil.copy2(source, target, follow_symlinks=False)


def _remove(found: Path) -> None:
    if found.is_dir() and not found.is_symlink():
        shutil.rmtree(found)
    else:
        found.unlink(missing_ok=True)
