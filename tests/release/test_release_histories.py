"""Random histories of one channel, in which it stays honest, and a few of them one by one."""

from dataclasses import replace

import pytest
from histories_base import MODELS, NAME, VERSIONS, WORD, Histories, trial
from hypothesis import settings

from reconciler import promotion, release
from reconciler.gates import Verdict
from reconciler.kind import Action, Decision, Halt
from reconciler.kinds.promotionrule import KIND
from reconciler.promotion import Airing, Policy, Tried

TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)


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
    assert (Action.WAIT, "10% of users are on model-1 for 30 s more, then it is measured again") == (
        decision.action,
        decision.why,
    )


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


def test_a_canary_that_began_by_itself_waits_where_the_rule_came_to_want_approval() -> None:
    machine, policy, _ = on_air(Verdict.PASS, later=60)
    wanting = replace(policy, approval="manual")
    tried = [Tried(trial(MODELS[1], Verdict.PASS), MODELS[1], ["again"], {"candidate": MODELS[1]})]

    waits = promotion.decide(wanting, machine.channel, None, tried)
    approving = replace(wanting, approved_fingerprint=waits.approval, approved_by="grace")
    machine.act(promotion.decide(approving, machine.channel, None, tried))

    assert (Action.BLOCK, Halt.UNAPPROVED) == (waits.action, waits.halt)
    assert machine.alias
    assert (MODELS[1], "grace") == (machine.led, machine.alias["release"]["approved"]["by"])


def test_a_rollback_to_what_is_on_air_revokes_only_what_it_leaves() -> None:
    machine, _, _ = on_air(Verdict.PASS, later=60)
    assert machine.channel
    back = release.Entry(MODELS[1], {release.FINGERPRINT: "rule-1"}, {}, 0)

    moved = release.rolled_back(machine.channel, back, WORD)

    assert MODELS[1] == moved.model
    assert [MODELS[0]] == [each.model for each in moved.revoked]


def test_another_rule_ends_a_canary() -> None:
    machine, _, _ = on_air(Verdict.PASS, later=30)
    back = Policy("PromotionRule/it", VERSIONS[0], NAME)

    machine.act(promotion.decide(back, machine.channel, KIND.observe(machine.alias or {}), None))

    assert machine.alias
    assert (MODELS[0], None) == (machine.led, machine.alias["canary"])
