"""
How an object is kept: one row of a table of all objects, its wire JSON ready to send.

Columns hold only what is searched or ordered by; `seq` is the cursor order and never moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import msgspec
import sqlalchemy as sa

SHARED = ""  # the project of objects that everybody sees: base models

tables = sa.MetaData()

objects = sa.Table(
    "objects",
    tables,
    sa.Column(
        "seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    sa.Column("project", sa.String, nullable=False),
    sa.Column("type", sa.String, nullable=False),
    sa.Column("id", sa.String, nullable=False),
    sa.Column("parent", sa.String, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("label", sa.String, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("private", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("project", "type", "id"),
    sa.Index("objects_in_order", "type", "project", "parent", "seq"),
    sa.Index("objects_by_status", "type", "status"),
    sqlite_autoincrement=True,  # a deleted row's place in the order is never given to another
)

marks = sa.Table(
    "marks",
    tables,
    sa.Column("seq", sa.ForeignKey("objects.seq", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
    sa.Index("marks_by_value", "key", "value"),
)

facts = sa.Table(
    "facts",
    tables,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)


@dataclass(frozen=True)
class Record:
    """One object as it is to be stored: `body` is sent to clients, `private` never is."""

    type: str
    id: str
    project: str
    body: Mapping[str, Any]
    created_at: int
    parent: str = ""
    status: str = ""
    label: str = ""  # what lists filter by besides status: a file's purpose, a completion's model
    updated_at: int | None = None
    expires_at: int | None = None
    private: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)  # metadata that lists filter by


class Row(NamedTuple):
    """One object as it is stored; `body` and `private` are JSON."""

    seq: int
    project: str
    type: str
    id: str
    parent: str
    status: str
    label: str
    created_at: int
    updated_at: int
    expires_at: int | None
    body: bytes
    private: bytes

    def wire(self) -> dict[str, Any]:
        """The object that clients see."""
        return cast(dict[str, Any], msgspec.json.decode(self.body))

    def hidden(self) -> dict[str, Any]:
        """What we keep beside the object: paths, digests, settings."""
        return cast(dict[str, Any], msgspec.json.decode(self.private))


@dataclass(frozen=True)
class Listing:
    """Which objects of one type a list asks for, and from where on."""

    type: str
    project: str
    limit: int
    after: str | None = None
    newest_first: bool = False
    parent: str | None = None
    status: str | None = None
    label: str | None = None
    marks: Mapping[str, str] = field(default_factory=dict)
    unmarked: bool = False  # only objects without metadata
    by_update: bool = False  # order by updated_at instead of creation


class Page(NamedTuple):
    rows: list[Row]
    has_more: bool


class UnknownCursor(Exception):
    """A list was asked to continue after an object that is not there."""


def columns(record: Record) -> dict[str, Any]:
    """The row of a record, but for its place in the order. Pure."""
    return {
        "project": record.project,
        "type": record.type,
        "id": record.id,
        "parent": record.parent,
        "status": record.status,
        "label": record.label,
        "created_at": record.created_at,
        "updated_at": record.created_at if record.updated_at is None else record.updated_at,
        "expires_at": record.expires_at,
        "body": msgspec.json.encode(record.body),
        "private": msgspec.json.encode(record.private),
    }
