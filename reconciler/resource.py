"""
What is wanted, as values: addresses, specs and the two marks that do most of the work.

A field marked `Ref` holds the address of another resource; a field marked `COSMETIC` may change
without anything being made anew. Everything else in a spec is identity.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, NamedTuple, Self, get_args

import msgspec
from pydantic import BaseModel, ConfigDict
from pydantic import Field as PydanticField

API_VERSION = "reconciler/v1"
LEFT_OUT = "left_out"  # in the facts of what is not to be touched: the pattern that says so
ASKED_BESIDE = "asked_beside"  # in the facts of a part of a tree: the fingerprints that the rest of it wants
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


class Address(NamedTuple):
    """Where a resource stands in the tree: `Kind/name`."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Self:
        kind, _, name = text.partition("/")
        return cls(kind, name)


class Ref:
    """Marks a field that holds the address of a resource of one of these kinds."""

    def __init__(self, *kinds: str, or_text: bool = False, words: tuple[str, ...] = ()) -> None:
        self.kinds = kinds
        self.or_text = or_text  # plain text is allowed too: a name the platform already knows
        self.words = words  # plain words that mean something here

    def address(self, text: str) -> Address | None:
        """The address meant by `text`, or None for plain text. Raises ValueError with a sentence."""
        kind, slash, name = text.partition("/")
        if slash and kind in self.kinds:
            return Address(kind, name)
        if self.or_text or text in self.words:
            return None
        if slash:
            raise ValueError(f"{text} is a {kind}, this field takes {' or '.join(self.kinds)}")
        if len(self.kinds) > 1:
            raise ValueError(
                f"write {' or '.join(f'{kind}/{text}' for kind in self.kinds)} instead of {text}"
            )
        return Address(self.kinds[0], text)


class Cosmetic:
    """Marks a field that never enters a fingerprint."""


COSMETIC = Cosmetic()


class Spec(BaseModel):
    """The base of every spec and of every part of one."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ResourceSpec(Spec):
    """The base of every spec: what any resource may say about itself."""

    suspend: Annotated[bool, COSMETIC] = PydanticField(
        False, description="leave it as it stands; make nothing for it"
    )
    protect: Annotated[bool, COSMETIC] = PydanticField(
        False, description="nobody deletes what was made for it, even when this manifest is gone"
    )


class Field(NamedTuple):
    """What the walk over a spec needs to know of one field."""

    name: str
    default: Any
    ref: Ref | None
    cosmetic: bool


@cache
def fields_of(spec: type[BaseModel]) -> tuple[Field, ...]:
    return tuple(
        Field(
            name,
            info.get_default(call_default_factory=True),
            next((m for m in _marks(info.annotation, info.metadata) if isinstance(m, Ref)), None),
            any(isinstance(mark, Cosmetic) for mark in info.metadata),
        )
        for name, info in spec.model_fields.items()
    )


def _marks(annotation: Any, metadata: Any = ()) -> Iterator[Any]:
    yield from metadata
    yield from getattr(annotation, "__metadata__", ())
    for part in get_args(annotation):
        yield from _marks(part)


def seconds(text: str) -> int:
    """How long `90s`, `30m`, `12h` or `7d` last."""
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]]


class Need(NamedTuple):
    """One reference: the field it stands in and the resource it points to."""

    field: str
    address: Address


class Wanted(msgspec.Struct, frozen=True):
    """
    One resource, fully resolved: its fingerprint is known before anything exists.

    `content` is what the fingerprint was taken over, flat: JSON pointer to value, references by the
    fingerprint they point to. `facts` is what reading its files taught (digests, counts).
    """

    address: Address
    fingerprint: str
    content: dict[str, Any]
    needs: tuple[Need, ...]
    body: dict[str, Any]
    facts: dict[str, Any]
    file: str
    line: int
    labels: dict[str, str] = {}
    implied: bool = False  # by a promotion rule, not written by anybody
    adopts: str = ""  # the id of an object made elsewhere that stands for it

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    def needed(self, field: str) -> Address:
        """The one address that `field` refers to."""
        return next(need.address for need in self.needs if need.field == field)


Desired = dict[Address, Wanted]  # in dependency order
