"""What is deleted beside an apply, where the project says `prune: true`; and how deletions are told."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.cli.markup import code, text
from reconciler.engine import Pass, Sight, World
from reconciler.plan import Deletion
from reconciler.policy import FORBIDDEN
from reconciler.project import Project
from reconciler.pruning import BLOWN

REFUSED = 6  # exit code

if TYPE_CHECKING:  # the database library is only loaded by those who need it
    from reconciler.creation import Creator
    from reconciler.journal import Journal
    from reconciler.ownership import Pruned


def planned(
    project: Project, sight: Sight, world: World, peek: "Callable[[], Journal | None]", now: float
) -> tuple[Deletion, ...]:
    """What an apply would delete; `now` is in unix seconds. Raises ReconcilerError."""
    if not project.prunes:
        return ()
    from reconciler import ownership, pruning

    holdings = ownership.survey(sight, world, peek(), now)
    policy = pruning.Policy(before=now - project.spec.prune_seconds)
    goes = pruning.decide(sight.desired, project.desired, world.kinds, holdings, policy)
    return world.policies.spare(goes) if world.policies else goes


def pruned(project: Project, world: World, creator: "Creator", done: Pass) -> "Pruned | None":
    """Delete what nobody wants, once everything else is as wanted."""
    if not project.prunes or not done.settled or done.failed:
        return None
    from reconciler import ownership, pruning

    policy = pruning.Policy(before=creator.now() - project.spec.prune_seconds)
    return ownership.prune(project.desired, world, creator, policy, "apply")


def tell(pruned: "Pruned | None", output: str) -> int:
    """Say what was deleted beside an apply; the exit code."""
    if pruned is None:
        return 0
    if output == "text":
        print("".join(f"- {_named(each)}  {each.why}\n" for each in pruned.done), end="")
        print("".join(f"! {id}  {why}\n" for id, why in pruned.failed.items()), end="")
    return code_of(pruned)


def code_of(pruned: "Pruned") -> int:
    """1 where something could not be deleted, 6 where the fuse or a policy let nothing through."""
    return 1 if pruned.failed else REFUSED if blown(pruned.deletions) else 0


def blown(deletions: Iterable[Deletion]) -> bool:
    return any(each.kept.startswith((BLOWN, FORBIDDEN)) for each in deletions)


def lines(deletions: Sequence[Deletion]) -> Iterator[str]:
    """Deletions for a terminal: what goes, then why anything stays."""
    wide = max((len(_named(each)) for each in deletions), default=0)
    for each in deletions:
        sign = "=" if each.kept else "-"
        yield f"  {sign} {_named(each):<{wide}}  {each.kept or each.why}"


def rows(deletions: Iterable[Deletion]) -> Iterator[str]:
    """The same as rows of a Markdown table: sign, resource, object, why."""
    for each in deletions:
        sign = "=" if each.kept else "-"
        yield f"| {sign} | {code(_address(each))} | {code(each.observed.id)} | {text(each.kept or each.why)} |"


def told(each: Deletion) -> dict[str, Any]:
    """One deletion for a program."""
    return {
        "address": _address(each),
        "kind": each.kind,
        "id": each.observed.id,
        "why": each.why,
        "kept": each.kept or None,
    }


def _address(each: Deletion) -> str:
    return each.observed.stamp.address if each.observed.stamp else each.kind


def _named(each: Deletion) -> str:
    model = each.observed.body.get("fine_tuned_model")
    return f"{_address(each)} {each.observed.id}{f' ({model})' if model else ''}"
