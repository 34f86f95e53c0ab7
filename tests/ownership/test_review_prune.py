"""Pruning where a list of models lies, a request is wanted no more, or a project is suspended."""

from collections.abc import Iterable

from core_base import edit
from memory_platform import PLAIN, loses_request
from own_base import Owner, Shop

from reconciler.creation import WINDOW
from reconciler.ownbook import OwnBook

OLD, NEW = "n_epochs: 2", "n_epochs: 3"


def models_of(jobs: Iterable[dict[str, str]]) -> set[str]:
    return {each["fine_tuned_model"] for each in jobs}


def test_a_list_that_lacks_a_model_does_not_have_its_job_trained_again(demo: Owner, platform: Shop) -> None:
    edit(demo.root / "train.yaml", OLD, NEW)
    demo.done()
    platform.hidden = models_of(platform.objects["fine_tuning/jobs"])

    demo.prune()
    platform.hidden = set()
    edit(demo.root / "train.yaml", NEW, OLD)
    demo.done()

    assert 2 == platform.count("fine_tuning/jobs")


def test_an_old_job_whose_model_somebody_deleted_is_as_good_as_gone(demo: Owner, platform: Shop) -> None:
    edit(demo.root / "train.yaml", OLD, NEW)
    demo.done()
    old = platform.objects["fine_tuning/jobs"][0]
    platform.delete("models", old["fine_tuned_model"])

    demo.prune()

    assert {old["id"]} == OwnBook(demo.journal).gone(platform.name)


def test_a_request_without_an_answer_that_nobody_wants_any_more_holds_up_deletions_for_its_time_only(
    demo: Owner, platform: Shop
) -> None:
    platform.capabilities = PLAIN
    platform.faults["fine_tuning/jobs"] = [loses_request]
    edit(demo.root / "train.yaml", OLD, NEW)
    demo.once()
    edit(demo.root / "train.yaml", NEW, OLD)
    demo.done()

    early = demo.holdings().why_not
    demo.clock.at += WINDOW + 1
    demo.once()

    assert "was asked for and is not seen yet" in early
    assert "" == demo.holdings().why_not
