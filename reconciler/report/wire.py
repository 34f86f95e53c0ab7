"""
A platform's own objects as the values of a report. Pure.

Output items come from anybody, and from platforms that leave fields out.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reconciler.kind import Observed
from reconciler.kinds.eval import CLUSTER
from reconciler.report.values import ERROR, FAIL, PASS, Grade, Item, Run, Usage
from reconciler.world import Object


def run_of(
    address: str,
    eval_: str,
    subject: str,
    part: str,
    samples: Sequence[Observed],
    measure: Object,
    listed: list[Object],
) -> Run:
    """A finished run, or those of all samples of the same items; `measure` is its eval, `listed` what came out."""
    run = samples[0]
    names = {c.get("id") or c["name"]: c["name"] for c in measure["testing_criteria"]}
    sampling = (run.body.get("data_source") or {}).get("sampling_params") or {}
    return Run(
        address=address,
        eval=eval_,
        subject=subject,
        part=part,
        id=run.id,
        model=str(run.body.get("model") or ""),
        created_at=run.created_at,
        graders=tuple(names.values()),
        items=tuple(items(listed, names)),
        total=sum((each.body.get("result_counts") or {}).get("total") or 0 for each in samples)
        or len(listed),
        usage=tuple(_usage(samples)),
        sampling=tuple((name, str(value)) for name, value in sampling.items()),
        cluster=(measure.get("metadata") or {}).get(CLUSTER) or "",
    )


def _usage(runs: Iterable[Observed]) -> Iterable[Usage]:
    counts: dict[str, list[int]] = {}
    for each in (each for run in runs for each in run.body.get("per_model_usage") or []):
        found = counts.setdefault(each["model_name"], [0, 0, 0])
        for index, key in enumerate(("invocation_count", "prompt_tokens", "completion_tokens")):
            found[index] += each.get(key) or 0
    return (Usage(name, *found) for name, found in counts.items())


def slim(item: Object) -> Object:
    """An output item without its prompt, its sampling and what judges wrote. Pure."""
    sample = item.get("sample") or {}
    kept = {key: sample.get(key) for key in ("output", "usage", "error")}
    keys = ("datasource_item_id", "datasource_item", "status", "reconciler")
    results = [{k: v for k, v in result.items() if k != "sample"} for result in item.get("results") or []]
    return {key: item[key] for key in keys if key in item} | {"results": results, "sample": kept}


def items(listed: Iterable[Object], names: Mapping[str, str]) -> Iterable[Item]:
    """Output items in the compact form; `names` says what a criterion's id is called. Pure."""
    times: dict[str, int] = {}
    for each in listed:
        id = str(each["datasource_item_id"])
        times[id] = times.get(id, 0) + 1
        sample = each.get("sample") or {}
        usage = sample.get("usage") or {}
        error = sample.get("error") or {}
        yield Item(
            id if times[id] == 1 else f"{id} (sample {times[id]})",
            each["status"] if each["status"] in (PASS, FAIL) and not error else ERROR,
            each.get("datasource_item") or {},
            answer_of(sample),
            tuple(_grade(result, names) for result in each.get("results") or []),
            str(error.get("message") or error.get("code") or "") if error else "",
            (each.get("reconciler") or {}).get("latency_ms"),
            usage.get("prompt_tokens") or 0,
            usage.get("completion_tokens") or 0,
        )


def _grade(result: Object, names: Mapping[str, str]) -> Grade:
    name = str(result.get("name") or "")
    note = result.get("error") or result.get("reason") or ""
    return Grade(
        names.get(name, name), bool(result.get("passed")), result.get("score"), str(note), "error" in result
    )


def answer_of(sample: Mapping[str, Any]) -> str:
    """What the model said, and the tools it called. Pure."""
    parts = []
    for message in sample.get("output") or []:
        content = message.get("content")
        if content:
            parts.append(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
        if message.get("tool_calls"):
            parts.append(json.dumps(message["tool_calls"], ensure_ascii=False))
    return "\n".join(parts)
