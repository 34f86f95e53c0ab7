"""Money from the first plan to the last settlement, through the command line and a real server."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from core_base import Applier, Clock, Say, action, edit, why, write
from faulty_server import FaultyServer
from memory_platform import MemoryPlatform, loses_reply
from server_base import until

from reconciler import project
from reconciler.creation import WINDOW
from reconciler.journal import Journal
from reconciler.kinds.project import ProjectSpec
from reconciler.money.accounts import Accounts
from reconciler.money.ledger import Ledger
from reconciler.tokens import Counter, Source

JOB, BASE_RUN = "FineTuneJob/tuned", "EvalRun/right@Model/base"


def spec(**more: Any) -> str:
    document = {"apiVersion": "reconciler/v1", "kind": "Project", "metadata": {"name": "demo"}, "spec": more}
    return json.dumps(document)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    (tmp_path / "platform").mkdir()
    with FaultyServer(tmp_path / "platform").running() as running:
        yield running


def tree(root: Path, server: FaultyServer, **more: Any) -> Path:
    made = write(root / "manifests")
    place = {"type": "openai", "base_url": server.url, "api_key_env": "DEMO_KEY"}
    (made / "project.yaml").write_text(spec(platforms={"local": place}, **more))
    return made


def test_from_the_first_plan_to_the_last_settlement(server: FaultyServer, tmp_path: Path, say: Say) -> None:
    manifests = tree(tmp_path, server, prices={"gpu_hour": 3600}, budgets=[{"usd": 5000, "unknown": "allow"}])

    _, first, _ = say("plan", manifests)
    code, applied, _ = say("apply", manifests)
    _, told, _ = say("costs", manifests, "--output", "json")
    edit(manifests / "train.yaml", "n_epochs: 2", "n_epochs: 4")
    _, second, _ = say("plan", manifests)

    assert "cost unknown: no job like it has finished on local yet" in first
    assert 0 == code, applied
    spent = json.loads(told)
    assert 0 == spent["usd"]["reserved"]
    assert {JOB, BASE_RUN, "EvalRun/right@FineTuneJob/tuned"} == {
        each["address"] for each in spent["resources"]
    }
    assert JOB in second and "about $" in second.partition(JOB)[2].partition("\n")[0]


def test_over_budget_is_exit_six_and_the_plan_says_so_before(
    server: FaultyServer, tmp_path: Path, say: Say
) -> None:
    manifests = tree(tmp_path, server, budgets=[{"usd": 10, "per": "total"}])

    _, planned, _ = say("plan", manifests)
    code, applied, _ = say("apply", manifests)

    for said in (planned, applied):
        assert "over budget: what it costs is unknown" in said
        assert "$10.00 in all pays only for what is known" in said
    assert 6 == code, applied
    assert {"POST files", "POST evals"} == {what for what in server.asked if what.startswith("POST")}


@pytest.mark.parametrize(
    "output, opens", [("text", "demo: nothing was paid for yet"), ("markdown", "### What")]
)
def test_costs_of_nothing_are_nothing(
    server: FaultyServer, tmp_path: Path, say: Say, output: str, opens: str
) -> None:
    code, printed, _ = say("costs", tree(tmp_path, server), "--output", output)

    assert (0, True) == (code, printed.startswith(opens))
    assert not (tmp_path / "manifests" / ".reconciler").exists()


class Payer(Applier):
    """Who applies, and pays."""

    def __init__(self, root: Path, platform: MemoryPlatform, clock: Clock, **said: Any) -> None:
        super().__init__(root, platform, clock)
        self.ledger = Ledger(self.journal).keep()
        place = {"memory": {"type": "openai", "base_url": "https://api.openai.com/v1"}}
        known = ProjectSpec.model_validate({"platforms": place, "platform": "memory", **said})
        books = Accounts.of("demo", known, "memory", root / ".reconciler", self.ledger)
        self.world = replace(self.world, accounts=books)

    def lines(self) -> dict[str, Any]:
        return {line.address: line for line in self.ledger.lines("demo")}


PRICES = {"models": {"tiny-chat": {"input": 1, "output": 1, "training": 1000},
                     "ft:tiny-chat": {"input": 1, "output": 1}}}  # fmt: skip


def payer(root: Path, platform: MemoryPlatform, clock: Clock, usd: float = 100) -> Payer:
    return Payer(root, platform, clock, prices=PRICES, budgets=[{"usd": usd}])


def trained_tokens(manifests: Path) -> int:
    """Of both epochs."""
    rows = manifests / "train.jsonl"
    counter = Counter(manifests / "nowhere")
    source = Source(rows, "x", rows.stat().st_size, "chat", 12)
    return 2 * counter.training(source, counter.tokenizer({"id": "tiny-chat"}, {})).low


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    return write(tmp_path / "manifests")


def test_a_job_is_reserved_by_exact_tokens_and_settled_by_those_it_reports(manifests: Path) -> None:
    platform, clock = MemoryPlatform(), Clock()
    applier = payer(manifests, platform, clock)
    applier.passes(3)
    reserved = applier.lines()[JOB]

    platform.finish_jobs()
    platform.objects["fine_tuning/jobs"][0].update(trained_tokens=500, created_at=10, finished_at=70)
    applier.passes(1)
    settled = applier.lines()[JOB]

    assert reserved.estimate.usd is not None
    assert (
        reserved.estimate.usd.low
        == reserved.estimate.usd.high
        == pytest.approx(trained_tokens(manifests) / 1000)
    )
    assert (0.5, 60.0) == (settled.usd, settled.seconds)


def test_what_is_over_budget_is_not_asked_for_and_what_needs_it_waits(manifests: Path) -> None:
    platform = MemoryPlatform()
    applier = payer(manifests, platform, Clock(), usd=0.0001)

    done = applier.passes(3)

    assert 0 == platform.count("fine_tuning/jobs")
    assert "over budget: it may cost $" in why(done, JOB)
    assert ("!", "!") == (action(done, JOB), action(done, "EvalRun/right@FineTuneJob/tuned"))
    assert "refused" == next(step for step in done.steps if str(step.address) == JOB).decision.halt
    assert {} == applier.journal.open_intents("memory")


def test_money_that_comes_free_lets_what_waited_go_on(manifests: Path) -> None:
    platform, clock = MemoryPlatform(), Clock()
    payer(manifests, platform, clock, usd=0.0001).passes(2)

    payer(manifests, platform, clock, usd=100).passes(2)

    assert 1 == platform.count("fine_tuning/jobs")


def test_a_lost_reply_is_reserved_once_and_settled_once(manifests: Path) -> None:
    platform, clock = MemoryPlatform(capabilities=frozenset({"aliases"})), Clock()
    platform.faults["fine_tuning/jobs"] = [loses_reply]
    applier = payer(manifests, platform, clock)
    applier.passes(3)

    clock.at += WINDOW + 1
    again = payer(manifests, platform, clock)  # another process
    again.passes(3)

    jobs = [line for line in again.ledger.lines("demo") if line.address == JOB]
    assert 1 == len(platform.objects["fine_tuning/jobs"]) == len(jobs)
    assert "ftjob" in str(jobs[0].object_id)


def test_how_long_a_run_took_is_learnt_by_who_watched_it(manifests: Path) -> None:
    platform, clock = MemoryPlatform(), Clock()
    applier = payer(manifests, platform, clock)
    applier.passes(3)
    clock.at += 30
    applier.passes(1)
    clock.at += 2

    platform.finish_runs(lambda *_: True)
    applier.passes(1)

    assert applier.lines()[BASE_RUN].seconds == pytest.approx(32, abs=2)


def test_nobody_who_did_not_watch_claims_to_know_how_long_it_took(manifests: Path) -> None:
    platform, clock = MemoryPlatform(), Clock()
    payer(manifests, platform, clock).passes(3)

    clock.at += 86_400
    platform.finish_runs(lambda *_: True)
    applier = payer(manifests, platform, clock)
    applier.passes(1)

    assert None is applier.lines()[BASE_RUN].seconds


def test_a_projects_budgets_and_prices_change_no_fingerprint(tmp_path: Path) -> None:
    plain, priced = write(tmp_path / "a"), write(tmp_path / "b")
    (priced / "project.yaml").write_text(spec(prices={"gpu_hour": 2}, budgets=[{"hours": 3}]))

    def fingerprints(root: Path) -> list[str]:
        return [wanted.fingerprint for wanted in project.load(root).desired.values()]

    assert fingerprints(plain) == fingerprints(priced)


@pytest.mark.parametrize(
    "more, said",
    [
        ({"budgets": [{"per": "month"}]}, "a budget limits usd or hours, or both"),
        ({"budgets": [{"usd": -1}]}, "greater than or equal to 0"),
        ({"prices": {"models": {"x": {"input": 1}}}}, "output"),
    ],
)
def test_what_cannot_be_meant_gets_a_sentence(tmp_path: Path, say: Say, more: Any, said: str) -> None:
    manifests = write(tmp_path / "manifests")
    (manifests / "project.yaml").write_text(spec(**more))

    code, _, problems = say("validate", manifests)

    assert 1 == code
    assert said in problems


def test_the_journal_of_an_older_version_gets_a_ledger(manifests: Path) -> None:
    Journal.at(manifests / ".reconciler" / "journal.db")

    applier = payer(manifests, MemoryPlatform(), Clock())
    applier.passes(3)

    assert JOB in applier.lines()


def test_an_apply_that_finds_everything_done_settles_what_ended_meanwhile(
    server: FaultyServer, tmp_path: Path, say: Say
) -> None:
    manifests = tree(tmp_path, server, prices={"gpu_hour": 3600})
    for file in ("measure.yaml", "promote.yaml"):
        (manifests / file).unlink()
    started, _, _ = say("apply", manifests, "--no-wait")
    until(lambda: "succeeded" in httpx.get(f"{server.url}/fine_tuning/jobs").text)

    code, applied, _ = say("apply", manifests)
    _, told, _ = say("costs", manifests, "--output", "json")

    assert (7, 0) == (started, code), applied
    assert "nothing to do" in applied
    assert 0 == json.loads(told)["hours"]["reserved"] == json.loads(told)["usd"]["unknown"]
