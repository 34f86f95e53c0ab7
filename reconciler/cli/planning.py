"""Plans that are written down and carried out later: by another command, another person, or a merge."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from reconciler import baseline, git, loader, rowshapes, rule, savedplan
from reconciler.baseline import Baseline
from reconciler.cli import commands, session, terms
from reconciler.cli.comment import Subject, comment
from reconciler.cli.terms import FREE
from reconciler.compare import Compared, compare
from reconciler.errors import ReconcilerError
from reconciler.plan import Plan
from reconciler.project import Project
from reconciler.resource import Address, Desired
from reconciler.rowshapes import Example
from reconciler.rule import PromotionRuleSpec
from reconciler.savedplan import ACTING, RULE
from reconciler.selection import ALL, Choice
from reconciler.subject import run_of


def plan(
    folder: Path,
    output: str,
    platform: str | None,
    out: Path | None,
    base: str | None,
    choice: Choice = ALL,
) -> int:
    """Say what an apply would do, against what was last applied or against a commit; and write it down."""
    if base is None:
        project, name, made = commands.planned(folder, platform, choice)
        if out:
            write(out, folder, project, name, made)
        return commands.tell(project, name, made, output)
    with baseline.at(folder, base) as before:
        project, name, made = commands.planned(folder, platform, choice)
        compared = compare(made, before.desired)
        if out:
            write(out, folder, project, name, compared.plan)
        if output != "markdown":
            return commands.tell(project, name, compared.plan, output)
        print(comment(about(project, name, compared, before), commands.locate), end="")
        return commands.code_of(compared.plan)


def about(project: Project, name: str, compared: Compared, before: Baseline) -> Subject:
    """What the comment of a pull request tells. Reads rows, so the base has to be open."""
    return Subject(
        project.name, name, f"{before.ref} ({before.commit[:8]})", compared, before.note,
        session.estimates(project, name, compared.plan),
        _examples(compared, before.desired, project.spec.show_rows), _detectable(compared),
    )  # fmt: skip


def _examples(compared: Compared, base: Desired, show: bool) -> dict[Address, tuple[Example, ...]]:
    found = {}
    for step in compared.shown:
        if step.rows:
            old, new = base[step.address].facts, step.wanted.facts
            found[step.address] = rowshapes.examples(
                step.rows,
                (Path(old["path"]), old["row_digests"]),
                (Path(new["path"]), new["row_digests"]),
                show,
            )
    return found


def _detectable(compared: Compared) -> list[tuple[str, float | None]]:
    """What the gates can tell of every rule that would move a channel and was not measured yet."""
    wanted = {step.address: step.wanted for step in compared.plan.steps}
    told = []
    for step in compared.shown:
        if step.address.kind == RULE and step.action in ACTING and step.decision.evidence is None:
            spec = PromotionRuleSpec.model_validate(step.wanted.body)
            runs = {gate.eval: wanted[run_of(gate.eval, spec.names[0])] for gate in spec.gates}
            items = {eval_: wanted[run.needed("dataset")].facts["rows"] for eval_, run in runs.items()}
            told += rule.detectable(spec, items)
    return told


def write(out: Path, folder: Path, project: Project, platform: str, made: Plan) -> None:
    """Write a plan of a folder down. Raises ReconcilerError."""
    if out.is_dir():
        raise ReconcilerError(f"{out} is a folder; name the file to write with --out")
    saved = savedplan.save(
        made,
        session.estimates(project, platform, made),
        project=project.name,
        platform=platform,
        folder=os.path.relpath(folder),
        created_at=datetime.fromtimestamp(time.time(), UTC).isoformat(),
        commit=git.commit(project.root),
    )
    try:
        temporary = out.with_name(f".{out.name}.{os.getpid()}")
        temporary.write_text(savedplan.text_of(saved))
        temporary.replace(out)
    except OSError as error:
        raise ReconcilerError(f"{out} cannot be written: {error.strerror}") from None


def apply(
    target: Path,
    output: str,
    platform: str | None,
    wait: bool,
    timeout: float | None,
    folder: Path | None,
    approved: Path | None,
    build: bool,
    choice: Choice = ALL,
) -> int:
    """Apply a folder, or the plan in a file."""
    if target.is_file() and target.suffix not in loader.SUFFIXES:
        if choice != ALL:
            raise ReconcilerError(f"{target} says what is done; --target and --exclude go with a folder")
        return _carry_out(target, output, platform, wait, timeout, folder, approved, build)
    if folder:
        raise ReconcilerError(f"--dir says where the manifests of a saved plan lie; {target} is no plan file")
    if approved and build:
        raise ReconcilerError("--build and --approved do not go together; build before the approval")
    held = FREE
    if approved:
        saved = savedplan.read(approved)
        platform = _on(saved, approved, platform)
        held = terms.approved(saved)
    elif build:
        held = terms.building()
    return commands.apply(target, output, platform, wait, timeout, held, choice)


def _carry_out(
    path: Path,
    output: str,
    platform: str | None,
    wait: bool,
    timeout: float | None,
    folder: Path | None,
    approved: Path | None,
    build: bool,
) -> int:
    if approved or build:
        option = "--approved" if approved else "--build"
        raise ReconcilerError(f"{option} goes with a folder of manifests; {path} is a file")
    saved = savedplan.read(path)
    name = _on(saved, path, platform)
    return commands.apply(folder or Path(saved.folder), output, name, wait, timeout, terms.planned(saved))


def _on(saved: savedplan.SavedPlan, path: Path, platform: str | None) -> str:
    """The platform that it was planned for. Raises ReconcilerError where another one is asked for."""
    if platform not in (None, saved.platform):
        raise ReconcilerError(f"{path} was planned for {saved.platform}, not for {platform}")
    return saved.platform
