"""Money where manifests change while work is in flight: what is cancelled, settled, and whose it is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core_base import Applier, Clock, edit, why, write
from memory_platform import MemoryPlatform

from reconciler import engine, plan
from reconciler.kinds.project import BudgetSpec, ProjectSpec
from reconciler.money.accounts import Accounts
from reconciler.money.ledger import Ledger
from reconciler.money.statement import Line
from reconciler.resource import Address

JOB, BASE_RUN = "FineTuneJob/tuned", "EvalRun/right@Model/base"
PRICES = {"models": {"tiny-chat": {"input": 1, "output": 1, "training": 1000},
                     "ft:tiny-chat": {"input": 1, "output": 1}}}  # fmt: skip


class Payer(Applier):
    """Who applies, and pays."""

    def __init__(self, root: Path, platform: MemoryPlatform, clock: Clock, usd: float = 100) -> None:
        super().__init__(root, platform, clock)
        said: dict[str, Any] = {"prices": PRICES, "budgets": [{"usd": usd}]}
        place = {"memory": {"type": "openai", "base_url": "https://api.openai.com/v1"}}
        known = ProjectSpec.model_validate({"platforms": place, "platform": "memory", **said})
        self.ledger = Ledger(self.journal).keep()
        books = Accounts.of("demo", known, "memory", root / ".reconciler", self.ledger)
        self.world = replace(self.world, accounts=books)

    def line(self, address: str, at: int = -1) -> Line:
        return [each for each in self.ledger.lines("demo") if each.address == address][at]


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    return write(tmp_path / "manifests")


def test_what_works_is_not_cancelled_for_something_that_there_is_no_money_for(manifests: Path) -> None:
    platform, clock = MemoryPlatform(), Clock()
    edit(manifests / "train.yaml", "  method:", "  on_supersede: cancel\n  method:")
    Payer(manifests, platform, clock).passes(3)
    edit(manifests / "train.yaml", "n_epochs: 2", "n_epochs: 3")

    done = Payer(manifests, platform, clock, usd=0.0001).passes(2)

    assert "over budget" in why(done, JOB)
    assert ["running"] == [each["status"] for each in platform.objects["fine_tuning/jobs"]]


def test_a_job_whose_manifest_was_removed_is_settled_all_the_same(manifests: Path) -> None:
    platform, clock = MemoryPlatform(), Clock()
    payer = Payer(manifests, platform, clock)
    payer.passes(3)
    for gone in ("train.yaml", "promote.yaml"):
        (manifests / gone).unlink()

    platform.finish_jobs()
    platform.objects["fine_tuning/jobs"][0].update(trained_tokens=500)
    payer.passes(2)

    assert (0.5, True) == (payer.line(JOB).usd, payer.line(JOB).settled_at is not None)


def test_a_run_of_an_eval_that_is_another_one_by_now_is_settled_all_the_same(manifests: Path) -> None:
    platform, clock = MemoryPlatform(), Clock()
    payer = Payer(manifests, platform, clock)
    payer.passes(3)
    edit(manifests / "measure.yaml", "operation: eq", "operation: ilike")
    payer.passes(1)

    platform.finish_runs(lambda model, index: True)
    payer.passes(2)

    assert payer.line(BASE_RUN, 0).settled_at is not None


def test_a_run_that_was_deleted_before_it_was_settled_stays_spent_and_not_reserved(manifests: Path) -> None:
    platform, clock = MemoryPlatform(), Clock()
    payer = Payer(manifests, platform, clock)
    payer.passes(3)
    edit(manifests / "measure.yaml", "operation: eq", "operation: ilike")

    for collection in [each for each in platform.objects if each.endswith("/runs")]:
        platform.objects[collection] = []
    payer.passes(2)

    entry = payer.line(BASE_RUN, 0).entry
    assert (True, payer.line(BASE_RUN, 0).estimate.usd.high) == (entry.settled, entry.amount.usd)  # type: ignore[union-attr]


def test_nothing_more_is_asked_for_where_everything_is_settled(manifests: Path) -> None:
    platform, clock = MemoryPlatform(), Clock()
    payer = Payer(manifests, platform, clock)
    payer.passes(3)
    platform.finish_jobs()
    for _ in range(2):
        platform.finish_runs(lambda model, index: True)
        payer.passes(1)

    assert {} == payer.world.accounts.owed({})  # type: ignore[union-attr]


def test_one_project_does_not_settle_what_another_one_pays_for(manifests: Path) -> None:
    payer = Payer(manifests, MemoryPlatform(), Clock())
    payer.passes(3)

    assert {} == payer.ledger.unsettled("other", "memory")
    assert {} != payer.ledger.unsettled("demo", "memory")


def test_what_two_ask_for_is_budgeted_once(manifests: Path) -> None:
    payer = Payer(manifests, MemoryPlatform(), Clock())
    job = (manifests / "train.yaml").read_text().partition("kind: FineTuneJob")[2]
    twin = f"---\napiVersion: reconciler/v1\nkind: FineTuneJob{job.replace('tuned', 'twin')}"
    (manifests / "twin.yaml").write_text(twin)
    sight = engine.look(payer.desired, payer.world)
    made = plan.make(sight.desired, payer.world.kinds, sight.actual, {}, {})
    books = payer.world.accounts
    assert books is not None
    estimates = books.estimates(made)
    most = estimates[Address.parse(JOB)].usd
    assert most is not None
    only = {each: estimates[each] for each in (Address.parse(JOB), Address.parse("FineTuneJob/twin"))}

    once = replace(books, budgets=[BudgetSpec(usd=most.high * 1.5)])

    assert {} == once.refusals(made, only, 1_000_000.0)
    assert {} != replace(books, budgets=[BudgetSpec(usd=most.high / 2)]).refusals(made, only, 1_000_000.0)
