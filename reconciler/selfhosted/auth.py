"""
Who may ask, and whose objects they see.

The server's own socket (mode 0600) needs no key. TCP needs one as soon as any key exists, and beyond
loopback a key must exist before the server starts. Keys are stored as SHA-256 and compared in constant
time. Foreign Host and Origin headers are refused on TCP, so no web page can reach a local server by
rebinding a name to it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa

from reconciler.selfhosted.context import DEFAULT_PROJECT, Caller
from reconciler.selfhosted.storage.store import Store, Tx, tables
from reconciler.selfhosted.wire import WireError

FRESH = 1.0  # seconds that a list of keys is believed; a revoked key stops working within it

keys = sa.Table(
    "keys",
    tables,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("project", sa.String, nullable=False),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)


class Key(NamedTuple):
    name: str
    project: str
    digest: str
    created_at: int


def add_key(store: Store, name: str, project: str) -> str:
    """Make a key and return its text, which is not kept; ValueError if the name is taken."""
    text = "sk-" + secrets.token_urlsafe(32)

    def add(tx: Tx) -> None:
        if tx.connection.execute(sa.select(keys.c.name).where(keys.c.name == name)).first():
            raise ValueError(f"a key named {name} exists already; revoke it or choose another name")
        row = {"name": name, "project": project, "digest": _digest(text), "created_at": int(tx.now())}
        tx.connection.execute(sa.insert(keys).values(**row))

    store.write_now(add)
    return text


def list_keys(store: Store) -> list[Key]:
    return store.read_now(_all_keys)


def revoke_key(store: Store, name: str) -> None:
    """Forget a key; ValueError if there is none of that name."""
    gone = store.write_now(
        lambda tx: tx.connection.execute(sa.delete(keys).where(keys.c.name == name)).rowcount
    )
    if not gone:
        raise ValueError(f"no key is named {name}; `keys list` shows the names")


class Door:
    """Admits or refuses each request by where it came from, its Host and Origin, and its key."""

    def __init__(
        self, store: Store, hosts: Iterable[str] = (), monotonic: Callable[[], float] | None = None
    ) -> None:
        self._store = store
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._clock = monotonic or time.monotonic
        self._keys: list[Key] = []
        self._read_at = float("-inf")

    def admit(self, scope: Any) -> Caller:
        """The caller of an ASGI request; WireError 401, 403 or 421."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in _LOOKED_AT}
        server = scope.get("server")
        private = bool(server) and server[1] is None
        if not private:
            self._check_host(headers)
        return Caller(self._project(headers.get(b"authorization", ""), private), private)

    def _check_host(self, headers: dict[bytes, str]) -> None:
        host = _hostname(headers.get(b"host", ""))
        if not self._ours(host):
            raise WireError(
                421, f"the host {host[:100]!r} is not served here; start the server with --allow-host"
            )
        origin = headers.get(b"origin")
        if origin is not None and not self._ours(_hostname(origin.partition("://")[2])):
            raise WireError(403, "requests from web pages of other origins are refused")

    def _ours(self, host: str) -> bool:
        return host in self._hosts or _is_address(host)

    def _project(self, authorization: str, private: bool) -> str:
        scheme, _, text = authorization.partition(" ")
        given = _digest(text.strip()) if scheme.lower() == "bearer" else ""
        found = [key.project for key in self._current() if hmac.compare_digest(key.digest, given)]
        if found:
            return found[0]
        if private or not self._keys:
            return DEFAULT_PROJECT
        raise WireError(
            401,
            "Incorrect API key provided."
            if given
            else "You didn't provide an API key; send Authorization: Bearer.",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )

    def _current(self) -> list[Key]:
        now = self._clock()
        if now - self._read_at >= FRESH:
            self._keys, self._read_at = self._store.read_now(_all_keys), now
        return self._keys


_LOOKED_AT = (b"host", b"origin", b"authorization")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. Pure."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _hostname(netloc: str) -> str:
    host = netloc.partition("/")[0].lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _all_keys(tx: Tx) -> list[Key]:
    return [Key(*row) for row in tx.connection.execute(sa.select(keys).order_by(keys.c.name))]
