"""Where a released model comes from and what measured it: the objects on the platform, by id. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.kind import Needs, Observed
from reconciler.resource import Address


def of(candidate: Address, runs: Iterable[Address], needs: Needs) -> dict[str, Any]:
    """The candidate, what it was trained on, and every run with its eval and its items."""
    by_id = {observed.id: address for address, observed in needs.items()}
    subject = needs[candidate]
    found: dict[str, Any] = {"candidate": _named(candidate, needs)}
    for field in ("model", "training_file", "validation_file"):
        if value := subject.body.get(field):
            found[field] = _named(by_id[value], needs) if value in by_id else {"id": value}
    found["runs"] = [_run(address, needs, by_id) for address in runs if address in needs]
    return found


def prompt(run: Observed) -> dict[str, Any] | None:
    """What a run asked with: its messages and how it sampled."""
    source = run.body.get("data_source") or {}
    messages = (source.get("input_messages") or {}).get("template")
    if not messages:
        return None
    return {"messages": messages, "sampling_params": source.get("sampling_params") or {}}


def _run(address: Address, needs: Needs, by_id: Mapping[str, Address]) -> dict[str, Any]:
    run = needs[address]
    found: dict[str, Any] = {"address": str(address), "id": run.id}
    measure = Address(
        "Eval", address.name.partition("@")[0]
    )  # two evals may be one object; this is its name here
    if measure in needs:
        found["eval"] = _named(measure, needs)
    if items := ((run.body.get("data_source") or {}).get("source") or {}).get("id"):
        found["dataset"] = _named(by_id[items], needs) if items in by_id else {"id": items}
    return found


def _named(address: Address, needs: Needs) -> dict[str, Any]:
    observed = needs[address]
    found = {"address": str(address), "id": observed.id}
    return found | {"fingerprint": observed.stamp.fingerprint} if observed.stamp else found
