"""
What a channel leads to, as a value, and every way it may move. Pure.

That is a model, and the prompt it was measured with where it was released with one of its own. The alias
leads to the model only: the prompt is recorded there for the application to read, and never put before
anybody's messages.

It moves forward when a rule accepts a model, and back when a person or a failing re-verification says
so. A move back holds the channel, so that nothing automatic moves it until somebody lifts the hold, and
revokes the model that it left: only a person's approval releases that one again.

The object on the platform is the release; its file is a picture of it, which `picture.py` draws.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from reconciler.errors import ReconcilerError, Refused

COLLECTION = "reconciler/aliases"
SAME, MISSING, INTERRUPTED, BEHIND = "same", "missing", "interrupted", "behind"  # how a release's file stands
FINGERPRINT = "reconciler_fingerprint"
Body = dict[str, Any]


class Word(NamedTuple):
    """What somebody said, and when."""

    by: str
    at: str  # UTC, ISO 8601
    reason: str


class What(NamedTuple):
    """A model, and the fingerprint of the prompt of its own, if it has one."""

    model: str
    prompt: str | None = None


class Revoked(NamedTuple):
    """What the channel was moved away from."""

    model: str
    by: str
    at: str
    reason: str
    prompt: str | None = None

    @property
    def what(self) -> What:
        return What(self.model, self.prompt)

    @property
    def shown(self) -> str:
        return f"{self.model} with prompt {self.prompt[:8]}" if self.prompt else self.model


class Entry(NamedTuple):
    """One thing that the channel has led to. `metadata` is the stamp of the rule that accepted it."""

    model: str
    metadata: Mapping[str, str]
    release: Mapping[str, Any]
    at: float  # unix seconds

    @property
    def what(self) -> What:
        return What(self.model, prompt_in(self.release))

    @property
    def shown(self) -> str:
        return shown(self.model, self.release)


def prompt_in(record: Mapping[str, Any]) -> str | None:
    """The fingerprint of the prompt that a release has of its own."""
    found: str | None = (record.get("prompt") or {}).get("fingerprint")
    return found


def shown(model: str, record: Mapping[str, Any]) -> str:
    """A model with the prompt that was released with it, in words."""
    prompt = prompt_in(record)
    return f"{model} with {record['prompt']['address']} ({prompt[:8]})" if prompt else model


@dataclass(frozen=True)
class Channel:
    """A channel as it stands."""

    name: str
    model: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    release: Mapping[str, Any] = field(default_factory=dict)  # candidate, evidence, lineage, who moved it
    history: tuple[Entry, ...] = ()  # oldest first; the last is what stands
    hold: Word | None = None
    revoked: tuple[Revoked, ...] = ()
    canary: Mapping[str, Any] | None = None
    revision: int | None = None  # how often it was written; None where the platform does not count
    file: str = SAME
    seen_at: float = 0.0  # unix seconds

    @property
    def fingerprint(self) -> str | None:
        return self.metadata.get(FINGERPRINT)

    @property
    def subject(self) -> str | None:
        """The fingerprint of what the model was made from."""
        return self.release.get("subject")

    @property
    def prompt(self) -> str | None:
        """The fingerprint of the prompt that was released with the model."""
        return prompt_in(self.release)

    @property
    def what(self) -> What:
        return What(self.model, self.prompt)

    @property
    def tried(self) -> What:
        """What its canary is."""
        assert self.canary is not None
        return What(self.canary["model"], prompt_in(self.canary["release"]))

    @property
    def shown(self) -> str:
        return shown(self.model, self.release)

    @property
    def since(self) -> float:
        return self.history[-1].at if self.history else 0.0

    def revocations(self, model: str, prompt: str | None = None) -> list[Revoked]:
        return [each for each in self.revoked if each.what == (model, prompt)]

    def earlier(self) -> Iterator[Entry]:
        """What it led to before, newest first and once each; neither what stands nor what was revoked."""
        told = {self.what, *(each.what for each in self.revoked)}
        for entry in reversed(self.history):
            if entry.what not in told and entry.metadata.get(FINGERPRINT):
                told.add(entry.what)
                yield entry

    def accepted(self, fingerprint: str) -> Entry | None:
        """What exactly this rule accepted here before."""
        found = (entry for entry in reversed(self.history) if entry.metadata.get(FINGERPRINT) == fingerprint)
        return next(found, None)


def read(alias: Mapping[str, Any]) -> Channel:
    """An alias, as a platform or a release's file gives it."""
    state = alias.get("state") or {}
    now = Entry(
        alias["model"],
        alias.get("metadata") or {},
        alias.get("release") or {},
        alias.get("updated_at") or alias.get("created_at") or 0,
    )
    history = tuple(
        Entry(each["model"], each.get("metadata") or {}, each.get("release") or {}, each.get("at") or 0)
        for each in alias.get("history") or ()
    )
    return Channel(
        name=alias["name"],
        model=now.model,
        metadata=now.metadata,
        release=now.release,
        history=history or (now,),
        hold=Word(**state["hold"]) if state.get("hold") else None,
        revoked=tuple(Revoked(**each) for each in state.get("revoked") or ()),
        canary={**alias["canary"], **(state.get("canary") or {})} if alias.get("canary") else None,
        revision=alias.get("revision"),
        file=alias.get("file", SAME),
        seen_at=alias.get("seen_at") or 0.0,
    )


def written(channel: Channel) -> Body:
    """The request that makes the alias what `channel` says, if nobody wrote it meanwhile."""
    state: Body = {"hold": channel.hold._asdict() if channel.hold else None}
    state["revoked"] = [told(each) for each in channel.revoked]
    tried = None
    if channel.canary:
        tried = {field: channel.canary[field] for field in ("model", "share")}
        state["canary"] = {field: value for field, value in channel.canary.items() if field not in tried}
    body: Body = {"name": channel.name, "model": channel.model, "metadata": dict(channel.metadata)}
    body |= {"release": dict(channel.release), "state": state, "canary": tried}
    return body if channel.revision is None else body | {"expected_revision": channel.revision}


def told(gone: Revoked) -> Body:
    """A revocation as it is kept; without a prompt, as it always was."""
    found = gone._asdict()
    return found if gone.prompt else {key: value for key, value in found.items() if key != "prompt"}


def promoted(channel: Channel | None, name: str, model: str, release: Mapping[str, Any]) -> Channel:
    """The channel on a model that its rule accepted; a revocation ends with it. Its stamp comes later."""
    channel = channel or Channel(name, model, revision=0)
    left = tuple(each for each in channel.revoked if each.what != (model, prompt_in(release)))
    return replace(channel, model=model, metadata={}, release=release, revoked=left, canary=None)


def restored(channel: Channel, entry: Entry, how: str, by: str, reason: str) -> Channel:
    """The channel on something that was accepted here before."""
    release = {**entry.release, "moved": {"how": how, "by": by, "reason": reason}}
    return replace(channel, model=entry.model, metadata=entry.metadata, release=release, canary=None)


def rolled_back(channel: Channel, entry: Entry, word: Word) -> Channel:
    """Back on an earlier release, held, with what stood here, or was tried here, revoked."""
    left = [channel.what, *([channel.tried] if channel.canary else [])]
    gone = [_revoked(what, word) for what in left if what != entry.what]
    moved = restored(channel, entry, "rolled back", word.by, word.reason)
    kept = [each for each in channel.revoked if each.what != entry.what]
    return replace(moved, hold=word, revoked=(*kept, *gone))


def _revoked(what: What, word: Word) -> Revoked:
    return Revoked(what.model, *word, what.prompt)


def aired(channel: Channel, model: str, share: float, fingerprint: str, record: Mapping[str, Any]) -> Channel:
    """The channel with a share of its users on a model that its rule accepted; what stands, stands."""
    since = {"since": channel.seen_at, "fingerprint": fingerprint, "release": record}
    return replace(channel, canary={"model": model, "share": share, **since})


def called_back(channel: Channel, word: Word) -> Channel:
    """The channel without its canary, whose model is revoked."""
    if channel.canary is None:
        raise ReconcilerError(f"{channel.name} has no canary")
    return replace(channel, canary=None, revoked=(*channel.revoked, _revoked(channel.tried, word)))


def held(channel: Channel, word: Word) -> Channel:
    return replace(channel, hold=word)


def lifted(channel: Channel) -> Channel:
    """Without its hold; what was revoked stays revoked. Raises ReconcilerError."""
    if channel.hold is None:
        raise ReconcilerError(f"{channel.name} is not held")
    return replace(channel, hold=None)


def target(channel: Channel, to: str | None) -> Entry:
    """
    What `--to` means: nothing, the release before; a number, so many releases back; or a model.

    Raises Refused for what was never released here.
    """
    earlier = list(channel.earlier())
    if to is None or to.isdecimal():
        back = int(to or 1)
        if not 1 <= back <= len(earlier):
            count = f"{len(earlier)} earlier release{'s' * (len(earlier) != 1)}"
            raise Refused(f"{channel.name} has {count} to go back to, not {back}; name one with --to MODEL")
        return earlier[back - 1]
    known: list[Entry] = [each for each in reversed(channel.history) if each.metadata.get(FINGERPRINT)]
    for entry in known:
        if to in (entry.model, entry.release.get("candidate")) and entry.what != channel.what:
            return entry
    if to in (channel.model, channel.release.get("candidate")):
        raise Refused(f"{channel.name} is on {to} already")
    names = ", ".join(dict.fromkeys(each.model for each in known if each.model != channel.model))
    raise Refused(f"{to} was never released on {channel.name}; there was {names or 'nothing else'}")


def approval(fingerprint: str, model: str, runs: Iterable[str], revocations: int) -> str:
    """What a person approves: this model, by this rule, on these measurements, after so many revocations."""
    bound = json.dumps([fingerprint, model, sorted(runs), revocations], separators=(",", ":"))
    return hashlib.sha256(bound.encode()).hexdigest()[:16]


def stamp_of_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
