"""
The commands of a workflow. Each does what its namesake does, says it where people look, and ends with a code
that is red only where something is wrong.

What they print comes from manifests and platforms too, so the runner is told to take no commands from it.
"""

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TextIO

from reconciler import baseline, git, savedplan
from reconciler.ci import approved, checks, sticky
from reconciler.ci.approved import Names
from reconciler.ci.checks import Check, Remark
from reconciler.ci.github import GitHub
from reconciler.ci.runner import Request, Runner
from reconciler.ci.sticky import Issue
from reconciler.cli import citext, commands, drifts, markup, planning
from reconciler.cli.comment import comment, headline
from reconciler.compare import compare
from reconciler.errors import ManifestError, ReconcilerError

LABEL = "reconciler-drift"
FOUND = 3  # exit code
TOGETHER = 20  # merges that one apply may carry


@dataclass(frozen=True)
class Job:
    """One folder on one platform, in one workflow's job."""

    runner: Runner
    folder: Path
    platform: str | None
    author: str

    @property
    def label(self) -> str:
        """What it is about, in the names of its checks; the same in every job."""
        return f"{self.place} on {self.platform}" if self.platform else self.place

    @property
    def place(self) -> str:
        """The folder, from the repository's root."""
        return self.runner.place(str(self.folder)) or str(self.folder)

    @property
    def artifact(self) -> str:
        """The name of the artifact that carries its plan."""
        return f"reconciler-plan-{sticky.marker('plan', self.label).split(':')[-1][:16]}"

    @property
    def names(self) -> Names:
        app = self.author.removesuffix("[bot]")
        return Names(self.artifact, self.check("plan"), self.check("apply"), app)

    def check(self, what: str) -> str:
        return f"reconciler {what} ({self.label})"

    def github(self) -> GitHub:
        """Raises ReconcilerError where there is no token."""
        if self.runner.token is None:
            raise ReconcilerError(
                "GITHUB_TOKEN is not set; give the step `env: GITHUB_TOKEN: ${{ github.token }}`"
            )
        return GitHub(self.runner.api, self.runner.repository, self.runner.token)


@dataclass(frozen=True)
class Told:
    """How something ended, for people; `error` is what to end with."""

    code: int
    title: str
    text: str
    remarks: list[Remark] = field(default_factory=list)
    digest: str = ""
    error: ReconcilerError | None = None


def job(folder: Path, platform: str | None, author: str) -> Job:
    """This job, from the environment, which loses its token. Raises ReconcilerError."""
    return Job(Runner.of(os.environ), folder, platform, author)


def validate(folder: Path) -> int:
    """Check, and mark what is wrong. Raises ManifestError."""
    runner = Runner.of(os.environ)
    try:
        with _muted():
            return commands.validate(folder, "text")
    except ManifestError as error:
        for remark in citext.problem_remarks(error.problems, runner.place):
            print(checks.command(remark))
        _append(runner.summary, citext.failed(f"{len(error.problems)} problems", error.problems))
        raise


def plan(job: Job, out: Path, base: str | None) -> int:
    """Plan a pull request, and say it there. Raises ReconcilerError."""
    asked = job.runner.asked()
    with job.github() as github:
        return _planned(job, github, asked, out, base)


def build(job: Job, out: Path, base: str | None, timeout: float | None) -> int:
    """Train and measure for a pull request, then say its plan again. Raises ReconcilerError."""
    asked = job.runner.asked()
    with job.github() as github:
        told = _done(job, None, timeout, build=True)
        _check(job, github, "build", asked.head, told)
        planned = _planned(job, github, asked, out, base)
    return _ended(job, told) or planned


def apply(job: Job, timeout: float | None) -> int:
    """Apply what was approved for a merge, and say how it ended. Raises ReconcilerError."""
    runner, number = job.runner, None
    with job.github() as github:
        if approved.superseded(github, runner.commit, runner.branch, job.place):
            said = (
                f"{runner.branch} has newer manifests than {runner.commit[:8]}; their job applies these too"
            )
            return _ended(job, Told(0, said, markup.text(said)))
        try:
            commits = git.recent(job.folder, TOGETHER)
            if commits[0] != runner.commit:
                what = f"{commits[0][:8]} is checked out, and this job is for {runner.commit[:8]}"
                raise ReconcilerError(f"{what}; check out without another ref")
            approval = approved.gathered(github, commits, runner.branch, job.names)
            number = approval.number
            with tempfile.TemporaryDirectory(prefix="reconciler-approved-") as kept:
                path = Path(kept, approved.FILE)
                path.write_text(savedplan.text_of(approval.plan))
                told = _done(job, path, timeout)
        except ReconcilerError as error:
            told = _failure("it was not applied", error, job)
        if number is not None:
            text = f"{told.text}\n\n{citext.footer(runner.commit, runner.url)}"
            sticky.comment(github, number, sticky.marker("apply", job.label), text, job.author)
        _check(job, github, "apply", runner.commit, told)
    return _ended(job, told)


def drift(job: Job, days: int) -> int:
    """Keep the issue about drift as it should be. Raises ReconcilerError."""
    printed = StringIO()
    with redirect_stdout(printed):
        code = drifts.tell(job.folder, "markdown", job.platform, days)
    text = f"{printed.getvalue()}\n\n{citext.footer(job.runner.commit, job.runner.url)}"
    wanted = Issue(f"reconciler: {job.label} has drifted", text, LABEL) if code == FOUND else None
    with job.github() as github:
        mark = sticky.marker("drift", job.label)
        number = sticky.issue(github, mark, wanted, job.author, LABEL)
    return _ended(job, Told(code, "", text), issue=str(number or ""))


def _planned(job: Job, github: GitHub, asked: Request, out: Path, base: str | None) -> int:
    try:
        told = _explained(job, base or f"origin/{asked.base}", out)
    except ReconcilerError as error:
        out.unlink(missing_ok=True)  # one of an earlier commit is not this one's
        told = _failure("there is no plan", error, job)
    text = f"{told.text}\n\n{citext.footer(asked.head, job.runner.url, told.digest)}"
    sticky.comment(github, asked.number, sticky.marker("plan", job.label), text, job.author)
    _check(job, github, "plan", asked.head, told)
    return _ended(job, told, digest=told.digest, artifact=job.artifact, plan=str(out) if told.digest else "")


def _explained(job: Job, base: str, out: Path) -> Told:
    with baseline.at(job.folder, base) as before:
        wanted, name, made = commands.planned(job.folder, job.platform)
        compared = compare(made, before.desired)
        planning.write(out, job.folder, wanted, name, compared.plan)
        about = planning.about(wanted, name, compared, before)
        remarks = citext.step_remarks(compared.shown, about.estimates, job.runner.place, commands.locate)
        text = comment(about, commands.locate)
    code = commands.code_of(compared.plan)
    return Told(code, headline(about), text, remarks, savedplan.read(out).digest)


def _done(job: Job, agreed: Path | None, timeout: float | None, build: bool = False) -> Told:
    """Apply, and look again how everything stands."""
    try:
        with _muted() as printed:
            code = planning.apply(job.folder, "text", job.platform, True, timeout, None, agreed, build)
        wanted, name, made = commands.planned(job.folder, job.platform)
    except ReconcilerError as error:
        return _failure("it was not built" if build else "it was not applied", error, job)
    said = f"{'built' if build else 'applied'}: {checks.WORDS[code]}"
    return Told(code, said, citext.outcome(said, wanted.name, name, made.steps, printed.getvalue()))


def _failure(what: str, error: ReconcilerError, job: Job) -> Told:
    problems = citext.problems_of(error)
    remarks = citext.problem_remarks(problems, job.runner.place)
    text = f"<h3>{markup.text(job.label)}</h3>\n{citext.failed(what, problems)}"
    return Told(error.exit_code, what, text, remarks, error=error)


def _check(job: Job, github: GitHub, what: str, commit: str, told: Told) -> None:
    check = Check(
        job.check(what), commit, told.code, told.title, told.text, job.runner.url, told.remarks, told.digest
    )
    made = github.call("POST", "check-runs", checks.created(check))
    for body in checks.continued(check):
        github.call("PATCH", f"check-runs/{made['id']}", body)


def _ended(job: Job, told: Told, **outputs: str) -> int:
    """Say it in the summary and to the steps that follow. Raises the error it ended with."""
    _append(job.runner.summary, told.text)
    _append(job.runner.outputs, "".join(f"{name}={value}\n" for name, value in outputs.items()))
    _append(job.runner.outputs, f"code={told.code}\n")
    if told.error:
        raise told.error
    return checks.step_code(told.code)


def _append(path: Path | None, text: str) -> None:
    if path:
        with path.open("a") as file:
            file.write(text if text.endswith("\n") or not text else f"{text}\n")


class _Both(StringIO):
    """What is printed, also remembered."""

    def __init__(self, there: TextIO) -> None:
        super().__init__()
        self._there = there

    def write(self, text: str) -> int:
        self._there.write(text)
        return super().write(text)

    def flush(self) -> None:
        self._there.flush()


@contextmanager
def _muted() -> Iterator[StringIO]:
    """What is printed meanwhile is no command to the runner, and is yielded."""
    word = secrets.token_hex(16)
    print(f"::stop-commands::{word}", flush=True)
    try:
        with redirect_stdout(_Both(sys.stdout)) as printed:
            yield printed
    finally:
        print(f"\n::{word}::", flush=True)
