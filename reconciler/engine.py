"""
One pass: look, decide, act once on what is ready, and stop.

`look` gathers what stands, `plan.decide` says what to do, `Creator` does it. A pass never waits:
what is not ready is left for the next one, and `settle` is the loop around it with an end.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from reconciler import adoption, plan, upkeep
from reconciler.creation import Creator, Declined, Deferred, Failed, Made
from reconciler.errors import Busy, PlatformError, ReconcilerError, Rejected, Unclear, Unreachable
from reconciler.intent import Intent
from reconciler.kind import Action, Ask, Decision, Halt, Kind, Observed, Progress, Seen, Stamp, State, Unseen
from reconciler.money.accounts import Accounts
from reconciler.plan import Guard, Step
from reconciler.policy import Policies
from reconciler.resource import LEFT_OUT, Address, Desired, Wanted
from reconciler.world import Platform, Upload

ACTING = (Action.CREATE, Action.UPDATE)
PATIENCE = 60.0  # seconds a platform may be out of sight before a settling apply gives up


class Sight(NamedTuple):
    """Everything a plan rests on."""

    actual: Mapping[str, Seen | Unseen]  # by kind
    evidence: Mapping[Address, Any]
    desired: Desired  # with what is wanted because of what stands

    @property
    def unseen(self) -> dict[str, str]:
        return {kind: seen.why for kind, seen in self.actual.items() if isinstance(seen, Unseen)}


class Watcher(Protocol):
    """Somebody who is told what happens while it happens."""

    def uploading(self, address: Address, sent: int, total: int) -> None: ...

    def made(self, step: Step) -> None: ...

    def waiting(self, done: "Pass", progress: Mapping[Address, Progress]) -> None: ...


@dataclass(frozen=True)
class Pass:
    """What one pass found and did. `steps` are as they stand after it."""

    steps: tuple[Step, ...]
    made: tuple[Address, ...] = ()
    deferred: Mapping[Address, Deferred] = field(default_factory=dict)
    failed: Mapping[Address, str] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)  # kind → why it could not be listed
    actual: Mapping[str, Seen | Unseen] = field(default_factory=dict)  # by kind
    memory: Mapping[str, str] = field(default_factory=dict)  # address → fingerprint, as applied before it

    @property
    def settled(self) -> bool:
        """Nothing is left that another pass could change."""
        waits = any(step.action in (*ACTING, Action.WAIT) for step in self.steps)
        return not (waits or self.deferred or self.unseen)

    def pause(self, waited: float) -> float:
        """Seconds until the next pass is worth its requests, having waited so long already. Pure."""
        if self.made:
            return 0.0
        patient = min(5.0, 0.25 + waited / 40)
        return min([patient, *(d.pause for d in self.deferred.values())]) if self.deferred else patient


@dataclass(frozen=True)
class World:
    """One platform as a project sees it, and the means to change it."""

    project: str
    kinds: Mapping[str, Kind]
    platform: Platform
    guards: tuple[Guard, ...] = ()  # what may stop a step that would act
    accounts: Accounts | None = None  # what may be spent, and what was
    policies: Policies | None = None  # what the project forbids
    gone: frozenset[str] = frozenset()  # ids of what we deleted, and what the platform lists all the same


def look(desired: Desired, world: World) -> Sight:
    """See all that `desired` is about; a list that fails makes its kind unseen, never empty."""
    actual: dict[str, Seen | Unseen] = {}
    with ThreadPoolExecutor(max_workers=6) as pool:

        def see_all(nested: bool) -> None:
            kinds = [world.kinds[name] for name in dict.fromkeys(address.kind for address in desired)]
            now = [k for k in kinds if k.collection and bool(k.under) is nested and k.name not in actual]
            jobs = {kind.name: pool.submit(see, kind, world, _parents(kind, desired, actual)) for kind in now}
            actual.update({name: job.result() for name, job in jobs.items()})

        see_all(nested=False)
        adoption.take(desired, world.kinds, world.platform, actual, nested=False)
        desired = _bound(desired, world.kinds, actual)
        see_all(nested=False)
        see_all(nested=True)
        adoption.take(desired, world.kinds, world.platform, actual, nested=True)
    return Sight(actual, _evidence(desired, world, actual), desired)


def once(desired: Desired, world: World, creator: Creator, watch: Watcher) -> Pass:
    """One pass over everything that is wanted."""
    journal, name = creator.journal, world.platform.name
    tokens = journal.tokens(name)  # before we look: what is taken later was not seen
    world = replace(world, gone=upkeep.gone(journal, name))
    sight = look(desired, world)
    if world.policies:
        would = plan.make(sight.desired, world.kinds, sight.actual, sight.evidence, {}, world.guards)
        world = replace(world, guards=(*world.guards, world.policies.guard(would)))
    intents, memory = journal.open_intents(name), journal.remembered(name)
    hand = _Hand(world, creator, watch, dict(sight.actual), intents, tokens, sight.desired)
    stands: list[Wanted] = []
    for wanted in sight.desired.values():
        step = hand.take(wanted, sight.evidence.get(wanted.address))
        stood = step.action is Action.KEEP or (step.action is Action.WAIT and step.decision.observed)
        if stood and LEFT_OUT not in wanted.facts and memory.get(str(wanted.address)) != wanted.fingerprint:
            stands.append(wanted)
    journal.remember(name, stands)
    upkeep.settle(hand.actual, world, see, creator.now())
    steps, made = tuple(hand.steps.values()), tuple(hand.made)
    upkeep.protect(steps, world.project, world.kinds, creator)
    return Pass(steps, made, hand.deferred, hand.failed, sight.unseen, hand.actual, memory)


def settle(
    desired: Desired,
    world: World,
    creator: Creator,
    watch: Watcher,
    sleep: Callable[[float], None],
    timeout: float | None = None,
) -> Pass:
    """
    Passes until nothing more can change, or `timeout` seconds are over (the last pass is then unsettled).

    Raises Unreachable when the platform cannot be seen at first, or for longer than PATIENCE.
    """
    start = seen_at = moved_at = creator.now()
    first = True
    while True:
        done = once(desired, world, creator, watch)
        now = creator.now()
        if done.unseen and (first or now - seen_at > PATIENCE):
            raise Unreachable(next(iter(done.unseen.values())))
        seen_at = seen_at if done.unseen else now
        moved_at = now if done.made else moved_at
        if done.settled or (timeout is not None and now - start >= timeout):
            return done
        watch.waiting(done, progress(done, world))
        first = False
        sleep(done.pause(now - moved_at))


def progress(done: Pass, world: World) -> dict[Address, Progress]:
    """How far everything is that works; what cannot be asked now is left out."""
    found: dict[Address, Progress] = {}
    for step in done.steps:
        if step.action is Action.WAIT and step.decision.observed:
            try:
                known = world.kinds[step.address.kind].progress(world.platform, step.decision.observed)
            except PlatformError:
                continue
            if known:
                found[step.address] = known
    return found


class _Hand:
    """The part of a pass that acts; holds what has become of each step so far."""

    def __init__(
        self,
        world: World,
        creator: Creator,
        watch: Watcher,
        actual: dict[str, Seen | Unseen],
        intents: Mapping[str, Intent],
        tokens: Mapping[str, int],
        desired: Desired,
    ) -> None:
        self.world, self.creator, self.watch = world, creator, watch
        self.actual, self.intents, self.tokens, self.desired = actual, intents, tokens, desired
        self.asked = frozenset(wanted.fingerprint for wanted in desired.values())
        self.steps: dict[Address, Step] = {}
        self.ready: dict[Address, Observed] = {}
        self.made: list[Address] = []
        self.deferred: dict[Address, Deferred] = {}
        self.failed: dict[Address, str] = {}

    def take(self, wanted: Wanted, evidence: Any) -> Step:
        kind = self.world.kinds[wanted.address.kind]
        step = self._affordable(self._decide(wanted, kind, evidence))
        known = step.decision.body is not None or not kind.measures
        if step.action not in ACTING or not step.after:  # nothing ends for what cannot begin yet
            self._cancel(kind, step)
        if step.action in ACTING and known and not step.after and wanted.address not in self.deferred:
            step = self._act(kind, step, evidence)
        intent, observed = self.intents.get(wanted.fingerprint), step.decision.observed
        if intent and observed and step.action not in ACTING and wanted.address not in self.made:
            self.creator.journal.close_intent(intent, "made", self.creator.now(), observed.id)
        if step.action is Action.KEEP and observed:
            self.ready[wanted.address] = observed
        self.steps[wanted.address] = step
        return step

    def _decide(self, wanted: Wanted, kind: Kind, evidence: Any) -> Step:
        return plan.decide(
            wanted, kind, self.actual, self.ready, self.steps, evidence, self.asked, self.world.guards
        )

    def _affordable(self, step: Step) -> Step:
        """The step; where it would end something, only if there is money for what takes its place."""
        if not (self.world.accounts and step.action is Action.CREATE and step.decision.duplicates):
            return step
        why = self.world.accounts.refusal(step.wanted, self.desired, self.creator.now())
        return replace(step, decision=Decision(Action.BLOCK, why, halt=Halt.REFUSED)) if why else step

    def _act(self, kind: Kind, step: Step, evidence: Any) -> Step:
        wanted = step.wanted
        stamp = Stamp(
            self.world.project, str(wanted.address), wanted.fingerprint, bool(wanted.body.get("protect"))
        )
        ask = kind.ask(wanted, self.ready, stamp, step.decision)._replace(project=self.world.project)
        try:
            if overlooked := self._overlooked(kind, step, ask):
                self._add(kind, overlooked)
                step = self._decide(wanted, kind, evidence)
                if step.action not in ACTING:
                    return step
            ask = self._watched(ask, wanted)
        except (Busy, Unclear, Unreachable) as error:
            end: Made | Deferred | Failed | Declined = Deferred(str(error))
        except ReconcilerError as error:
            end = Failed(str(error))
        else:
            token = self.tokens.get(wanted.fingerprint, 0)
            bill = self.world.accounts.bill(wanted, self.desired) if self.world.accounts else None
            reserve = bill.reserve if bill else None
            end = self.creator.make(wanted, ask, self.intents.get(wanted.fingerprint), token, reserve)
        match end:
            case Made(made):
                observed = kind.observe(made)
                self.made.append(wanted.address)
                after = {State.READY: Action.KEEP, State.WORKING: Action.WAIT, State.FAILED: Action.BLOCK}
                decision = replace(step.decision, action=after[observed.state], observed=observed)
                step = replace(step, decision=decision)
                self._add(kind, observed)
                self.watch.made(step)
                if observed.stamp and observed.stamp.fingerprint != wanted.fingerprint:  # a release went back
                    step = self._decide(wanted, kind, evidence)
            case Failed(why):
                self.failed[wanted.address] = why
                step = replace(step, decision=Decision(Action.BLOCK, why))
            case Declined(why):
                step = replace(step, decision=Decision(Action.BLOCK, why, halt=Halt.REFUSED))
            case Deferred():
                self.deferred[wanted.address] = end
        return step

    def _overlooked(self, kind: Kind, step: Step, ask: Ask) -> Observed | None:
        """What we remember making and its list left out, if it still stands. Raises PlatformError."""
        platform, fingerprint = self.world.platform, step.wanted.fingerprint
        made = self.creator.journal.made(platform.name, fingerprint) if step.action is Action.CREATE else None
        if made in self.world.gone:
            return None
        found = platform.get(ask.collection if kind.under else str(kind.collection), made) if made else None
        return kind.observe(found) if found else None

    def _watched(self, ask: Ask, wanted: Wanted) -> Ask:
        upload = ask.body.get("file")
        if not isinstance(upload, Upload):
            return ask
        try:
            stat = upload.path.stat()
        except OSError as error:
            raise ReconcilerError(f"{upload.path} cannot be read any more: {error.strerror}") from None
        if (stat.st_size, stat.st_mtime_ns) != (wanted.facts["bytes"], wanted.facts["mtime_ns"]):
            raise ReconcilerError(f"{upload.path} was changed while this ran; run it again")
        watched = replace(
            upload, progress=lambda sent, total: self.watch.uploading(wanted.address, sent, total)
        )
        return ask._replace(body=ask.body | {"file": watched})

    def _add(self, kind: Kind, observed: Observed) -> None:
        seen = self.actual.get(kind.name, Seen())
        assert isinstance(seen, Seen)  # an unseen kind never acts
        self.actual[kind.name] = seen.adding(observed, self.world.project)

    def _cancel(self, kind: Kind, step: Step) -> None:
        for duplicate in step.decision.duplicates:
            try:
                kind.cancel(self.world.platform, duplicate)
            except Rejected:
                continue  # it has ended meanwhile
            except PlatformError as error:
                why = f"{duplicate.id} is wanted no more and could not be cancelled: {error}"
                self.deferred[step.address] = Deferred(why)
                continue
            detail = {
                "cancelled": duplicate.id,
                "kept": step.decision.observed.id if step.decision.observed else "",
            }
            journal, name = self.creator.journal, self.world.platform.name
            event = "superseded" if step.action is Action.CREATE else "duplicate"
            journal.record(self.creator.now(), name, step.address, event, detail)


def _bound(desired: Desired, kinds: Mapping[str, Kind], actual: Mapping[str, Seen | Unseen]) -> Desired:
    """What is wanted, with what the objects seen so far add to it. Pure."""
    bound: Desired = {}
    for wanted in desired.values():
        kind = kinds[wanted.address.kind]
        seen = actual.get(kind.name, Seen())
        more = kind.bind(wanted, seen, desired) if kind.measures and isinstance(seen, Seen) else [wanted]
        for each in more:
            bound[each.address] = each
    return bound


def see(
    kind: Kind, world: World, parents: list[Observed] | Unseen, *, everybodys: bool = False
) -> Seen | Unseen:
    """The objects of a kind; `parents` are those in which they are looked for, where they are in others."""
    if isinstance(parents, Unseen):
        return parents
    try:
        found = kind.look(world.platform, "" if everybodys else world.project, parents)
        return Seen.of((each for each in found if each.id not in world.gone), world.project)
    except PlatformError as error:
        return Unseen(str(error))
    except (KeyError, TypeError, ValueError) as error:
        what = f"{world.platform.name} listed an object of {kind.name} that lacks or garbles a field"
        return Unseen(f"{what} ({type(error).__name__}: {error}); is this OpenAI's contract?")


def _parents(kind: Kind, desired: Desired, actual: Mapping[str, Seen | Unseen]) -> list[Observed] | Unseen:
    """The standing objects in which this kind's are to be looked for: those of wanted parents."""
    if kind.under is None:
        return []
    seen = actual.get(kind.under, Seen())
    if isinstance(seen, Unseen):
        return seen
    wanted = {each.fingerprint for each in desired.values() if each.address.kind == kind.under}
    return [observed for fingerprint in wanted for observed in seen.by_fingerprint.get(fingerprint, [])]


def _evidence(desired: Desired, world: World, actual: dict[str, Seen | Unseen]) -> dict[Address, Any]:
    """Measurements for what is not settled and whose needs all stand."""
    measuring = [w for w in desired.values() if world.kinds[w.address.kind].measures]
    open_ = [w for w in measuring if _unsettled(w, world, actual)]
    if not open_:
        return {}
    standing = _standing(plan.make(desired, world.kinds, actual, {}, {}).steps)
    evidence: dict[Address, Any] = {}
    for wanted in open_:
        kind = world.kinds[wanted.address.kind]
        if all(need.address in standing for need in wanted.needs):
            try:
                evidence[wanted.address] = kind.gather(world.platform, wanted, standing)
            except PlatformError as error:
                actual[kind.name] = Unseen(str(error))
    return evidence


def _unsettled(wanted: Wanted, world: World, actual: Mapping[str, Seen | Unseen]) -> bool:
    kind = world.kinds[wanted.address.kind]
    seen = actual.get(kind.name, Seen())
    if isinstance(seen, Unseen):
        return False
    decision = kind.decide(wanted, seen, {}, None)
    return decision.action in ACTING and decision.body is None


def _standing(steps: Iterable[Step]) -> dict[Address, Observed]:
    return {s.address: s.decision.observed for s in steps if s.action is Action.KEEP and s.decision.observed}
