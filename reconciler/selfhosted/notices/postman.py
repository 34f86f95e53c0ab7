"""
Takes messages to webhooks: signed as Standard Webhooks say, never redirected, never to where we must not go.

A server that others can reach sends to public addresses over https only, so that nobody makes it knock at
the doors of its own network; a local one, or one that was allowed to, sends to private addresses too. Which
addresses a name has is checked when the connection is made, so a name cannot change its mind in between.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog
from sqlalchemy.exc import SQLAlchemyError

from reconciler.selfhosted import beside, wire
from reconciler.selfhosted.context import Context
from reconciler.selfhosted.notices import outbox
from reconciler.selfhosted.notices.outbox import Message

if TYPE_CHECKING:
    import aiohttp

TICK = 1.0  # seconds between two looks at the outbox
AT_ONCE = 16
TIMEOUT = 15.0  # seconds for one delivery
OVERLAP = 24 * 3600  # seconds that an old secret may stay valid

log = structlog.get_logger("reconciler.selfhosted")


class Unreachable(Exception):
    """The endpoint did not answer; the message says why."""


@contextlib.asynccontextmanager
async def running(here: Context) -> AsyncIterator[None]:
    """Deliver while the server runs."""
    async with beside.running(_deliver(here)):
        yield


async def _deliver(here: Context) -> None:
    active: set[asyncio.Task[None]] = set()
    try:
        while True:
            room = AT_ONCE - len(active)
            try:
                if room and await here.store.read(outbox.has_due):
                    for message in await here.store.write(lambda tx, room=room: outbox.take(tx, room)):  # type: ignore[misc]
                        task = asyncio.create_task(_attempt(here, message))
                        active.add(task)
                        task.add_done_callback(active.discard)
            except SQLAlchemyError as error:
                log.error("webhook.store_failed", reason=type(error).__name__)
            await asyncio.sleep(TICK)
    finally:
        for task in active:
            task.cancel()
        await asyncio.gather(*active, return_exceptions=True)


async def _attempt(here: Context, message: Message) -> None:
    """Try one delivery and enter what came of it; what cannot be entered is sent again."""
    endpoint = await here.store.read(lambda tx: tx.get(message.project, outbox.ENDPOINT, message.endpoint))
    taken = endpoint is None
    if endpoint is not None:
        try:
            status = await send(here, endpoint.wire()["url"], endpoint.hidden(), message.event)
            taken = 200 <= status < 300 or status == 410  # gone: it wants no more of this
            log.info("webhook.sent", endpoint=endpoint.id, about=message.event["id"], status=status)
        except Unreachable as why:
            log.info("webhook.unreachable", endpoint=endpoint.id, about=message.event["id"], reason=str(why))
    with contextlib.suppress(SQLAlchemyError):
        await here.store.write(lambda tx: outbox.settle(tx, message, taken=taken))


async def send(here: Context, url: str, secrets: Mapping[str, Any], event: Mapping[str, Any]) -> int:
    """POST a signed event; the status it was answered with. Raises Unreachable."""
    import aiohttp  # a tenth of a second that a server without webhooks does not need

    problem = url_problem(url, here.private_webhooks)
    if problem is not None:
        raise Unreachable(problem)
    body, now = wire.encode(event), here.seconds()
    headers = {
        "content-type": "application/json",
        "user-agent": f"reconciler/{here.version}",
        "webhook-id": event["id"],
        "webhook-timestamp": str(now),
        "webhook-signature": signature(valid_secrets(secrets, now), event["id"], now, body),
    }
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    connector = aiohttp.TCPConnector(resolver=_resolver(here.private_webhooks), force_close=True)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as reply,
        ):
            return reply.status
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise Unreachable(str(error)[:200] or type(error).__name__) from error


def valid_secrets(kept: Mapping[str, Any], now: int) -> list[str]:
    """The secrets that sign now: the current one, and the one before while it is to overlap. Pure."""
    old = [kept["old_secret"]] if kept.get("old_until", 0) > now else []
    return [kept["secret"], *old]


def signature(secrets: Sequence[str], id: str, timestamp: int, body: bytes) -> str:
    """The header webhook-signature: one `v1,` signature per secret. Pure."""
    signed = f"{id}.{timestamp}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
    made = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]
    return " ".join(f"v1,{one}" for one in made)


def url_problem(url: str, private: bool) -> str | None:
    """Why an endpoint cannot be at this address, or None as far as the address tells. Pure."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "the url cannot be read"
    schemes = ("https", "http") if private else ("https",)
    if parts.scheme not in schemes or not host or parts.username or parts.password:
        return f"the url must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}, and name a host"
    with contextlib.suppress(ValueError):
        return address_problem(host, private)
    return None


def address_problem(address: str, private: bool) -> str | None:
    """Why we do not send to an address, or None; ValueError when it is none. Pure."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:  # 169.254.169.254 hands out credentials
        return f"{address} is no address to send to"
    if not private and not ip.is_global:
        return f"{address} is a private address; start the server with --allow-private-webhooks to send there"
    return None


def _resolver(private: bool) -> aiohttp.abc.AbstractResolver:
    from aiohttp.abc import ResolveResult
    from aiohttp.resolver import ThreadedResolver

    class Checked(ThreadedResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await super().resolve(host, port, family)
            for each in found:
                if problem := address_problem(each["host"], private):
                    raise OSError(problem)
            return found

    return Checked()
