"""
Whether a request that says "something was pushed" comes from somebody who knows the secret. Pure.

GitHub and Gitea sign the body; GitLab sends the secret itself. What the body says is not read: a request
that is right makes us look at the branch, and nothing more.
"""

import hashlib
import hmac
from collections.abc import Mapping

LARGEST = 5 << 20  # bytes; a push of thousands of commits is a few hundred kilobytes
SIGNATURES = ("x-hub-signature-256", "x-gitea-signature")


def genuine(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Compares in constant time; without a signature nothing is genuine. Header names are in lower case."""
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    signed = (headers.get(name) for name in SIGNATURES)
    if any(each is not None and _same(each.removeprefix("sha256="), expected) for each in signed):
        return True
    token = headers.get("x-gitlab-token")
    return token is not None and _same(token, secret)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
