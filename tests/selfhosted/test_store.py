"""The store, on SQLite and on a PostgreSQL that is started for it (and skipped, saying so, without one)."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from reconciler.selfhosted import idempotency
from reconciler.selfhosted.storage.store import Listing, Record, Store, Tx, UnknownCursor
from reconciler.selfhosted.tuning import jobbook


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    where = (
        f"sqlite:///{tmp_path / 'db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    )
    opened = Store(where, now=lambda: 1000.0)
    opened.write_now(_clear)
    yield opened
    opened.close()


def _clear(tx: Tx) -> None:
    for table in ("marks", "objects", "leases", "answers"):
        tx.connection.exec_driver_sql(f"DELETE FROM {table}")


def record(id: str, project: str = "p", **more: object) -> Record:
    return Record("file", id, project, {"id": id}, 1000, **more)  # type: ignore[arg-type]


def add(store: Store, *records: Record) -> None:
    for one in records:
        store.write_now(lambda tx, one=one: tx.insert(one))  # type: ignore[misc]


def ids(store: Store, **asked: object) -> list[str]:
    listing = Listing("file", "p", **{"limit": 10, **asked})  # type: ignore[arg-type]
    return [row.id for row in store.read_now(lambda tx: tx.page(listing)).rows]


def test_an_object_comes_back_as_it_was_stored(store: Store) -> None:
    add(store, record("a", private={"path": "x"}, label="evals"))

    row = store.read_now(lambda tx: tx.get("p", "file", "a"))

    assert row is not None
    assert ({"id": "a"}, {"path": "x"}, "evals") == (row.wire(), row.hidden(), row.label)
    assert store.read_now(lambda tx: tx.get("q", "file", "a")) is None


def test_pages_follow_each_other_in_both_orders(store: Store) -> None:
    add(store, *(record(id) for id in "abcde"))

    assert ["a", "b"] == ids(store, limit=2)
    assert ["c", "d"] == ids(store, limit=2, after="b")
    assert ["c", "b"] == ids(store, limit=2, after="d", newest_first=True)
    with pytest.raises(UnknownCursor):
        ids(store, after="z")


def test_a_list_may_be_ordered_by_the_last_change(store: Store) -> None:
    add(store, record("a", updated_at=3), record("b", updated_at=1), record("c", updated_at=3))

    assert ["b", "a", "c"] == ids(store, by_update=True)
    assert ["a", "b"] == ids(store, by_update=True, newest_first=True, after="c")


def test_lists_filter_by_columns_and_by_every_mark(store: Store) -> None:
    add(
        store,
        record("a", label="x", marks={"k": "1", "l": "2"}),
        record("b", label="x", marks={"k": "1"}),
        record("c", label="y"),
        record("d", project="q", label="x", marks={"k": "1"}),
    )

    assert ["a", "b"] == ids(store, label="x")
    assert ["a", "b"] == ids(store, marks={"k": "1"})
    assert ["a"] == ids(store, marks={"k": "1", "l": "2"})
    assert ["c"] == ids(store, unmarked=True)


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    def break_off(tx: Tx) -> None:
        tx.insert(record("a"))
        raise ValueError

    with pytest.raises(ValueError):
        store.write_now(break_off)

    assert [] == ids(store)


def test_an_expired_object_is_gone_before_it_is_removed(store: Store) -> None:
    add(store, record("a", expires_at=1000), record("b", expires_at=1001))

    assert ["b"] == ids(store)
    assert ["a"] == store.write_now(lambda tx: tx.delete_expired("file"))


def test_an_id_is_taken_once_in_a_project(store: Store) -> None:
    add(store, record("a"), record("a", project="q"))

    with pytest.raises(IntegrityError):
        add(store, record("a"))


def test_a_deleted_objects_place_in_the_order_is_not_reused(store: Store) -> None:
    add(store, record("a"), record("b"))
    row = store.read_now(lambda tx: tx.get("p", "file", "b"))
    assert row is not None

    store.write_now(lambda tx: tx.delete(row))
    add(store, record("c"))

    after = store.read_now(lambda tx: tx.get("p", "file", "c"))
    assert after is not None
    assert after.seq > row.seq


def test_of_many_workers_one_gets_a_job(store: Store) -> None:
    body = {"id": "ftjob-1", "status": "queued"}
    store.write_now(lambda tx: tx.insert(Record("job", "ftjob-1", "p", body, 1000, status="queued")))

    def claim(worker: str) -> jobbook.Claim | None:
        return store.write_now(lambda tx: jobbook.claim(tx, worker, frozenset()))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(claim, "abcdefgh"))

    assert 1 == len([claim for claim in claims if claim])


def test_old_idempotency_keys_are_forgotten(store: Store) -> None:
    row = {"project": "p", "path": "/", "digest": "d", "status": 200, "body": b"{}"}

    def remember(tx: Tx) -> None:
        for key, at in (("old", 999 - idempotency.KEPT), ("new", 1000)):
            tx.connection.execute(idempotency.answers.insert().values(key=key, created_at=at, **row))
        idempotency.forget_old(tx)

    store.write_now(remember)

    kept = store.read_now(lambda tx: tx.connection.execute(idempotency.answers.select()).all())
    assert ["new"] == [answer.key for answer in kept]
