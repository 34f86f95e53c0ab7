"""
Where the results came from, and how each measured model was made. Never a row it was made from.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.kind import Action, Observed
from reconciler.kinds.grader import model_name
from reconciler.plan import Step
from reconciler.report.values import Card, Facts, Origin, Run
from reconciler.resource import Address, Wanted
from reconciler.subject import model_of, prompt_of
from reconciler.world import Platform

WHAT = {
    "Dataset": "dataset",
    "Eval": "eval",
    "EvalRun": "run",
    "FineTuneJob": "job",
    "Model": "model",
    "Prompt": "prompt",
    "PromotionRule": "release",
}
METRICS = {
    "train_loss": "training loss",
    "full_valid_loss": "validation loss",
    "train_mean_token_accuracy": "training accuracy",
    "full_valid_mean_token_accuracy": "validation accuracy",
}  # of a checkpoint, in the contract's names and in ours
Steps = Mapping[Address, Step]


def origins(runs: Iterable[Run], steps: Steps) -> tuple[Origin, ...]:
    """Every resource that the runs rest on, with its id on the platform and the digest of what it asked for."""
    return tuple(
        _origin(step.wanted, step.decision.observed if step.action is Action.KEEP else None)
        for address, step in steps.items()
        if address.kind in WHAT
    )


def _origin(wanted: Wanted, observed: Observed | None) -> Origin:
    facts, body = wanted.facts, observed.body if observed else {}
    detail = ""
    if wanted.address.kind == "Dataset":
        detail = f"{facts.get('rows', 0):,} rows, sha256 {_sha256(wanted)[:16]}"
    elif wanted.address.kind in ("FineTuneJob", "EvalRun", "PromotionRule"):
        detail = str(body.get("fine_tuned_model") or body.get("model") or "")
    id = observed.id if observed and observed.id != str(wanted.address) else ""
    return Origin(WHAT[wanted.address.kind], str(wanted.address), id, wanted.fingerprint, detail)


def cards(runs: Iterable[Run], steps: Steps, platform: Platform) -> tuple[Card, ...]:
    """What is known of every measured subject. Raises PlatformError."""
    found = {}
    for run in runs:
        step = steps.get(model_of(run.subject))
        observed = step.decision.observed if step else None
        if step is None or observed is None or run.subject in found:
            continue
        if step.address.kind == "FineTuneJob":
            listed = platform.list(f"fine_tuning/jobs/{observed.id}/checkpoints")
            found[run.subject] = Card(
                run.subject,
                model_name(observed),
                (*job_facts(step.wanted, observed, steps), *_asked(run.subject)),
                checkpoints(listed),
            )
        else:
            facts = (("made by", "nobody here: a model that stood on the platform"), *_asked(run.subject))
            described = step.wanted.body.get("description")
            found[run.subject] = Card(
                run.subject, run.model, (*facts, *([("described as", described)] if described else []))
            )
    return tuple(found.values())


def _asked(subject: str) -> Facts:
    """The prompt of its own that a subject was asked with."""
    prompt = prompt_of(subject)
    return (("asked with", str(prompt)),) if prompt else ()


def job_facts(wanted: Wanted, job: Observed, steps: Steps) -> Facts:
    """How a job made its model. Pure."""
    body = job.body
    method = (body.get("method") or {}).get("type") or wanted.body["method"]["type"]
    tuning = (body.get("reconciler") or {}).get("tuning") or wanted.body.get("tuning") or {}
    chosen = body.get("hyperparameters") or ((body.get("method") or {}).get(method) or {}).get(
        "hyperparameters"
    )
    facts: dict[str, Any] = {
        "base": f"{wanted.body['model']} ({body.get('model', '')})",
        "method": method,
        "tuning": ", ".join(f"{k} {v}" if k != "type" else str(v) for k, v in tuning.items()),
        **{key.replace("_", " "): value for key, value in (chosen or {}).items()},
        "seed": body.get("seed"),
        "trained tokens": f"{body['trained_tokens']:,}" if body.get("trained_tokens") else "",
        "training": _data(wanted, "training_file", steps),
        "validation": _data(wanted, "validation_file", steps)
        if wanted.body.get("validation_file")
        else "none",
    }
    if body.get("finished_at") and body.get("created_at"):
        facts["took"] = f"{body['finished_at'] - body['created_at']:,} s, queue included"
    return tuple((name, str(value)) for name, value in facts.items() if value not in (None, ""))


def _data(wanted: Wanted, field: str, steps: Steps) -> str:
    data = steps[wanted.needed(field)].wanted
    return f"{data.address}, {data.facts.get('rows', 0):,} rows, sha256 {_sha256(data)}"


def _sha256(dataset: Wanted) -> str:
    """The digest of a dataset's bytes."""
    return str(next((value for at, value in dataset.content.items() if at.endswith("/sha256")), ""))


def checkpoints(listed: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, float], ...]:
    """The metrics of a job's checkpoints by step, oldest first. Pure."""
    found = [
        {"step": each["step_number"]}
        | {words: metrics[name] for name, words in METRICS.items() if metrics.get(name) is not None}
        for each in listed
        if (metrics := each.get("metrics") or {}) is not None
    ]
    return tuple(sorted(found, key=lambda each: each["step"]))
