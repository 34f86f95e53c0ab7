"""
The border: a platform is four verbs over named collections.

A collection is the path the API itself uses (`files`, `fine_tuning/jobs`, `evals/eval_1/runs`), an
object is the JSON it answers with. Nothing here knows about kinds, and nothing else about HTTP.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Upload:
    """A file to be streamed as a multipart part; `progress(sent, total)` counts bytes."""

    path: Path
    filename: str
    progress: Callable[[int, int], None] | None = None


class Platform(Protocol):
    """
    One reachable world. Reads raise `Unreachable`, `Rejected` or `Busy`, and never return a part of a
    list. `create` sends exactly one request and raises `Rejected`, `Busy`, `Unreachable` (nothing
    happened) or `Unclear` (it may have).
    """

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[str]:
        """Extensions it has: `idempotency`, `aliases`, `model_sources`."""

    def list(self, collection: str, **where: str) -> list[Object]:
        """Every object of a collection, all pages."""

    def latest(self, collection: str, limit: int, **where: str) -> Sequence[Object]:
        """The first page alone, in the platform's own order: enough for what moves, such as events."""

    def get(self, collection: str, id: str) -> Object | None:
        """One object, or None when the platform says there is none."""

    def content(self, id: str) -> bytes:
        """The bytes of a file."""

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> Object:
        """Ask once; `key` makes the request idempotent where the platform can."""

    def delete(self, collection: str, id: str) -> None:
        """Remove one object; an absent one is no error."""
