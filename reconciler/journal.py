"""
What we remember between passes. Losing it loses history, and safety only for what was asked in the
last few minutes.

An intent opens before a create and closes when we *see* the object, or when the platform definitely
refused it. While one is open we look, and do not ask again. A claim keeps two of us from asking for
the same thing; its token only grows, so a holder that slept can tell that it lost its claim.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
    update,
)  # fmt: skip
from sqlalchemy.exc import (
    DatabaseError,
    IntegrityError,
)

from reconciler import database
from reconciler.database import SQLITE, upserting
from reconciler.holder import alive
from reconciler.intent import LEASE, Claim, Held, Intent
from reconciler.plan import Remembered
from reconciler.resource import Address, Wanted

metadata = MetaData()
intents = Table(
    "intents", metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("platform", String(200), nullable=False, index=True),
    Column("fingerprint", String(64), nullable=False, index=True),
    Column("address", Text, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("closed_at", Float, index=True),
    Column("outcome", String(20)),
    Column("object_id", String(200)),
)  # fmt: skip
claims = Table(
    "claims", metadata,
    Column("platform", String(200), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("holder", String(200), nullable=False),
    Column("token", Integer, nullable=False),
    Column("lease_until", Float, nullable=False),
)  # fmt: skip
memory = Table(
    "memory", metadata,
    Column("platform", String(200), primary_key=True),
    Column("address", Text, primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("content", Text, nullable=False),
    Column("row_digests", LargeBinary, nullable=False),
)  # fmt: skip
history = Table(
    "history", metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("platform", String(200), nullable=False),
    Column("address", Text, nullable=False, index=True),
    Column("event", String(40), nullable=False),
    Column("detail", Text, nullable=False),
)  # fmt: skip


class Journal:
    """One journal, on any database SQLAlchemy speaks; `url` as SQLAlchemy has it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> "Journal":
        """Open for writing, making the tables if need be. Raises ReconcilerError."""
        journal = cls(database.writing(url))
        journal.keep(intents, claims, memory, history)
        return journal

    @classmethod
    def at(cls, path: Path) -> "Journal":
        """The SQLite journal in a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls.open(f"{SQLITE}{path}")

    @classmethod
    def peek(cls, url: str) -> "Journal | None":
        """The same to look at, for which SELECT is right enough; None where there is none. Raises ReconcilerError."""
        path = url.removeprefix(SQLITE)
        if path != url and not Path(path).exists():
            return None
        journal = cls(database.reading(f"{SQLITE}file:{path}?mode=ro&uri=true" if path != url else url))
        with journal.read() as db:
            return journal if inspect(db).has_table(memory.name) else None

    def keep(self, *tables: Table) -> None:
        """Have these tables too, for those who keep books of their own here. Raises ReconcilerError."""
        database.make(self._engine, tables)

    # Claims

    def claim(self, platform: str, fingerprint: str, holder: str, now: float) -> Claim | Held:
        """Take the right to ask for one object, or learn who has it."""
        with self.write() as db:
            mine = (claims.c.platform == platform) & (claims.c.fingerprint == fingerprint)
            row = db.execute(select(claims).where(mine).with_for_update()).one_or_none()
            if row is None:
                try:
                    with db.begin_nested():
                        db.execute(insert(claims).values(platform=platform, fingerprint=fingerprint, holder=holder,
                                                         token=1, lease_until=now + LEASE))  # fmt: skip
                    return Claim(platform, fingerprint, holder, 1)
                except IntegrityError:
                    row = db.execute(select(claims).where(mine)).one()
            if row.holder not in ("", holder) and row.lease_until > now and alive(row.holder):
                return Held(row.holder, row.lease_until)
            taken = db.execute(
                update(claims)
                .where(mine, claims.c.token == row.token)
                .values(holder=holder, token=row.token + 1, lease_until=now + LEASE)
            )
            if not taken.rowcount:
                return Held("somebody", now + LEASE)
            return Claim(platform, fingerprint, holder, row.token + 1)

    def renew(self, claim: Claim, now: float) -> None:
        """Keep a claim for another LEASE; no error when it was lost meanwhile."""
        with self.write() as db:
            db.execute(
                update(claims)
                .where(
                    claims.c.platform == claim.platform,
                    claims.c.fingerprint == claim.fingerprint,
                    claims.c.token == claim.token,
                )
                .values(lease_until=now + LEASE)
            )

    def release(self, claim: Claim) -> None:
        """Give a claim back; no error when it was lost meanwhile. Its token stays, so that it only grows."""
        with self.write() as db:
            db.execute(
                update(claims)
                .where(claims.c.platform == claim.platform, claims.c.fingerprint == claim.fingerprint,
                       claims.c.token == claim.token)
                .values(holder="", lease_until=0.0)
            )  # fmt: skip

    def give_back(self, holder: str) -> int:
        """Give back every claim of one who leaves, and say how many; what it asked for stays an open intent."""
        with self.write() as db:
            return db.execute(
                update(claims).where(claims.c.holder == holder).values(holder="", lease_until=0.0)
            ).rowcount

    def tokens(self, platform: str) -> dict[str, int]:
        """
        By fingerprint, how often a claim was taken and given back: what has grown since was somebody else's turn.

        A claim that is held now counts as not yet taken: what its holder makes may come after our look.
        """
        with self.read() as db:
            rows = db.execute(select(claims).where(claims.c.platform == platform))
            return {row.fingerprint: row.token - (row.holder != "") for row in rows}

    # Intents

    def open_intent(
        self,
        claim: Claim,
        address: Address,
        now: float,
        doubted: Intent | None = None,
        also: Callable[[Connection, Intent], None] | None = None,
    ) -> Intent | None:
        """
        Make durable that we are about to ask; None when the claim was lost meanwhile.

        `doubted` is the intent of the same request when it was asked before: it stays, and its window
        starts anew. `also` is done in the same transaction; what it raises leaves nothing open.
        """
        with self.write() as db:
            if not self._holds(db, claim):
                return None
            intent = self._renewed(db, doubted, now) if doubted else self._opened(db, claim, address, now)
            if also:
                also(db, intent)
            return intent

    @staticmethod
    def _holds(db: Connection, claim: Claim) -> bool:
        """Whether nobody took a claim since; nobody does before this transaction ends."""
        mine = (claims.c.platform == claim.platform) & (claims.c.fingerprint == claim.fingerprint)
        token = db.execute(select(claims.c.token).where(mine).with_for_update()).scalar()
        return bool(token == claim.token)

    @staticmethod
    def _opened(db: Connection, claim: Claim, address: Address, now: float) -> Intent:
        values = {
            "platform": claim.platform,
            "fingerprint": claim.fingerprint,
            "address": str(address),
            "opened_at": now,
        }
        id = db.execute(insert(intents).values(values)).inserted_primary_key
        assert id is not None
        return Intent(id[0], **values)  # type: ignore[arg-type]  # the four columns above

    def renew_intent(self, intent: Intent, now: float) -> Intent:
        """Its object may have come to be until now, so it is looked for from now on."""
        with self.write() as db:
            return self._renewed(db, intent, now)

    @staticmethod
    def _renewed(db: Connection, intent: Intent, now: float) -> Intent:
        db.execute(update(intents).where(intents.c.id == intent.id).values(opened_at=now))
        return replace(intent, opened_at=now)

    def close_intent(
        self,
        intent: Intent,
        outcome: str,
        now: float,
        object_id: str | None = None,
        under: Claim | None = None,
    ) -> None:
        """Nobody has to look for its object; not ours to say any more if the claim `under` which we asked was lost."""
        with self.write() as db:
            if under and not self._holds(db, under):
                return
            closed = {"closed_at": now, "outcome": outcome, "object_id": object_id}
            db.execute(update(intents).where(intents.c.id == intent.id).values(closed))
            self._record(
                db, now, intent.platform, intent.address, outcome, {"id": object_id} if object_id else {}
            )

    def open_intents(self, platform: str) -> dict[str, Intent]:
        """By fingerprint, the oldest of each: what may exist without our having seen it."""
        with self.read() as db:
            query = select(intents).where(intents.c.closed_at.is_(None), intents.c.platform == platform)
            rows = db.execute(query.order_by(intents.c.id.desc())).all()
        return {r.fingerprint: Intent(r.id, r.platform, r.fingerprint, r.address, r.opened_at) for r in rows}

    def made(self, platform: str, fingerprint: str) -> str | None:
        """The id of the object that was made last for a fingerprint."""
        mine = (intents.c.platform == platform) & (intents.c.fingerprint == fingerprint)
        query = select(intents.c.object_id).where(mine, intents.c.outcome == "made")
        with self.read() as db:
            return db.execute(query.order_by(intents.c.id.desc()).limit(1)).scalar()

    # Memory and history

    def remember(self, platform: str, wanted: Iterable[Wanted]) -> None:
        """What these addresses stand for now, in one transaction."""
        rows = [
            {
                "platform": platform,
                "address": str(each.address),
                "fingerprint": each.fingerprint,
                "content": json.dumps(each.content),
                "row_digests": each.facts.get("row_digests", b""),
            }
            for each in sorted(
                wanted, key=lambda each: each.address
            )  # in one order, or two would wait for each other
        ]
        if not rows:
            return
        with self.write() as db:
            insertion = upserting(db)(memory)
            fresh = {name: insertion.excluded[name] for name in ("fingerprint", "content", "row_digests")}
            db.execute(
                insertion.on_conflict_do_update(index_elements=["platform", "address"], set_=fresh), rows
            )

    def remembered(self, platform: str) -> dict[str, str]:
        """By address, the fingerprint each stood for when it was last applied."""
        with self.read() as db:
            query = select(memory.c.address, memory.c.fingerprint).where(memory.c.platform == platform)
            return {row.address: row.fingerprint for row in db.execute(query)}

    def recall(self, platform: str) -> dict[Address, Remembered]:
        """By address, what each stood for when it was last applied."""
        with self.read() as db:
            rows = db.execute(select(memory).where(memory.c.platform == platform)).all()
        return {
            Address.parse(r.address): Remembered(r.fingerprint, json.loads(r.content), r.row_digests)
            for r in rows
        }

    def record(
        self, now: float, platform: str, address: Address, event: str, detail: Mapping[str, Any]
    ) -> None:
        with self.write() as db:
            self._record(db, now, platform, str(address), event, detail)

    def events(self, address: Address | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """What happened, newest first."""
        query = select(history).order_by(history.c.id.desc()).limit(limit)
        if address:
            query = query.where(history.c.address == str(address))
        with self.read() as db:
            rows = db.execute(query).all()
        return [
            {"at": r.at, "platform": r.platform, "address": r.address, "event": r.event}
            | json.loads(r.detail)
            for r in rows
        ]

    @staticmethod
    def _record(
        db: Connection, now: float, platform: str, address: str, event: str, detail: Mapping[str, Any]
    ) -> None:
        db.execute(
            insert(history).values(
                at=now, platform=platform, address=address, event=event, detail=json.dumps(detail)
            )
        )

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One durable transaction. Raises ReconcilerError."""
        try:
            with self._engine.begin() as db:
                yield db
        except IntegrityError:
            raise
        except DatabaseError as error:
            raise database.broken(self._engine, error) from None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection to look with. Raises ReconcilerError."""
        try:
            with self._engine.connect() as db:
                yield db
        except DatabaseError as error:
            raise database.broken(self._engine, error) from None
