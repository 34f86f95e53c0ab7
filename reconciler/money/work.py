"""
What a job or a run comes to in tokens, before it is asked for.

Reads the dataset's rows through a `Counter`, and nothing else of the world. What it costs and how long it
takes follows from it in `expense`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.cost import Range
from reconciler.kinds.prompt import PromptSpec, template
from reconciler.money.pace import Like
from reconciler.resource import Address, Ref, Wanted
from reconciler.tokens import Count, Counter, Source
from reconciler.tokens.messages import answers_in

MOST = 2048  # tokens of an answer where nobody says; what OpenAI's evals use
COSTING = ("FineTuneJob", "EvalRun")  # kinds of things that cost money or time
JUDGES = ("score_model", "label_model")
Resources = Mapping[Address, Wanted]


class Usage(NamedTuple):
    """Questions to one model: tokens read, answers given, and of each answer the most tokens."""

    model: str
    asked: Range
    answers: int
    most: int
    quotes: int = 0  # how often the question holds the answer that is judged


@dataclass(frozen=True)
class Work:
    """`size` is what its time grows with: trained tokens, prompts of reinforcement, or items."""

    like: Like
    size: Range
    trains: str = ""  # the base by its platform's name
    trained: Range | None = None  # tokens of all epochs; None where they are not what is trained on
    asks: Usage | None = None  # the model that is measured
    judges: tuple[Usage, ...] = ()
    how: str = ""  # why counts are ranges
    untold: str = ""  # why something that costs cannot be counted


UNCOUNTED = Work(Like("", "", "", ""), Range(0, 0))


def of(wanted: Wanted, resources: Resources, platform: str, counter: Counter) -> Work | None:
    """What a resource comes to, given all others; None for what costs nothing. Raises OSError."""
    match wanted.address.kind:
        case "FineTuneJob":
            return _training(wanted, resources, platform, counter)
        case "EvalRun":
            return _measuring(wanted, resources, platform, counter)
    return None


def like(wanted: Wanted, resources: Resources, platform: str) -> Like:
    """What has to agree so that a job or a run tells about another. Pure."""
    if wanted.address.kind == "FineTuneJob":
        tuning = (wanted.body.get("tuning") or {}).get("type", "")
        base = _name(_root(wanted, resources))
        return Like(platform, "FineTuneJob", wanted.body["method"]["type"], base, tuning)
    base = _name(_root(wanted, resources)) if "model" in wanted.body else ""
    return Like(platform, "EvalRun", resources[wanted.needed("eval")].fingerprint, base)


def epochs(asked: Any, rows: int) -> int:
    """What `auto` means: the helper of OpenAI's cookbook, which the self-hosted platform follows too. Pure."""
    if isinstance(asked, int):
        return asked
    if rows * 3 < 100:
        return min(25, 100 // max(rows, 1))
    return max(1, 25_000 // rows) if rows * 3 > 25_000 else 3


def _training(wanted: Wanted, resources: Resources, platform: str, counter: Counter) -> Work:
    root, rows = _root(wanted, resources), _source(resources[wanted.needed("training_file")])
    kind = wanted.body["method"]["type"]
    method = wanted.body["method"].get(kind) or {}
    asked = (method.get("hyperparameters") or {}).get("n_epochs", "auto")
    counted = counter.training(rows, counter.tokenizer(root.body, root.facts))
    times = epochs(asked, counted.examples)
    trained = _range(counted).times(times)
    how = _said(counted, f"n_epochs auto taken as {times}" if times != asked else "")
    alike, trains = like(wanted, resources, platform), _priced(wanted, resources)
    if kind != "reinforcement":
        return Work(alike, trained, trains, trained, how=how)
    judged = any(_judging(_grader(method["grader"], resources), resources))
    untold = "the answers of its judges cannot be counted beforehand" if judged else ""
    prompts = float(rows.rows * times)
    return Work(alike, Range(prompts, prompts), trains, how=how, untold=untold)


def _measuring(wanted: Wanted, resources: Resources, platform: str, counter: Counter) -> Work:
    items = _source(resources[wanted.needed("dataset")])
    alike, size = like(wanted, resources, platform), Range(items.rows, items.rows)
    asks, how = None, ""
    if "model" in wanted.body:
        root = _root(wanted, resources)
        prompt = (
            PromptSpec.model_validate(resources[wanted.needed("prompt")].body)
            if "prompt" in wanted.body
            else None
        )
        asked = template(prompt) if prompt else wanted.body["item_reference"]
        counted = counter.asking(items, counter.tokenizer(root.body, root.facts), asked)
        params = (wanted.body.get("sampling_params"), prompt.sampling_params.wire() if prompt else None)
        asks = Usage(_priced(wanted, resources), _range(counted), items.rows, _most(*params))
        how = _said(counted)
    judges = []
    for named in resources[wanted.needed("eval")].body["graders"]:
        for grader in _judging(_grader(named, resources), resources):
            usage, more = _judge(grader, resources, items, counter)
            judges.append(usage)
            how = "; ".join(dict.fromkeys(filter(None, [how, more])))
    return Work(alike, size, asks=asks, judges=tuple(judges), how=how)


def _judge(
    grader: Mapping[str, Any], resources: Resources, items: Source, counter: Counter
) -> tuple[Usage, str]:
    address = Ref("Model", "FineTuneJob", or_text=True).address(grader["model"])
    if address is None:
        name, known = grader["model"], counter.tokenizer({"id": grader["model"]}, {})
    else:
        root = _root_of(resources[address], resources)
        name, known = _tuned_or(resources[address], root), counter.tokenizer(root.body, root.facts)
    counted = counter.asking(items, known, grader["input"])
    most, quotes = _most(grader.get("sampling_params")), answers_in(grader["input"])
    return Usage(name, _range(counted), items.rows, most, quotes), _said(counted)


def _grader(named: Any, resources: Resources) -> Mapping[str, Any]:
    return (
        resources[Ref("Grader").address(named) or Address("Grader", named)].body
        if isinstance(named, str)
        else named
    )


def _judging(grader: Mapping[str, Any], resources: Resources) -> Iterator[Mapping[str, Any]]:
    """The graders that ask a model: itself, or parts of it."""
    if grader["type"] in JUDGES:
        yield grader
    for part in (grader.get("graders") or {}).values():
        yield from _judging(_grader(part, resources), resources)


def _source(dataset: Wanted) -> Source:
    facts = dataset.facts
    return Source(
        Path(facts["path"]),
        dataset.content["/facts/sha256"],
        facts["bytes"],
        dataset.body["format"],
        facts["rows"],
    )


def _root(wanted: Wanted, resources: Resources) -> Wanted:
    """The Model from which its model grew."""
    return _root_of(resources[wanted.needed("model")], resources)


def _root_of(model: Wanted, resources: Resources) -> Wanted:
    while model.address.kind == "FineTuneJob":
        model = resources[model.needed("model")]
    return model


def _name(model: Wanted) -> str:
    return str(model.facts.get("wire_id") or model.body["id"])


def _priced(wanted: Wanted, resources: Resources) -> str:
    """The name by which its model is priced: a tuned one as `ft:BASE`."""
    model = resources[wanted.needed("model")]
    return _tuned_or(model, _root_of(model, resources))


def _tuned_or(model: Wanted, root: Wanted) -> str:
    return _name(root) if model is root else f"ft:{_name(root)}"


def _most(*params: Mapping[str, Any] | None) -> int:
    """The most tokens of an answer, as the first of these says it."""
    named = ("max_completion_tokens", "max_completions_tokens")
    return next((int(p[n]) for p in params if p for n in named if p.get(n)), MOST)


def _range(counted: Count) -> Range:
    return Range(counted.low, counted.high)


def _said(counted: Count, *more: str) -> str:
    how = (
        f"{counted.how}: 2 to 6 bytes a token"
        if counted.low < counted.high and "places" not in counted.how
        else counted.how
    )
    return "; ".join(filter(None, [how, *more]))
