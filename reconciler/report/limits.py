"""
What the evidence does not show, in sentences. Pure.

A report that only says what was measured reads as if everything had been.
"""

from collections.abc import Iterator

from reconciler.gates import Verdict
from reconciler.report import counts
from reconciler.report.values import CANDIDATE, Report, Run

FEW = 30  # items below which a rate says little


def limits(report: Report) -> list[str]:
    """The limits of everything in the report, most important first."""
    return list(
        dict.fromkeys([*_verdicts(report), *_items(report), *_sampling(report), *_unmeasured(report)])
    )


def _verdicts(report: Report) -> Iterator[str]:
    if report.trials:
        level = (1 - report.confidence) / 2
        yield (
            f"Verdicts hold at {report.confidence:.0%} confidence: a candidate on the wrong side of a gate "
            f"passes it with a probability of at most {level:.1%}."
        )
    if any(j.verdict is Verdict.INCONCLUSIVE for trial in report.trials for j in trial.judgements):
        yield "An inconclusive gate is no weak pass and no weak fail: these items cannot tell, more of them can."
    if any(j.rule.calibration for trial in report.trials for j in trial.judgements):
        yield "A calibrated gate is corrected for its judge's errors; the tables show what the judge said."


def _items(report: Report) -> Iterator[str]:
    for name in report.evals:
        runs = [run for run in report.of(name) if run.part == CANDIDATE] or list(report.of(name))
        run = max(runs, key=lambda r: len(r.items))
        found = counts.overall(run)
        few = " Few items: read the rates as hints." if found.n < FEW else ""
        if _repeated(run):
            yield (
                f"{name} has {found.n} answers, several to every item. The tables count answers as if they were "
                "independent; the gates average them within their item."
            )
        else:
            yield (
                f"{name} has {found.n} items, so {run.subject}'s pass rate of {counts.percent(found.value)} is "
                f"known to lie between {counts.percent(found.low)} and {counts.percent(found.high)}.{few}"
            )
        if run.cluster:
            yield (
                f"Items of {name} with the same {run.cluster} are not independent; "
                "the gates know, the tables take them as if they were."
            )
        if errors := [f"{r.errored} of {r.subject}" for r in report.of(name) if r.errored]:
            yield f"Errored or missing in {name}: {', '.join(errors)}. They count as not passed."
    if any(counts.sliceable(report.of(name)) for name in report.evals):
        yield (
            "The worst of many slices looks worse than it is. Slices are for finding questions, not for deciding; "
            "their intervals are not adjusted for their number."
        )


def _sampling(report: Report) -> Iterator[str]:
    once = [run for run in report.runs if not _repeated(run)]
    if once:
        temperatures = {dict(run.sampling).get("temperature") for run in once}
        how = " at temperature 0" if temperatures <= {"0", "0.0"} else ""
        yield f"Every item was answered once{how}: how much answers vary from one time to the next was not measured."
    if any(card.checkpoints for card in report.cards):
        yield "Each model was trained once, with one seed: how much another seed would change was not measured."


def _unmeasured(report: Report) -> Iterator[str]:
    priced = any(j.rule.metric == "cost_per_1k_items" for trial in report.trials for j in trial.judgements)
    missing = [] if priced else ["cost"]
    if not any(_timed(run) for run in report.runs):
        missing.append("latency")
    else:
        yield (
            "Latency is that of the batch an item was sampled in, on the machine that ran the eval; "
            "it is not what a user would wait under load."
        )
    yield f"Not measured: {', '.join([*missing, 'whether eval items resemble rows that a model was trained on'])}."
    verb = "was" if len(report.evals) == 1 else "were"
    yield f"Only {_joined(list(report.evals))} {verb} run: what no eval asks is unknown."


def _repeated(run: Run) -> bool:
    return any("(sample " in item.id for item in run.items)


def _timed(run: Run) -> bool:
    return any(item.latency_ms is not None for item in run.items)


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
