"""
Platforms around a platform, each taking something away or remembering it.

`ReadOnly` is what plans receive, so that they cannot write. `Remembering` lives for one pass: what was
looked at is not asked for again, and neither is what could not be looked at.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from reconciler.errors import PlatformError
from reconciler.platforms.openai import identity
from reconciler.world import Object, Platform

Objects = list[Object]
Found = list[Object] | Object | None


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

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> NoReturn:
        raise AssertionError(f"a read-only pass asked {self.name} to create one of {collection}")

    def delete(self, collection: str, id: str) -> NoReturn:
        raise AssertionError(f"a read-only pass asked {self.name} to delete one of {collection}")


class Question(NamedTuple):
    """A list (`id` is None) or one object, as it was asked for."""

    collection: str
    id: str | None
    where: tuple[tuple[str, str], ...] = ()

    def covers(self, path: str) -> bool:
        """Whether a write to `path` may change the answer (a cancel changes the list above it). Pure."""
        return path == self.collection or path.startswith(f"{self.collection}/")

    def admits(self, made: Object) -> bool:
        """Whether the list's filters let an object through. Pure."""
        labels = made.get("metadata") or {}
        return all(
            value == (labels.get(key[9:-1]) if key.startswith("metadata[") else made.get(key))
            for key, value in self.where
        )


class Remembering:
    """
    Asks each question once, and knows what was made through it; threads with the same question wait for
    the one that asks. After an unclear write the memory is worth nothing there: then we must really look.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._answers: dict[Question, Found | PlatformError] = {}
        self._guard = threading.Lock()
        self._asking: defaultdict[Question, threading.Lock] = defaultdict(threading.Lock)

    @property
    def name(self) -> str:
        return self._platform.name

    @property
    def capabilities(self) -> frozenset[str]:
        return self._platform.capabilities

    def list(self, collection: str, **where: str) -> Objects:
        question = Question(collection, None, tuple(sorted(where.items())))
        found = self._answer(question, lambda: self._platform.list(collection, **where))
        assert isinstance(found, list)
        return [*found]

    def latest(self, collection: str, limit: int, **where: str) -> Sequence[Object]:
        """Not remembered: it is asked for what moves."""
        return self._platform.latest(collection, limit, **where)

    def get(self, collection: str, id: str) -> Object | None:
        found = self._answer(Question(collection, id), lambda: self._platform.get(collection, id))
        assert not isinstance(found, list)
        return found

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> Object:
        try:
            made = self._platform.create(collection, body, key=key)
        except PlatformError:
            self._forget(collection)
            raise
        self._learn(collection, made)
        return made

    def delete(self, collection: str, id: str) -> None:
        try:
            self._platform.delete(collection, id)
        finally:
            self._forget(collection)

    def _answer(self, question: Question, ask: Callable[[], Found]) -> Found:
        with self._guard:
            asking = self._asking[question]
        with asking:
            with self._guard:
                known = question in self._answers
                answer = self._answers.get(question)
            if not known:
                try:
                    answer = ask()
                except PlatformError as error:
                    answer = error
                with self._guard:
                    self._answers[question] = answer
        if isinstance(answer, PlatformError):
            raise answer
        return answer

    def _learn(self, path: str, made: Object) -> None:
        id = identity(made)
        with self._guard:
            for question in [each for each in self._answers if each.covers(path)]:
                answer = self._answers[question]
                if isinstance(answer, list):
                    others = [each for each in answer if identity(each) != id]
                    if len(others) < len(answer) or (path == question.collection and question.admits(made)):
                        self._answers[question] = [*others, made]
                    elif path == question.collection:
                        del self._answers[question]  # a filter we cannot judge: ask again
                elif question.id == id:
                    self._answers[question] = made

    def _forget(self, path: str) -> None:
        with self._guard:
            for question in [each for each in self._answers if each.covers(path)]:
                del self._answers[question]
