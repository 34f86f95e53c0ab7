"""Random histories of one channel: rules change, models come and go, people step in, and it stays honest."""

from collections.abc import Mapping
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reconciler import picture, promotion, release
from reconciler.errors import ReconcilerError
from reconciler.evidence import Rule
from reconciler.gates import Judgement, Trial, Verdict
from reconciler.kind import Action, Decision, Halt, Stamp
from reconciler.kinds.promotionrule import KIND
from reconciler.promotion import Airing, Policy, Tried
from reconciler.release import Channel, Word
from reconciler.selfhosted.registry import aliases

MODELS = [f"model-{n}" for n in range(4)]
VERSIONS = [f"rule-{n}" for n in range(4)]
NAME = "support/production"
WORD = Word("ada", "2026-11-24T00:00:00Z", "because")


def trial(candidate: str, verdict: Verdict) -> Trial:
    gate = Rule("pass_rate", "at_least", 0.8)
    return Trial(candidate, (Judgement(verdict, gate, 0.9, 0.8, 1.0, 100, f"{candidate}: {verdict}"),))


class Histories(RuleBasedStateMachine):
    """The channel as the platform keeps it, beside a plain account of who may have moved it where."""

    def __init__(self) -> None:
        super().__init__()
        self.alias: dict[str, Any] | None = None
        self.existing = set(MODELS)
        self.at = 0
        self.version, self.manual, self.candidates = VERSIONS[0], False, MODELS[:1]
        self.judged: dict[tuple[str, str], Verdict] = {}  # what the gates of a version say of a model
        self.accepted: set[tuple[str, str]] = set()  # by version: what was let through, by gates or by people
        self.banned: set[str] = set()  # rolled back, and no person has said yes since
        self.held = False

    @initialize(data=st.data())
    def given(self, data: st.DataObject) -> None:
        for version in VERSIONS:
            for model in MODELS:
                self.judged[version, model] = data.draw(
                    st.sampled_from([Verdict.PASS, *Verdict]), f"{version} {model}"
                )

    @property
    def channel(self) -> Channel | None:
        return release.read(self.alias | {"seen_at": self.at}) if self.alias else None

    @property
    def led(self) -> str | None:
        return self.alias["model"] if self.alias else None

    @rule(
        version=st.sampled_from(VERSIONS),
        manual=st.booleans(),
        first=st.integers(0, 3),
        count=st.integers(1, 3),
    )
    def somebody_changes_the_rule(self, version: str, manual: bool, first: int, count: int) -> None:
        candidates = (MODELS + MODELS)[first : first + count]
        self.version, self.manual, self.candidates = f"{version} {candidates}", manual, candidates
        self.a_pass_goes_by()

    @rule()
    def a_pass_goes_by(self) -> None:
        before, decision = self.led, self.decided()

        self.act(decision)

        assert not (self.held and decision.body and self.led != before), "a held channel was moved"
        assert self.led == before or self.led not in self.banned, "what was rolled back came again by itself"
        known = (self.version, str(self.led)) in self.accepted
        assert self.led == before or known or not self.manual, "nobody approved it"
        self.note(before, decision)

    @rule()
    def somebody_approves(self) -> None:
        decision = self.decided()
        if decision.approval is None:
            return
        before, approved = self.led, self.decided(decision.approval)

        self.act(approved)

        assert not self.held
        self.banned.discard(str(self.led))
        self.note(before, approved)

    @rule()
    def a_stale_approval_is_worth_nothing(self) -> None:
        decision = self.decided("0123456789abcdef")

        assert self.decided() == decision

    @precondition(lambda self: self.alias)
    @rule()
    def somebody_holds_it(self) -> None:
        assert self.channel
        self.write(release.written(release.held(self.channel, WORD)))
        self.held = True

    @precondition(lambda self: self.held)
    @rule()
    def somebody_lifts_the_hold(self) -> None:
        assert self.channel
        self.write(release.written(release.lifted(self.channel)))
        self.held = False
        self.a_pass_goes_by()

    @precondition(lambda self: self.alias)
    @rule(to=st.sampled_from([None, "1", "2", *MODELS]))
    def somebody_rolls_back(self, to: str | None) -> None:
        assert self.channel
        left = self.channel.model
        try:
            entry = release.target(self.channel, to)
        except ReconcilerError:
            return
        if self.write(release.written(release.rolled_back(self.channel, entry, WORD))):
            self.held = True
            self.banned = (self.banned | {left}) - {entry.model}

    @rule(model=st.sampled_from(MODELS[2:]))
    def somebody_deletes_a_model(self, model: str) -> None:
        if self.led != model:  # the platform refuses while an alias leads to it
            self.existing.discard(model)

    @invariant()
    def it_leads_to_an_accepted_model_that_exists(self) -> None:
        if self.alias:
            assert self.led in self.existing
            fingerprint = self.alias["metadata"][release.FINGERPRINT]
            assert (fingerprint, self.led) in self.accepted

    @invariant()
    def everybody_can_read_how_it_stands(self) -> None:
        if self.channel:
            assert self.held == (self.channel.hold is not None)
            assert self.banned == {each.model for each in self.channel.revoked}
            shown = picture.read(picture.drawn(self.alias or {}))
            assert shown
            seen = release.read(shown)
            assert (self.channel.model, self.channel.hold) == (seen.model, seen.hold)
            assert self.channel.revoked == seen.revoked
            assert [each.model for each in self.channel.history] == [each.model for each in seen.history]

    def decided(self, approved: str | None = None) -> Decision:
        approval = "manual" if self.manual else "automatic"
        policy = Policy("PromotionRule/it", self.version, NAME, approval, approved)
        version = self.version.partition(" ")[0]
        tried = [
            Tried(trial(model, self.judged[version, model]), model, [f"run of {model}"], {"candidate": model})
            for model in self.candidates
        ]
        observed = KIND.observe(self.alias) if self.alias else None
        return promotion.decide(policy, self.channel, observed, tried)

    def act(self, decision: Decision) -> None:
        if decision.body is None:
            assert decision.action in (Action.KEEP, Action.BLOCK)
            return
        ask = KIND.ask(None, {}, Stamp("it", "PromotionRule/it", self.version), decision)  # type: ignore[arg-type]
        self.write(ask.body)

    def note(self, before: str | None, decision: Decision) -> None:
        """What was let through, and that it was by a verdict on this very model by this very rule."""
        if decision.body is None or self.led != decision.body["model"]:
            return
        version = self.version.partition(" ")[0]
        known = (self.version, str(self.led)) in self.accepted
        assert known or self.judged[version, str(self.led)] is Verdict.PASS, (
            "a verdict was used for something else"
        )
        self.accepted.add((self.version, str(self.led)))

    def write(self, body: Mapping[str, Any]) -> bool:
        """As the platform does it."""
        if body["model"] not in self.existing:
            return False
        assert body.get("expected_revision") in (None, (self.alias or {}).get("revision", 0))
        self.at += 1
        wanted = msgspec.convert(dict(body), aliases.Wanted)
        self.alias = aliases.moved(self.alias, wanted, body["metadata"], self.at)
        return True


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_failing_verification_takes_the_release_back_and_holds_it() -> None:
    machine = Histories()
    machine.judged = {(v, m): Verdict.PASS for v in VERSIONS for m in MODELS}
    for index in (0, 1):
        machine.version, machine.candidates = f"rule-{index}", [MODELS[index]]
        machine.a_pass_goes_by()
    machine.judged["rule-2", MODELS[1]] = Verdict.FAIL
    policy = Policy("PromotionRule/it", "rule-2", NAME, rollback="automatic")
    tried = [Tried(trial(MODELS[1], Verdict.FAIL), MODELS[1], ["run"], {})]

    machine.act(promotion.decide(policy, machine.channel, KIND.observe(machine.alias or {}), tried))

    assert machine.led == MODELS[0]
    assert machine.channel and machine.channel.hold
    assert "fails now" in machine.channel.hold.reason
    again = promotion.decide(policy, machine.channel, KIND.observe(machine.alias or {}), tried)
    assert (Action.BLOCK, Halt.REFUSED) == (again.action, again.halt)


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.FAIL])
def test_without_that_wish_a_failing_verification_leaves_the_release_alone(verdict: Verdict) -> None:
    machine = Histories()
    machine.judged = {(v, m): Verdict.PASS for v in VERSIONS for m in MODELS}
    machine.a_pass_goes_by()
    tried = [Tried(trial(MODELS[0], verdict), MODELS[0], ["run"], {})]

    policy = Policy("PromotionRule/it", "rule-2", NAME)
    decision = promotion.decide(policy, machine.channel, KIND.observe(machine.alias or {}), tried)

    assert decision.action is Action.BLOCK
    assert decision.why.endswith(f"{NAME} stays on {MODELS[0]}")


def on_air(verdict: Verdict, later: float) -> tuple[Histories, Policy, Decision]:
    """A channel on one model whose rule tries another for 60 seconds, and what is decided `later`."""
    machine = Histories()
    machine.judged = {(v, m): Verdict.PASS for v in VERSIONS for m in MODELS}
    machine.a_pass_goes_by()
    policy = Policy("PromotionRule/it", "rule-1", NAME, canary=Airing(0.1, 60.0))
    machine.version, machine.at = policy.fingerprint, 1000

    def decided(verdict: Verdict) -> Decision:
        tried = [Tried(trial(MODELS[1], verdict), MODELS[1], ["run"], {"candidate": MODELS[1]})]
        return promotion.decide(policy, machine.channel, KIND.observe(machine.alias or {}), tried)

    machine.act(decided(Verdict.PASS))
    machine.at = 1000 + int(later)
    return machine, policy, decided(verdict)


def test_a_canary_gets_its_share_and_its_time() -> None:
    machine, _, decision = on_air(Verdict.PASS, later=30)

    assert machine.alias
    assert (MODELS[0], {"model": MODELS[1], "share": 0.1}) == (machine.led, machine.alias["canary"])
    assert (Action.WAIT, "10% of users are on model-1 for 30 s more") == (decision.action, decision.why)


def test_a_canary_that_passes_again_gets_everybody() -> None:
    machine, _, decision = on_air(Verdict.PASS, later=60)

    machine.act(decision)

    assert machine.alias
    assert (MODELS[1], None) == (machine.led, machine.alias["canary"])


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_a_canary_that_does_not_is_called_back_and_needs_an_approval(verdict: Verdict) -> None:
    machine, policy, decision = on_air(verdict, later=60)

    machine.act(decision)

    assert machine.alias
    assert (MODELS[0], None) == (machine.led, machine.alias["canary"])
    tried = [Tried(trial(MODELS[1], Verdict.PASS), MODELS[1], ["run"], {"candidate": MODELS[1]})]
    again = promotion.decide(policy, machine.channel, KIND.observe(machine.alias), tried)
    assert (Halt.REFUSED, True) == (again.halt, again.approval is not None)


def test_another_rule_ends_a_canary() -> None:
    machine, _, _ = on_air(Verdict.PASS, later=30)
    back = Policy("PromotionRule/it", VERSIONS[0], NAME)

    machine.act(promotion.decide(back, machine.channel, KIND.observe(machine.alias or {}), None))

    assert machine.alias
    assert (MODELS[0], None) == (machine.led, machine.alias["canary"])
