"""A small report with hostile items, made of real verdicts."""

from collections.abc import Sequence

from reconciler import gates
from reconciler.evidence import Case, ItemResult, Measured, Rule
from reconciler.report.values import BASELINE, CANDIDATE, Card, Gate, Grade, Item, Origin, Report, Run, Usage

AT = 1_795_559_112.0  # 2026-11-24 22:25 UTC
BREAKOUT = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
MENTION = (
    "@octocat see #12, GH-7, https://evil.example/x and www.evil.example [here](javascript:alert(1)) ![](x) |"
)
FENCE = "````\nout of the fence <b>bold</b>\n```"
TURNED = "right \u202eot tfel\x00\x07 and ]]> & more"
FORMULA = '=HYPERLINK("https://evil.example","click")'
LONG = "word " * 300
QUESTIONS = [BREAKOUT, MENTION, FENCE, TURNED, FORMULA, LONG]
HOSTILE = [BREAKOUT, MENTION, FENCE, FORMULA]


def item(index: int, right: bool, answer: str, status: str | None = None) -> Item:
    """One item of the example; wrong answers score a quarter."""
    error = "the model ran out of <memory>" if status == "error" else ""
    score = 1.0 if right else 0.25
    grades = (
        Grade("exact", right, float(right)),
        Grade("close", right, score, "" if right else "far & away"),
    )
    return Item(
        str(index), status or ("pass" if right else "fail"),
        {"question": QUESTIONS[index % 6], "kind": ("short", "long")[index % 2], "number": index},
        "" if error else answer, () if error else grades, error, 120.0 + index, 10, 3 + index,
    )  # fmt: skip


def run(subject: str, part: str, items: Sequence[Item], eval_: str = "right") -> Run:
    return Run(
        address=f"EvalRun/{eval_}@{subject}", eval=eval_, subject=subject, part=part, id=f"evalrun_{part}",
        model=f"model-{part}", created_at=AT, graders=("exact", "close"), items=tuple(items), total=len(items),
        usage=(Usage(f"model-{part}", 6, 60, 33), Usage("judge", 6, 900, 12)),
        sampling=(("temperature", "0.0"),),
    )  # fmt: skip


def example(items: int = 6) -> Report:
    """`items` per run: the baseline passes every third, the candidate all but the first; the last errors."""
    before = [item(i, i % 3 == 0, QUESTIONS[i % 6]) for i in range(items)]
    after = [item(i, i > 0, f"answer {i}", "error" if i == items - 1 else None) for i in range(items)]
    runs = (run("Model/base", BASELINE, before), run("FineTuneJob/tuned", CANDIDATE, after))
    rules = (
        Rule("pass_rate", "at_least", 0.8, most_errors=0.5),
        Rule("mean_score", "not_worse_than", 0.3, most_errors=0.5),
    )
    measured = [
        Measured({i.id: ItemResult(float(i.status == "pass"), 0.5) for i in each.items}, items)
        for each in runs
    ]
    cases = [Case(rule, measured[1], measured[0] if rule.compares else None) for rule in rules]
    trials = tuple(gates.trials({"FineTuneJob/tuned": cases}, 0.95))
    asked = [f"{rule.metric} {gates.wanted(rule)}" for rule in rules]
    return Report(
        project="demo",
        platform="memory",
        address="PromotionRule/production",
        made_at=AT,
        headline="FineTuneJob/tuned is undecided",
        detail="Stopped by a gate.",
        verdict=trials[0].verdict,
        runs=runs,
        gates=(Gate("right", None, asked[0]), Gate("right", "close", asked[1])),
        trials=trials,
        origins=(
            Origin("dataset", "Dataset/heldout", "file-1", "ab" * 32, "6 rows"),
            Origin("prompt", "Prompt/ask", "", "cd" * 32),
        ),
        cards=(
            Card(
                "FineTuneJob/tuned",
                "ft:model",
                (("method", "supervised"),),
                ({"step": 3, "training loss": 0.5},),
            ),
            Card("Model/base", "model-baseline", (("made by", "nobody here"),)),
        ),
    )
