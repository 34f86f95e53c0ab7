"""
What somebody says about a release by changing its file in git, as a move of its channel. Pure.

A file that shows what was accepted here before is a wish to go back there: a revert of our commit, most
often. It is granted as a rollback is: held, and what stood is revoked; unless the rule itself wants what
the file shows. Any other edit is drift, and its rule says what becomes of it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reconciler import release
from reconciler.release import FINGERPRINT, Channel, Word


def wished(channel: Channel, shown: Mapping[str, Any], rule: str | None, word: Word) -> Channel | None:
    """
    The channel as the file asks for it; None where it asks for nothing that may be had.

    `shown` is the alias that the file shows, `rule` the fingerprint of the rule that holds the channel.
    """
    told = release.read(shown)
    said = (told.what, told.fingerprint)
    past = (e for e in reversed(channel.history) if (e.what, e.metadata.get(FINGERPRINT)) == said)
    entry = next(past, None)
    if entry is None or told.name != channel.name or entry.what == channel.what:
        return None
    if told.fingerprint != rule:
        return release.rolled_back(channel, entry, word)
    left = tuple(each for each in channel.revoked if each.what != entry.what)
    free = replace(channel, hold=None, revoked=left)
    return release.restored(free, entry, "restored", word.by, word.reason)
