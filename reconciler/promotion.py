"""
Whether a rule moves its channel, and where to. Pure.

People come first: a hold stands against every rule, and what they rolled back needs their approval. Then
comes what was accepted here before, which is not judged anew; then the gates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from reconciler import release
from reconciler.gates import Judgement, Trial, Verdict
from reconciler.kind import Action, Decision, Halt, Observed
from reconciler.release import Channel, What, Word

AUTOMATIC, MANUAL = "automatic", "manual"


@dataclass(frozen=True)
class Policy:
    """A rule, as far as it is not gates."""

    address: str
    fingerprint: str
    channel: str
    approval: Literal["automatic", "manual"] = "automatic"
    approved_fingerprint: str | None = None
    approved_by: str | None = None
    on_drift: Literal["report", "restore"] = "report"
    rollback: Literal["automatic", "manual"] = "manual"
    canary: "Airing | None" = None


class Airing(NamedTuple):
    """How a model is tried on a share of users first."""

    share: float
    soak: float  # seconds


@dataclass(frozen=True)
class Tried:
    """A candidate before the gates: the model it is, the runs that measured it, what its release would say."""

    trial: Trial
    model: str
    runs: Sequence[str]
    release: Mapping[str, Any]

    @property
    def what(self) -> What:
        return What(self.model, release.prompt_in(self.release))

    @property
    def shown(self) -> str:
        return release.shown(self.model, self.release)


def decide(
    policy: Policy, channel: Channel | None, observed: Observed | None, tried: Sequence[Tried] | None
) -> Decision:
    """`tried` is None where nothing was measured yet."""
    if channel and channel.fingerprint == policy.fingerprint and not channel.canary:
        return _settled(policy, channel, observed)
    if channel and channel.hold:
        return Decision(Action.BLOCK, f"{_held(channel)}; {_stays(channel)}", observed, halt=Halt.REFUSED)
    if channel and channel.canary:
        return _on_air(policy, channel, observed, tried)
    before = channel.accepted(policy.fingerprint) if channel else None
    if channel and before and not channel.revocations(*before.what):
        why = f"accepted here before, on {release.stamp_of_time(before.at)}; {channel.name} → {before.shown}"
        moved = release.restored(channel, before, "restored", policy.address, "the rule is as it was")
        return Decision(Action.UPDATE, why, observed, body=release.written(moved))
    move = Action.UPDATE if observed else Action.CREATE
    if tried is None:
        return Decision(move, "decided by its gates once everything is measured", observed)
    trials = [each.trial for each in tried]
    passing = [each for each in tried if each.trial.verdict is Verdict.PASS]
    free = [each for each in passing if not (channel and channel.revocations(*each.what))]
    if chosen := next(iter(free or passing), None):
        return _accepted(policy, channel, observed, chosen, trials)
    return _refused(policy, channel, observed, tried)


def _settled(policy: Policy, channel: Channel, observed: Observed | None) -> Decision:
    body = release.written(channel)
    if channel.file in (release.MISSING, release.INTERRUPTED, release.BEHIND):
        how = {
            release.MISSING: "is missing",
            release.INTERRUPTED: "was not written to its end",
            release.BEHIND: f"shows how {channel.name} stood before",
        }
        return Decision(
            Action.UPDATE, f"the release file {how[channel.file]}; it is written anew", observed, body=body
        )
    if channel.file != release.SAME:
        if policy.on_drift == "restore":
            return Decision(Action.UPDATE, f"drift: {channel.file}; it is put back", observed, body=body)
        why = f"drift: {channel.file}; it is left as it is, on_drift: restore would put it back"
        return Decision(Action.BLOCK, why, observed, halt=Halt.DRIFT)
    hold = f"; {_held(channel)}" if channel.hold else ""
    return Decision(Action.KEEP, f"{channel.name} → {channel.shown}{hold}", observed)


def _accepted(
    policy: Policy, channel: Channel | None, observed: Observed | None, chosen: Tried, trials: list[Trial]
) -> Decision:
    gone = channel.revocations(*chosen.what) if channel else []
    asked = release.approval(policy.fingerprint, chosen.model, chosen.runs, len(gone))
    approved = _approved(policy, asked)
    stays = channel is not None and channel.what == chosen.what
    passes = f"{chosen.trial.candidate} passes {len(chosen.trial.judgements)} gates"
    command = _command(policy, asked)
    if gone and not approved:
        said = gone[-1]
        why = f"{passes}, but {said.by} took {chosen.shown} back on {said.at} ({said.reason}); to release it: {command}"
        return Decision(Action.BLOCK, why, observed, evidence=trials, halt=Halt.REFUSED, approval=asked)
    if policy.approval == MANUAL and not approved and not stays:
        why = f"{passes}, waits for approval: {command}"
        return Decision(Action.BLOCK, why, observed, evidence=trials, halt=Halt.UNAPPROVED, approval=asked)
    record = {**chosen.release, "approved": approved}
    if policy.canary and channel and channel.model == chosen.model and not stays:
        passes += "; only its prompt is new, so there are no users to split between models"
    elif policy.canary and channel and not stays:
        share, first = policy.canary.share, {"candidate": chosen.trial.candidate, "approved": approved}
        first |= {"prompt": chosen.release["prompt"]} if chosen.what.prompt else {}
        aired = release.aired(channel, chosen.model, share, policy.fingerprint, first)
        why = f"{passes}; {share:.0%} of users go first"
        return Decision(Action.UPDATE, why, observed, evidence=trials, body=release.written(aired))
    return _promoted(policy, channel, observed, chosen.model, record, passes, trials)


def _promoted(
    policy: Policy,
    channel: Channel | None,
    observed: Observed | None,
    model: str,
    record: Mapping[str, Any],
    why: str,
    trials: list[Trial],
) -> Decision:
    record = {**record, "moved": {"how": "promoted", "by": policy.address, "reason": why}}
    body = release.written(release.promoted(channel, policy.channel, model, record))
    move = Action.UPDATE if observed else Action.CREATE
    leads = f"{why}; {policy.channel} → {release.shown(model, record)}"
    return Decision(move, leads, observed, evidence=trials, body=body)


def _on_air(
    policy: Policy, channel: Channel, observed: Observed | None, tried: Sequence[Tried] | None
) -> Decision:
    """A canary lasts its time, and then its own measurements decide; a changed rule ends it."""
    canary = channel.canary
    assert canary is not None
    if canary["fingerprint"] != policy.fingerprint or policy.canary is None:
        body = release.written(replace(channel, canary=None))
        why = f"the rule changed, the canary on {canary['model']} ends"
        return Decision(Action.UPDATE, why, observed, body=body)
    left = canary["since"] + policy.canary.soak - channel.seen_at
    if left > 0:
        on = f"{canary['share']:.0%} of users are on {canary['model']}"
        why = f"{on} for {left:.0f} s more, then it is measured again"
        return Decision(Action.WAIT, why, observed)
    if tried is None:
        why = f"the canary on {canary['model']} is decided once it is measured again"
        return Decision(Action.UPDATE, why, observed)
    trials = [each.trial for each in tried]
    on_air = next((each for each in tried if each.what == channel.tried), None)
    if on_air and on_air.trial.verdict is Verdict.PASS:
        why = f"{on_air.trial.candidate} passes {len(on_air.trial.judgements)} gates again, as a canary"
        asked = release.approval(policy.fingerprint, on_air.model, on_air.runs, 0)
        approved = canary["release"]["approved"] or _approved(policy, asked)
        if policy.approval == MANUAL and not approved:  # it went on air while the rule still was automatic
            why = f"{why}, waits for approval: {_command(policy, asked)}"
            return Decision(
                Action.BLOCK, why, observed, evidence=trials, halt=Halt.UNAPPROVED, approval=asked
            )
        record = {**on_air.release, "approved": approved}
        return _promoted(policy, channel, observed, on_air.model, record, why, trials)
    why = _stopped(on_air.trial).sentence if on_air else "it is no candidate any more"
    word = Word(policy.address, release.stamp_of_time(channel.seen_at), f"as a canary: {why}")
    body = release.written(release.called_back(channel, word))
    ends = f"the canary on {canary['model']} ends: {why}; {_stays(channel)}"
    return Decision(Action.UPDATE, ends, observed, evidence=trials, body=body)


def _refused(
    policy: Policy, channel: Channel | None, observed: Observed | None, tried: Sequence[Tried]
) -> Decision:
    trials = [each.trial for each in tried]
    nearest = next((t for t in trials if t.verdict is Verdict.INCONCLUSIVE), trials[0])
    fails = any(trial.verdict is Verdict.FAIL for trial in trials)
    standing = next((each for each in tried if channel and each.what == channel.what), None)
    revokes = policy.rollback == AUTOMATIC and standing and standing.trial.verdict is Verdict.FAIL
    if channel and standing and revokes and (earlier := next(channel.earlier(), None)):
        sentence = f"{standing.trial.candidate} fails now: {_stopped(standing.trial).sentence}"
        word = Word(policy.address, release.stamp_of_time(channel.seen_at), sentence)
        body = release.written(release.rolled_back(channel, earlier, word))
        why = f"{sentence}; back to {earlier.shown}, and held"
        return Decision(Action.UPDATE, why, observed, evidence=trials, body=body)
    verdict = "fails" if nearest.verdict is Verdict.FAIL else "is inconclusive on"
    stays = f"; {_stays(channel)}" if channel else ""
    why = f"{nearest.candidate} {verdict} a gate: {_stopped(nearest).sentence}{stays}"
    halt = Halt.FAILED if fails else Halt.INCONCLUSIVE
    return Decision(Action.BLOCK, why, observed, evidence=trials, halt=halt)


def _stopped(trial: Trial) -> Judgement:
    short = trial.stopped_by
    assert short  # or it would have won
    return short


def _approved(policy: Policy, asked: str) -> dict[str, str] | None:
    """Who said yes to exactly this, for the record."""
    if policy.approved_fingerprint != asked:
        return None
    return {"by": policy.approved_by or policy.address, "fingerprint": asked}


def _command(policy: Policy, asked: str) -> str:
    return f"reconciler approve {policy.address}, or approved_fingerprint: {asked}"


def _held(channel: Channel) -> str:
    assert channel.hold
    by, at, reason = channel.hold
    return f"held by {by} since {at} ({reason}); reconciler lift {channel.name} ends that"


def _stays(channel: Channel) -> str:
    return f"{channel.name} stays on {channel.shown}"
