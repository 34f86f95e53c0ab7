"""
A channel under everything that may happen to it: rules change, canaries go on air, models come and go, people
step in. A plain account beside it says who may have moved it where.
"""

from collections.abc import Mapping
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reconciler import picture, promotion, release
from reconciler.errors import ReconcilerError
from reconciler.evidence import Rule
from reconciler.gates import Judgement, Trial, Verdict
from reconciler.kind import Action, Decision, Stamp
from reconciler.kinds.promotionrule import KIND
from reconciler.promotion import Airing, Policy, Tried
from reconciler.release import Channel, Word
from reconciler.selfhosted.registry import aliases

MODELS = [f"model-{n}" for n in range(4)]
VERSIONS = [f"rule-{n}" for n in range(4)]
NAME = "support/production"
AIRINGS = st.sampled_from([Airing(0.1, 60.0), None])
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
        self.takes_back, self.airing = False, None  # type: bool, Airing | None
        self.judged: dict[tuple[str, str], Verdict] = {}  # what the gates of a version say of a model
        self.again: dict[tuple[str, str], Verdict] = {}  # and what they say after its time as a canary
        self.accepted: set[tuple[str, str]] = set()  # by version: what was let through, by gates or by people
        self.banned: set[str] = set()  # rolled back, and no person has said yes since
        self.held = False
        self.aired_at, self.blessed = 0, False  # since when a canary is on air, and whether a person said yes

    @initialize(data=st.data())
    def given(self, data: st.DataObject) -> None:
        verdicts = st.sampled_from([Verdict.PASS, Verdict.PASS, *Verdict])
        for version in VERSIONS:
            for model in MODELS:
                self.judged[version, model] = data.draw(verdicts, f"{version} {model}")
                self.again[version, model] = data.draw(verdicts, f"{version} {model} again")
        self.judged[VERSIONS[0], MODELS[0]] = Verdict.PASS
        self.a_pass_goes_by()

    @property
    def channel(self) -> Channel | None:
        return release.read(self.alias | {"seen_at": self.at}) if self.alias else None

    @property
    def led(self) -> str | None:
        return self.alias["model"] if self.alias else None

    @property
    def on_air(self) -> str | None:
        return self.alias["canary"]["model"] if self.alias and self.alias["canary"] else None

    @property
    def gates(self) -> str:
        """The version without its candidates."""
        return self.version.partition(" ")[0]

    @property
    def due(self) -> bool:
        """Whether the canary of this very rule has had its time."""
        return bool(self.current and self.airing and self.at >= self.aired_at + self.airing.soak)

    @property
    def current(self) -> bool:
        """Whether what is on air is there by this very rule."""
        return bool(
            self.channel and self.channel.canary and self.channel.canary["fingerprint"] == self.version
        )

    @rule(
        version=st.sampled_from(VERSIONS),
        manual=st.sampled_from([False, False, True]),
        takes_back=st.booleans(),
        airing=AIRINGS,
        first=st.integers(0, 3),
        count=st.integers(1, 3),
    )
    def somebody_changes_the_rule(
        self, version: str, manual: bool, takes_back: bool, airing: Airing | None, first: int, count: int
    ) -> None:
        candidates = (MODELS + MODELS)[first : first + count]
        self.version, self.candidates = f"{version} {candidates}", candidates
        self.manual, self.takes_back, self.airing = manual, takes_back, airing
        self.a_pass_goes_by()

    @precondition(lambda self: self.alias)
    @rule(version=st.sampled_from(VERSIONS))
    def the_eval_of_what_stands_grows(self, version: str) -> None:
        self.version, self.candidates = f"{version} {[self.led]}", [str(self.led)]
        self.a_pass_goes_by()

    @rule(manual=st.booleans(), takes_back=st.booleans(), airing=AIRINGS)
    def somebody_changes_what_is_no_gate(self, manual: bool, takes_back: bool, airing: Airing | None) -> None:
        self.manual, self.takes_back, self.airing = manual, takes_back, airing
        self.a_pass_goes_by()

    @rule(seconds=st.sampled_from([60, 30, 1, 3600]))
    def time_goes_by(self, seconds: int) -> None:
        self.at += seconds
        self.a_pass_goes_by()

    @precondition(lambda self: self.alias and not self.held)
    @rule(model=st.sampled_from(MODELS), version=st.sampled_from(VERSIONS))
    def somebody_tries_another_on_a_few(self, model: str, version: str) -> None:
        self.somebody_changes_the_rule(
            version, False, self.takes_back, Airing(0.1, 60.0), MODELS.index(model), 1
        )

    @precondition(lambda self: self.on_air)
    @rule()
    def a_canary_has_had_its_time(self) -> None:
        self.time_goes_by(60)

    @rule()
    def a_pass_goes_by(self) -> None:
        before, tried, due, current = self.led, self.on_air, self.due, self.current
        at, decision = self.at, self.decided()

        self.act(decision)

        unmoved = (self.led, self.on_air) == (before, tried)
        assert unmoved or not self.held, "a held channel was moved"
        if self.channel and self.channel.hold and not self.held:
            self.automation_took_it_back(before)
        elif self.led != before:
            self.automation_moved_it(tried, due)
        elif tried and not self.on_air:
            self.a_canary_ended(tried, due, current)
        elif self.on_air and not tried:
            self.a_canary_began(at, blessed=False)
        self.note()

    def automation_took_it_back(self, before: str | None) -> None:
        assert self.takes_back, "nobody wanted that"
        assert self.judged[self.gates, str(before)] is Verdict.FAIL, "it did not fail"
        assert self.led not in self.banned, "what was rolled back came again by itself"
        self.held, self.banned = True, self.banned | {str(before)}

    def automation_moved_it(self, tried: str | None, due: bool) -> None:
        known = (self.version, str(self.led)) in self.accepted
        if tried and tried == self.led:
            assert due, "a canary got everybody before its time"
            assert self.again[self.gates, tried] is Verdict.PASS, "a canary is decided by its own results"
            assert self.blessed or tried not in self.banned, "what was rolled back came again by itself"
            assert self.blessed or not self.manual, "nobody approved it"
            self.banned.discard(tried)
            return
        assert self.led not in self.banned, "what was rolled back came again by itself"
        assert known or not self.manual, "nobody approved it"
        assert known or not self.airing or len(self.accepted) == 0, "it was to be tried on a few first"

    def a_canary_ended(self, tried: str, due: bool, current: bool) -> None:
        if current and self.airing:
            assert due, "a canary ended before its time"
            assert self.again[self.gates, tried] is not Verdict.PASS, "a canary ended that is good"
            self.banned.add(tried)

    def a_canary_began(self, at: int, blessed: bool) -> None:
        assert self.airing and self.judged[self.gates, str(self.on_air)] is Verdict.PASS
        assert blessed or self.on_air not in self.banned, "what was rolled back came again by itself"
        assert blessed or not self.manual, "nobody approved it"
        self.aired_at, self.blessed = at, blessed

    @rule()
    def somebody_approves(self) -> None:
        decision = self.decided()
        if decision.approval is None:
            return
        before, at = self.led, self.at

        self.act(self.decided(decision.approval))

        assert not self.held
        if self.on_air:
            self.a_canary_began(at, blessed=True)
        elif self.led != before:
            self.banned.discard(str(self.led))
        self.note()

    @rule()
    def a_stale_approval_is_worth_nothing(self) -> None:
        decision = self.decided("0123456789abcdef")

        assert self.decided() == decision

    @rule()
    def passes_come_to_an_end(self) -> None:
        for _ in range(4):
            before = self.alias
            self.a_pass_goes_by()
            if self.alias == before:
                return
        raise AssertionError("every pass moves it")

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
        left = {self.channel.model, *([self.on_air] if self.on_air else [])}
        if self.on_air and to is None:
            moved, left = release.held(release.called_back(self.channel, WORD), WORD), {self.on_air}
        else:
            try:
                moved = release.rolled_back(self.channel, release.target(self.channel, to), WORD)
            except ReconcilerError:
                return
        if self.write(release.written(moved)):
            self.held = True
            self.banned = (self.banned | left) - {moved.model}

    @rule(model=st.sampled_from(MODELS[2:]))
    def somebody_deletes_a_model(self, model: str) -> None:
        if model not in (self.led, self.on_air):  # the platform refuses while an alias leads to it
            self.existing.discard(model)

    @invariant()
    def it_leads_to_an_accepted_model_that_exists(self) -> None:
        if self.alias:
            assert self.led in self.existing and self.on_air in {None, *self.existing}
            fingerprint = self.alias["metadata"][release.FINGERPRINT]
            assert (fingerprint, self.led) in self.accepted
            assert self.led not in self.banned
            assert self.on_air != self.led

    @invariant()
    def everybody_can_read_how_it_stands(self) -> None:
        if self.channel:
            assert self.held == (self.channel.hold is not None)
            assert self.banned == {each.model for each in self.channel.revoked}
            shown = picture.read(picture.drawn(self.alias or {}))
            assert shown
            seen = release.read(shown)
            assert (self.channel.model, self.channel.hold) == (seen.model, seen.hold)
            assert (self.channel.revoked, self.channel.canary) == (seen.revoked, seen.canary)
            assert [each.model for each in self.channel.history] == [each.model for each in seen.history]

    def decided(self, approved: str | None = None) -> Decision:
        policy = Policy(
            "PromotionRule/it", self.version, NAME, "manual" if self.manual else "automatic", approved,
            rollback="automatic" if self.takes_back else "manual", canary=self.airing,
        )  # fmt: skip
        observed = KIND.observe(self.alias) if self.alias else None
        return promotion.decide(
            policy, self.channel, observed, [self.tried(each) for each in self.candidates]
        )

    def tried(self, model: str) -> Tried:
        """A candidate as it was measured, and anew once its time as a canary is over."""
        measured, run = (self.again, "again") if self.due and model == self.on_air else (self.judged, "run")
        return Tried(
            trial(model, measured[self.gates, model]), model, [f"{run} {model}"], {"candidate": model}
        )

    def act(self, decision: Decision) -> None:
        if decision.body is None:
            assert decision.action in (Action.KEEP, Action.BLOCK, Action.WAIT)
            return
        ask = KIND.ask(None, {}, Stamp("it", "PromotionRule/it", self.version), decision)  # type: ignore[arg-type]
        self.write(ask.body)

    def note(self) -> None:
        """What was let through, and that it was by a verdict on this very model by this very rule."""
        if self.alias is None or self.alias["metadata"][release.FINGERPRINT] != self.version:
            return
        known = (self.version, str(self.led)) in self.accepted
        assert known or self.judged[self.gates, str(self.led)] is Verdict.PASS, (
            "a verdict was used for something else"
        )
        self.accepted.add((self.version, str(self.led)))

    def write(self, body: Mapping[str, Any]) -> bool:
        """As the platform does it."""
        models = {body["model"], *([body["canary"]["model"]] if body["canary"] else [])}
        if not models <= self.existing:
            return False
        assert body.get("expected_revision") in (None, (self.alias or {}).get("revision", 0))
        self.at += 1
        wanted = msgspec.convert(dict(body), aliases.Wanted)
        self.alias = aliases.moved(self.alias, wanted, body["metadata"], self.at)
        return True
