"""
The two reads that every request makes, built once for each shape of question and not for each request.

Building a statement costs SQLAlchemy several times what SQLite needs to answer it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import bindparam

from reconciler.selfhosted.storage.records import Listing, Row, marks, objects

_alive = sa.or_(objects.c.expires_at.is_(None), objects.c.expires_at > bindparam("now"))

GET = sa.select(objects).where(
    objects.c.project == bindparam("project"),
    objects.c.type == bindparam("type"),
    objects.c.id == bindparam("id"),
    _alive,
)
GET_LOCKED = GET.with_for_update()


class Shape(NamedTuple):
    """What a list asks about, without what it asks for."""

    narrowed: tuple[str, ...]
    marks: int
    unmarked: bool
    goes_on: bool
    newest_first: bool
    by_update: bool


def page(listing: Listing, last: Row | None, now: int) -> tuple[sa.Select[Any], dict[str, Any]]:
    """The statement and the values of one page, after the row `last` if there is one. Pure."""
    wanted = {name: getattr(listing, name) for name in ("parent", "status", "label")}
    narrowed = {name: value for name, value in wanted.items() if value is not None}
    values = {
        "type": listing.type,
        "project": listing.project,
        "now": now,
        "rows": listing.limit + 1,
        **narrowed,
    }
    for number, (key, value) in enumerate(listing.marks.items()):
        values |= {f"key{number}": key, f"value{number}": value}
    if last is not None:
        values |= {"last_update": last.updated_at} if listing.by_update else {}
        values["last"] = last.seq
    shape = Shape(
        tuple(narrowed),
        len(listing.marks),
        listing.unmarked,
        last is not None,
        listing.newest_first,
        listing.by_update,
    )
    return _page(shape), values


@lru_cache(256)
def _page(shape: Shape) -> sa.Select[Any]:
    order = [objects.c.updated_at, objects.c.seq] if shape.by_update else [objects.c.seq]
    asked = sa.select(objects).where(
        objects.c.type == bindparam("type"), objects.c.project == bindparam("project"), _alive
    )
    for name in shape.narrowed:
        asked = asked.where(objects.c[name] == bindparam(name))
    of_object = sa.select(marks.c.seq).where(marks.c.seq == objects.c.seq)
    for number in range(shape.marks):
        asked = asked.where(
            of_object.where(
                marks.c.key == bindparam(f"key{number}"), marks.c.value == bindparam(f"value{number}")
            ).exists()
        )
    if shape.unmarked:
        asked = asked.where(~of_object.exists())
    if shape.goes_on:
        asked = asked.where(_beyond(shape))
    return asked.order_by(*[c.desc() if shape.newest_first else c.asc() for c in order]).limit(
        bindparam("rows")
    )


def _beyond(shape: Shape) -> sa.ColumnElement[bool]:
    seq, last = objects.c.seq, bindparam("last", type_=sa.BigInteger)
    further = seq < last if shape.newest_first else seq > last
    if not shape.by_update:
        return further
    updated, last_update = objects.c.updated_at, bindparam("last_update", type_=sa.BigInteger)
    later = updated < last_update if shape.newest_first else updated > last_update
    return sa.or_(later, sa.and_(updated == last_update, further))
