"""
What nobody may delete, and whose word that is. Pure.

While a manifest exists its word counts. After that counts what it said last, which the journal remembers;
where the journal is lost, the stamp that the object itself carries. A word about an address covers every
version that was made for it, and everything with the fingerprint that it was about, whatever that was called.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from reconciler.kind import Kind, Observed
from reconciler.plan import Step
from reconciler.resource import Desired, Wanted


class Word(NamedTuple):
    """What a manifest said last."""

    fingerprint: str
    protect: bool


Words = Mapping[str, Word]  # by address


def spoken(steps: Iterable[Step], words: Words, kinds: Mapping[str, Kind]) -> dict[str, Word]:
    """The words that a journal does not know yet: of what is protected, and of what is so no more."""
    fresh: dict[str, Word] = {}
    for step in steps:
        wanted, observed = step.wanted, step.decision.observed
        if kinds[step.address.kind].collection is None:
            continue
        word = Word(wanted.fingerprint, bool(wanted.body.get("protect")))
        known = words.get(str(step.address))
        stamped = bool(observed and observed.stamp and observed.stamp.protect)
        if known != word and (word.protect or (known and known.protect) or (stamped and known is None)):
            fresh[str(step.address)] = word
    return fresh


class Shield:
    """Every protection of a project, to be asked about one object after the other."""

    def __init__(self, manifests: Desired, words: Words) -> None:
        project = next((each for each in manifests.values() if each.address.kind == "Project"), None)
        self._all = project is not None and _says(project)
        self._manifests = {str(address): wanted for address, wanted in manifests.items()}
        self._words = words
        gone = (word for address, word in words.items() if address not in self._manifests)
        self._prints = {word.fingerprint for word in gone if word.protect}
        self._prints |= {wanted.fingerprint for wanted in manifests.values() if _says(wanted)}

    def over(self, observed: Observed) -> str:
        """Why nobody may delete it; empty where somebody may."""
        stamp = observed.stamp
        if self._all:
            return "the whole project is protected; take protect: true out of its Project"
        if stamp is None:
            return ""
        manifest, word = self._manifests.get(stamp.address), self._words.get(stamp.address)
        if manifest is not None and _says(manifest):
            return f"{stamp.address} is protected; take protect: true out of its manifest"
        if (word.protect if word and manifest is None else False) or stamp.fingerprint in self._prints:
            return (
                f"{stamp.address} was protected; write its manifest again, without protect: true, and apply"
            )
        if stamp.protect and word is None and manifest is None:
            again = f"write the manifest of {stamp.address} again, without protect: true, and apply"
            return f"its stamp protects it; {again}"
        return ""


def _says(wanted: Wanted) -> bool:
    return bool(wanted.body.get("protect"))
