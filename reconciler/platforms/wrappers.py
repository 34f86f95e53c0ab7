"""What plans receive around a platform, so that they cannot write."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from reconciler.world import Object, Platform

Objects = list[Object]


class ReadOnly:
    """Looks, and cannot touch: a write is a mistake in the program, not of the user."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    @property
    def name(self) -> str:
        return self._platform.name

    @property
    def capabilities(self) -> frozenset[str]:
        return self._platform.capabilities

    def list(self, collection: str, **where: str) -> Objects:
        return self._platform.list(collection, **where)

    def latest(self, collection: str, limit: int, **where: str) -> Sequence[Object]:
        return self._platform.latest(collection, limit, **where)

    def get(self, collection: str, id: str) -> Object | None:
        return self._platform.get(collection, id)

    def content(self, id: str) -> bytes:
        return self._platform.content(id)

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> NoReturn:
        raise AssertionError(f"a read-only pass asked {self.name} to create one of {collection}")

    def delete(self, collection: str, id: str) -> NoReturn:
        raise AssertionError(f"a read-only pass asked {self.name} to delete one of {collection}")
