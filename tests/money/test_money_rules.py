"""Prices, time and budgets, by tables."""

import json
import re
from pathlib import Path

import pytest
import yaml

from reconciler import cost
from reconciler.cli import costs
from reconciler.cost import NOTHING, Estimate, Range
from reconciler.kind import Observed, State
from reconciler.kinds.project import BudgetSpec, ProjectSpec
from reconciler.money import budgets, expense, pace, statement
from reconciler.money.budgets import Amount, Entry
from reconciler.money.expense import Actual, Rates
from reconciler.money.pace import Like, Pace
from reconciler.money.statement import Line
from reconciler.money.work import Usage, Work, epochs
from reconciler.prices import Book, Price, price

JOB = Like("local", "FineTuneJob", "supervised", "tiny-chat", "full")
RUN = Like("local", "EvalRun", "e" * 64, "tiny-chat")
NOVEMBER, DECEMBER = 1_795_600_000.0, 1_796_200_000.0


@pytest.mark.parametrize(
    "estimate, said",
    [
        (Estimate(Range(0.12, 0.2), Range(25, 40)), "about $0.12–0.20, 25–40 s"),
        (Estimate(Range(4.1, 4.1), Range(1500, 1500)), "about $4.10, 25 min"),
        (Estimate(Range(120, 12345), None, "x"), "about $120–12,345"),
        (Estimate(None, Range(3600, 9000), "no gpu_hour price"), "about 1–2.5 h, no price"),
        (Estimate(None, None, "no job like it; no gpu_hour price"), "cost unknown: no job like it"),
        (Estimate(Range(0, 0.0004), None), "about less than $0.001"),
        (NOTHING, ""),
    ],
)
def test_an_estimate_is_told_as_a_range_or_as_unknown(estimate: Estimate, said: str) -> None:
    assert said == cost.said(estimate)


def test_a_sum_with_something_unknown_in_it_says_so() -> None:
    parts = [Estimate(Range(1, 2), Range(60, 120)), Estimate(None, None, "who knows"), NOTHING]

    assert "about $1.00–2.00, 1–2 min, 1 without a price, 1 of unknown duration" == cost.said_total(parts)


@pytest.mark.parametrize("rows, expected", [(10, 10), (33, 3), (34, 3), (5000, 3), (20_000, 1), (3, 25)])
def test_auto_epochs_are_the_trainers(rows: int, expected: int) -> None:
    from reconciler.selfhosted.training.auto import _epochs

    assert expected == epochs("auto", rows) == _epochs(rows)
    assert 7 == epochs(7, rows)


@pytest.mark.parametrize(
    "paces, low, high",
    [
        ([Pace(JOB, 1000, 60)], 50, 72),  # the same again
        ([Pace(JOB, 500, 60)], 50, 144),  # twice as large: between as long and twice as long
        ([Pace(JOB, 2000, 60)], 25, 72),  # half as large
        ([Pace(JOB._replace(tuning="lora"), 1000, 60)], 50, 72),  # nothing nearer was seen
        ([Pace(JOB._replace(tuning="lora"), 1000, 600), Pace(JOB, 1000, 60)], 50, 72),
    ],
)
def test_time_is_learnt_from_what_is_most_like_it(paces: list[Pace], low: float, high: float) -> None:
    expected = pace.seconds(JOB, Range(1000, 1000), paces).range

    assert expected is not None
    assert (low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    "other",
    [
        JOB._replace(base="another"),
        JOB._replace(method="dpo"),
        JOB._replace(platform="elsewhere"),
        RUN,
    ],
)
def test_what_is_nothing_like_it_tells_nothing(other: Like) -> None:
    found = pace.seconds(JOB, Range(1000, 1000), [Pace(other, 1000, 60)])

    assert (None, "no job like it has finished on local yet") == found


def work(base: str = "gpt-4.1-mini", tokens: float = 2_000_000, trained: bool = True) -> Work:
    size = Range(tokens, tokens)
    return Work(JOB._replace(base=base), size, base, size if trained else None)


HOUR = [Pace(JOB._replace(base=base), 2_000_000, 3600 / pace.NOISE) for base in ("o4-mini", "tiny-chat")]


@pytest.mark.parametrize(
    "work, rates, usd, why",
    [
        (work(), Rates(Book(), own=False), Range(10, 10), ""),
        (work("o4-mini", trained=False), Rates(Book(), own=False), Range(100 / 1.44, 100), ""),
        (work("tiny-chat"), Rates(Book(gpu_hour=3), own=True), Range(3 / 1.44, 3), ""),
        (work("tiny-chat"), Rates(Book(gpu_hour=0), own=True), Range(0, 0), ""),
        (work("tiny-chat"), Rates(Book(), own=True), None, "no gpu_hour price"),
        (work("new-model"), Rates(Book(gpu_hour=3), own=False), None, "new-model has no known price"),
    ],
)  # fmt: skip
def test_training_is_paid_by_tokens_by_the_hour_or_by_the_machine(
    work: Work, rates: Rates, usd: Range | None, why: str
) -> None:
    found = expense.estimate(work, rates, HOUR)

    assert why in found.why
    assert usd == (None if found.usd is None else pytest.approx(found.usd))


def run(asked: str = "gpt-4o-mini", judge: str | None = None) -> Work:
    judges = (Usage(judge, Range(2e6, 2e6), 1000, 100, quotes=1),) if judge else ()
    return Work(
        RUN._replace(base=asked),
        Range(1000, 1000),
        asks=Usage(asked, Range(1e6, 1e6), 1000, 500),
        judges=judges,
    )


@pytest.mark.parametrize(
    "work, rates, paces, usd",
    [
        # input at 0.15, and from 1 to 500 tokens of 1,000 answers at 0.60
        (run(), Rates(Book(), False), [], Range(0.15 + 0.0006, 0.15 + 0.30)),
        # as long as like runs answered
        (run(), Rates(Book(), False), [Pace(RUN._replace(base="gpt-4o-mini"), 9, None, 120)],
         Range(0.15 + 0.06, 0.15 + 0.0864)),
        # the judge reads what was answered too
        (run(judge="gpt-4o-mini"), Rates(Book(), False), [],
         Range(0.1506 + 0.30 + 0.00015 + 0.0006, 0.45 + 0.30 + 0.075 + 0.06)),
        # our own model costs time, a judge elsewhere tokens
        (run("tiny-chat", judge="gpt-4o-mini"), Rates(Book(gpu_hour=36), True),
         [Pace(RUN, 1000, 100 / pace.NOISE, 1.0)], None),
    ],
)  # fmt: skip
def test_measuring_is_paid_for_questions_answers_and_judges(
    work: Work, rates: Rates, paces: list[Pace], usd: Range | None
) -> None:
    found = expense.estimate(work, rates, paces)

    assert found.usd is not None
    if usd:
        assert usd == pytest.approx(found.usd)
    else:
        assert found.usd.low > 36 * 100 / 3600 / 1.44


def test_judges_of_reinforcement_cannot_be_counted_beforehand() -> None:
    untold = Work(JOB, Range(1, 1), "o4-mini", None, untold="its judges' answers")

    assert None is expense.estimate(untold, Rates(Book(), False), HOUR).usd


def observed(state: State = State.READY, **body: object) -> Observed:
    return Observed("id", None, state, {"created_at": 1000, **body})


@pytest.mark.parametrize(
    "work, seen, rates, expected",
    [
        (work(), observed(finished_at=4600, trained_tokens=1_000_000), Rates(Book(), False),
         Actual(5.0, 3600.0, 1_000_000)),
        (work(), observed(State.FAILED, finished_at=4600), Rates(Book(), False),
         Actual(None, 3600.0, why="the platform does not say on how many tokens it trained")),
        (work("tiny-chat"), observed(finished_at=4600, trained_tokens=7), Rates(Book(gpu_hour=3), True),
         Actual(3.0, 3600.0, 7)),
        (work("tiny-chat"), observed(State.FAILED, finished_at=4600), Rates(Book(gpu_hour=3), True),
         Actual(3.0, 3600.0)),
        (work("o4-mini", trained=False), observed(finished_at=4600), Rates(Book(), False),
         Actual(100.0, 3600.0, 2_000_000)),
        (run(), observed(model="m", result_counts={"total": 10}, per_model_usage=[
            {"model_name": "m", "invocation_count": 10, "prompt_tokens": 10, "completion_tokens": 50},
            {"model_name": "gpt-4o", "invocation_count": 10, "prompt_tokens": 1_000_000, "completion_tokens": 0},
        ]), Rates(Book(gpu_hour=3600), True), Actual(2.5 + 60, 60.0, 10, 5.0)),
        (run(), observed(model="m", per_model_usage=[{"model_name": "m"}]), Rates(Book(), False),
         Actual(None, 60.0, why="m has no price")),
        (run(), observed(), Rates(Book(), False),
         Actual(None, 60.0, why="the platform does not say how many tokens it took")),
    ],
)  # fmt: skip
def test_what_finished_is_paid_by_what_its_platform_reports(
    work: Work, seen: Observed, rates: Rates, expected: Actual
) -> None:
    found = expense.actual(work, seen, 60.0, rates)

    assert expected == found


def entry(usd: float | None, at: float = NOVEMBER, settled: bool = False, **labels: str) -> Entry:
    return Entry(at, labels, Amount(usd, None if usd is None else usd / 10), settled)


@pytest.mark.parametrize(
    "budget, entries, refused",
    [
        ({"usd": 100}, [], None),
        ({"usd": 100}, [entry(90), entry(5, settled=True)], None),
        ({"usd": 100}, [entry(90), entry(5.01, settled=True)],
         "over budget: it may cost $5.00, and of $100.00 a month $4.99 are left ($5.01 spent, $90.00 reserved); "
         "raise it in spec.budgets, or wait for next month"),
        ({"usd": 100}, [entry(99, at=DECEMBER)], None),
        ({"usd": 100, "per": "total"}, [entry(99, at=DECEMBER)], "raise it in spec.budgets"),
        ({"usd": 4}, [], "of $4.00 a month $4.00 are left ($0.00 spent, $0.00 reserved); raise it in spec.budgets"),
        ({"usd": 100, "labels": {"team": "a"}}, [entry(99)], None),
        ({"usd": 100, "labels": {"team": "a"}}, [entry(99, team="a")], "for team=a"),
        ({"usd": 1, "labels": {"team": "b"}}, [], None),
        ({"usd": 100}, [entry(None)], None),
        ({"hours": 1}, [entry(8)], "it may cost 0.50 h"),
        ({"hours": 1}, [], None),
    ],
)  # fmt: skip
def test_a_budget_has_room_or_says_the_numbers(
    budget: dict[str, object], entries: list[Entry], refused: str | None
) -> None:
    wanted = Estimate(Range(1, 5), Range(60, 1800))

    found = budgets.refusal([BudgetSpec.model_validate(budget)], entries, {"team": "a"}, wanted, NOVEMBER)

    assert (found is None) if refused is None else (found is not None and refused in found)


def test_what_nobody_can_price_is_refused_until_somebody_allows_it() -> None:
    unknown = Estimate(None, None, "no gpu_hour price")

    refused = budgets.refusal([BudgetSpec(usd=5)], [], {}, unknown, NOVEMBER)
    allowed = budgets.refusal([BudgetSpec(usd=5, unknown="allow")], [], {}, unknown, NOVEMBER)

    assert refused == (
        "over budget: what it costs is unknown (no gpu_hour price), and $5.00 a month pays only for what is known; "
        "give it a price in spec.prices, or say unknown: allow in that budget"
    )
    assert allowed is None


def line(address: str, **more: object) -> Line:
    made = {
        "platform": "local",
        "object_id": "x",
        "labels": {},
        "at": NOVEMBER,
        "estimate": Estimate(Range(1, 2)),
    }
    return Line(address=address, **(made | more))  # type: ignore[arg-type]


def test_a_statement_sums_what_is_known_and_names_what_is_not() -> None:
    lines = [
        line("FineTuneJob/a", settled_at=NOVEMBER, usd=1.5, seconds=3600.0),
        line("FineTuneJob/a", at=DECEMBER),
        line("FineTuneJob/b", estimate=Estimate(None, None, "no price")),
        line(
            "FineTuneJob/c", settled_at=NOVEMBER
        ),  # nobody can say what it cost: what was reserved stays spent
    ]

    found = statement.of("demo", lines, [BudgetSpec(usd=10)], NOVEMBER)

    assert (3.5, 2.0, 1) == found.whole.usd
    assert {"FineTuneJob/a": (1.5, 2.0, 0), "FineTuneJob/b": (0, 0, 1), "FineTuneJob/c": (2.0, 0, 0)} == {
        each.name: each.usd for each in found.resources
    }
    assert ["2026-11", "2026-12"] == [each.name for each in found.months]
    assert [(3.5, 0.0, 1)] == [each.standing for each in found.budgets]
    assert ["FineTuneJob/b"] == [each.address for each in found.unknown]


def test_what_the_page_says_can_be_written() -> None:
    page = (Path(__file__).parents[2] / "docs" / "money.md").read_text()
    [block] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)

    spec = ProjectSpec.model_validate(yaml.safe_load(block)["spec"])

    assert ["$100.00 a month", "$20.00 a month for team=support", "40.00 h in all"] == [
        budgets.called(each) for each in spec.budgets
    ]


SPENT = """\
demo

                 spent  reserved  hours  reserved  no price
  FineTuneJob/a  $1.50  $2.00     1.00   -         -
  FineTuneJob/b  -      -         -      -         1
  all            $1.50  $2.00     1.00   -         1

  month    spent  reserved  hours  reserved  no price
  2026-11  $1.50  -         1.00   -         1
  2026-12  -      $2.00     -      -         -

  budget of $10.00 a month: $1.50 spent, $0.00 reserved, $8.50 left, 1 unknown

  without a price, and in no sum:
    FineTuneJob/b on local: no gpu_hour price"""


def test_costs_are_told_by_resource_by_month_and_by_budget() -> None:
    lines = [
        line("FineTuneJob/a", settled_at=NOVEMBER, usd=1.5, seconds=3600.0),
        line("FineTuneJob/a", at=DECEMBER),
        line("FineTuneJob/b", estimate=Estimate(None, None, "no gpu_hour price"), why="no gpu_hour price"),
    ]
    found = statement.of("demo", lines, [BudgetSpec(usd=10)], NOVEMBER)

    assert SPENT == costs.as_text(found)
    assert "| FineTuneJob/b | - | - | - | - | 1 |" in costs.as_markdown(found)
    assert {"spent": 1.5, "reserved": 2.0, "unknown": 1} == json.loads(costs.as_json(found))["usd"]


def test_a_rules_own_prices_come_before_the_projects() -> None:
    rule, ours = {"tiny": Price(1, 1)}, {"tiny": Price(2, 2), "tiny-chat": Price(3, 3)}

    assert Price(1, 1) == price("tiny-chat", rule, ours)
    assert Price(3, 3) == price("tiny-chat", {}, ours)
    assert None is price("tiny-chat", {}, {})
