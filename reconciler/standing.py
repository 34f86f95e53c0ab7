"""
What a rule measures because of where its channel leads: the incumbent, and a canary that has had its time. Pure.

Both are measured as the candidates are: the same eval, items and sampling. The incumbent keeps the prompt
that it was released with; where it was released without one of its own, the eval's is used.
"""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from reconciler import fingerprint
from reconciler.kinds.eval import EvalSpec
from reconciler.kinds.evalrun import EvalRunSpec, implied
from reconciler.kinds.model import ModelSpec
from reconciler.kinds.prompt import PromptSpec
from reconciler.release import Channel
from reconciler.resource import Address, Desired, Need, Ref, Wanted
from reconciler.rule import INCUMBENT, PromotionRuleSpec
from reconciler.subject import AGAIN, again, run_of, samples_of

Known = Mapping[Address, Wanted]


def incumbent(wanted: Wanted, spec: PromotionRuleSpec, channel: Channel, desired: Desired) -> list[Wanted]:
    """The rule, bound to what its channel leads to now, behind the runs that measure that."""
    more: dict[Address, Wanted] = {}
    model = _model(wanted, channel, desired)
    prompt = _prompt(wanted, channel, desired)
    for each in filter(None, (model, prompt)):
        if each.address not in desired:
            more[each.address] = each
    subject = f"{model.address}+{prompt.address}" if prompt else str(model.address)
    runs: list[Address] = []
    for gate in (gate for gate in spec.gates if gate.compares):
        eval_ = _address(Ref("Eval"), gate.eval)
        measure = EvalSpec.model_validate(desired[eval_].body)
        asked = prompt or (desired[_address(Ref("Prompt"), measure.prompt)] if measure.prompt else None)
        like = desired[run_of(gate.eval, spec.names[0])]
        for sample in range(1, measure.samples_per_item + 1):
            runs.append(run := run_of(gate.eval, subject, sample))
            if run not in desired:
                question = PromptSpec.model_validate(asked.body) if asked else None
                body = implied(eval_, measure, subject, question, sample)
                body |= {"suspend": True} if spec.suspend else {}
                more[run] = _run(run, body, like, desired | more)
    needs = (
        *wanted.needs,
        Need(INCUMBENT, model.address),
        *(Need(str(run), run) for run in dict.fromkeys(runs)),
    )
    return [*more.values(), replace(wanted, needs=needs, facts=wanted.facts | {INCUMBENT: subject})]


def _model(wanted: Wanted, channel: Channel, desired: Desired) -> Wanted:
    """What the standing model was made from, or the model as a thing of its own where nobody wants that any more."""
    made_from = channel.subject or fingerprint.fingerprint(
        "Model", fingerprint.content(ModelSpec(id=channel.model), {}, lambda _, address: str(address))
    )
    for address, each in desired.items():
        if address.kind in ("Model", "FineTuneJob") and each.fingerprint == made_from:
            return each
    return Wanted(
        Address("Model", f"{INCUMBENT}:{channel.model}"), made_from, {"/id": channel.model}, (),
        {"id": channel.model}, {"wire_id": channel.model}, wanted.file, wanted.line, implied=True,
    )  # fmt: skip


def _prompt(wanted: Wanted, channel: Channel, desired: Desired) -> Wanted | None:
    """The prompt that was released with it, from the release where nobody wants that prompt any more."""
    if channel.prompt is None:
        return None
    for address, each in desired.items():
        if address.kind == "Prompt" and each.fingerprint == channel.prompt:
            return each
    released = channel.release["prompt"]
    body: dict[str, Any] = {key: released[key] for key in ("messages", "sampling_params")}
    return Wanted(
        Address("Prompt", f"{INCUMBENT}:{channel.prompt[:12]}"), channel.prompt, {}, (), body, {},
        wanted.file, wanted.line, implied=True,
    )  # fmt: skip


def _run(address: Address, body: dict[str, Any], like: Wanted, known: Known) -> Wanted:
    """A run as the graph would have resolved it."""
    spec = EvalRunSpec.model_validate(body)
    content = fingerprint.content(spec, {}, lambda _, need: known[need].fingerprint)
    needs = tuple(
        Need(fingerprint.dotted(fingerprint.pointer(at)), _address(ref, value))
        for at, value, ref, _ in fingerprint.walk(spec)
        if ref
    )
    print_ = fingerprint.fingerprint(address.kind, content)
    return replace(like, address=address, fingerprint=print_, content=content, needs=needs, body=body)


def _address(ref: Ref, text: str) -> Address:
    address = ref.address(text)
    assert address is not None  # or the manifest was refused
    return address


def measured_again(
    wanted: Wanted, spec: PromotionRuleSpec, channel: Channel, desired: Desired
) -> list[Wanted]:
    """The rule behind the new runs of its canary, once that has had its time."""
    canary = channel.canary
    if not spec.canary or not canary or canary["fingerprint"] != wanted.fingerprint:
        return [wanted]
    if channel.seen_at < canary["since"] + spec.canary.seconds:
        return [wanted]
    candidate, attempt = canary["release"]["candidate"], 2 + len(channel.revocations(*channel.tried))
    more: dict[Address, Wanted] = {}
    for gate in filter(spec.reruns, spec.gates):
        for first in samples_of(run_of(gate.eval, candidate), desired):
            like, run = desired[first], again(first)
            content = like.content | {"/attempt": attempt}
            print_ = fingerprint.fingerprint(run.kind, content)
            body = like.body | {"attempt": attempt}
            more[run] = replace(like, address=run, fingerprint=print_, content=content, body=body)
    needs = (*wanted.needs, *(Need(str(run), run) for run in more))
    return [*more.values(), replace(wanted, needs=needs, facts=wanted.facts | {AGAIN: candidate})]
