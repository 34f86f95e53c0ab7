"""Pruning beside what goes wrong: a list of models that lies, a request nobody wants any more, a suspended project."""

from core_base import edit
from own_base import Owner, Shop, without

from reconciler.creation import WINDOW
from reconciler.pruning import Policy
from memory_platform import PLAIN, loses_request


def test_a_job_is_not_given_up_because_a_list_of_models_lacks_its_model(demo: Owner, platform: Shop) -> None:
    """Otherwise a revert would train it again."""
    edit(demo.root / "train.yaml", "n_epochs: 2", "n_epochs: 3")
    demo.done()
    platform.hidden = {each["id"] for each in platform.objects["models"] if each["id"].startswith("ft:")}

    demo.prune()
    platform.hidden = set()
    edit(demo.root / "train.yaml", "n_epochs: 3", "n_epochs: 2")
    demo.done()

    assert 2 == platform.count("fine_tuning/jobs")


def test_a_job_whose_model_somebody_deleted_is_given_up(demo: Owner, platform: Shop) -> None:
    edit(demo.root / "train.yaml", "n_epochs: 2", "n_epochs: 3")
    demo.done()
    old = platform.objects["fine_tuning/jobs"][0]
    platform.objects["models"] = [
        each for each in platform.objects["models"] if each["id"] != old["fine_tuned_model"]
    ]

    demo.prune()

    assert {old["id"]} == demo.journal_gone()
