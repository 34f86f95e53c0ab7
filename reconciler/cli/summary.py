"""The end of an apply, as a person wants it: what stands, how good it is, where it serves, how to call it."""

from reconciler.cli import render
from reconciler.engine import Pass
from reconciler.kind import Action
from reconciler.kinds.promotionrule import PromotionRuleSpec
from reconciler.plan import Step
from reconciler.project import Project
from reconciler.resource import Address
from reconciler.stats.proportions import clopper_pearson
from reconciler.subject import run_of, samples_of


def summary(done: Pass, project: Project, platform: str) -> str:
    """Pure."""
    lines = ["", render.status_text(done.steps, project.name, platform)]
    steps = {step.address: step for step in done.steps}
    for step in done.steps:
        if step.address.kind == "PromotionRule":
            lines += ["", *_rule(step, steps)]
    served = [
        step for step in done.steps if step.address.kind == "PromotionRule" and step.action is Action.KEEP
    ]
    if served and project.spec.platforms[platform].type == "embedded":
        lines += ["", *_call(served[0], project, platform)]
    if not done.settled:
        lines += ["", "still in progress; apply again to go on"]
    return "\n".join(lines)


def _rule(step: Step, steps: dict[Address, Step]) -> list[str]:
    spec = PromotionRuleSpec.model_validate(step.wanted.body)
    lines = [f"{spec.channel}"]
    subjects = {
        **({spec.against: "base model"} if spec.against else {}),
        **dict.fromkeys(spec.names, "candidate"),
    }
    for name in dict.fromkeys(gate.eval for gate in spec.gates):
        rows = []
        for subject, role in subjects.items():
            runs = [steps[each] for each in samples_of(run_of(name, subject), steps) if each in steps]
            made = [run.decision.observed for run in runs if run.action is Action.KEEP]
            counts = [each.body["result_counts"] for each in made if each]
            if counts and len(counts) == len(runs):
                rows.append((name, f"{role} {subject}", _rate(counts, spec.confidence)))
        lines += render.table(rows)
    for trial in step.decision.evidence or []:
        lines += [f"  {j.verdict.upper()}  {trial.candidate}: {j.sentence}" for j in trial.judgements]
    if step.action is Action.KEEP and step.decision.observed:
        lines.append(f"  release: {spec.channel} → {step.decision.observed.body['model']}")
    else:
        lines.append(f"  release: not moved; {step.decision.why}")
    return lines


def _rate(samples: list[dict[str, int]], confidence: float) -> str:
    """Of one run, or of the runs of several samples, which are not independent: without an interval then."""
    passed, total, errored = (
        sum(counts.get(key) or 0 for counts in samples) for key in ("passed", "total", "errored")
    )
    errors = f", {errored} errored" if errored else ""
    if len(samples) > 1:
        return f"pass rate {passed / total:.1%}  n={samples[0]['total']}, {len(samples)} samples each{errors}"
    low, high = clopper_pearson(passed, total, confidence)
    return f"pass rate {passed / total:.1%}  {confidence:.0%} interval [{low:.1%}, {high:.1%}]  n={total}{errors}"


def _call(step: Step, project: Project, platform: str) -> list[str]:
    channel = step.wanted.body["channel"]
    data = project.data / project.spec.platforms[platform].data  # type: ignore[union-attr]  # embedded
    return [
        "Talk to it:",
        f"  reconciler platform serve --data {data}",
        "  from openai import OpenAI",
        '  client = OpenAI(base_url="http://127.0.0.1:8321/v1", api_key="local")',
        f'  client.chat.completions.create(model="{channel}", messages=[{{"role": "user", "content": "..."}}])',
    ]
