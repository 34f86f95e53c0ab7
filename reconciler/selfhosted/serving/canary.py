"""
A share of an alias's users on another model: by a hash of alias and `user`, so that everybody stays where
they are. Whoever names no user gets the stable model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from reconciler.selfhosted.storage.store import Tx


def place(alias: str, user: str) -> float:
    """Where a user stands between 0 and 1, the same for as long as the alias has its name. Pure."""
    digest = hashlib.sha256(f"{alias}\0{user}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def user_of(body: Mapping[str, Any]) -> str | None:
    """Who asks, as far as a request says it: `user`, or what came after it in OpenAI's API. Pure."""
    user = body.get("user") or body.get("safety_identifier")
    return user if isinstance(user, str) else None


def led_to(alias: Mapping[str, Any], user: str | None) -> str:
    """The model that an alias means for a user. Pure."""
    canary = alias.get("canary")
    if canary and user and place(alias["name"], user) < canary["share"]:
        return str(canary["model"])
    return str(alias["model"])


def resolve(tx: Tx, project: str, name: str, user: str | None) -> str:
    """The name with its canary taken into account, when it is an alias that has one."""
    row = tx.get(project, "alias", name) if user else None
    return led_to(row.wire(), user) if row else name
