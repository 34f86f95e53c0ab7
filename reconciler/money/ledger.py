"""
What was paid for, and what may still have to be: one entry for every intent to make something that costs.

An entry is written in the transaction that opens its intent, so there is never one without the other. It
is reserved until its object was seen finished, and is then settled with what it did cost. An intent that
was definitely refused made nothing, and its entry counts for nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.sql import ColumnElement

from reconciler.cost import Estimate, Range
from reconciler.errors import Refused
from reconciler.intent import Intent
from reconciler.journal import Journal, intents, metadata
from reconciler.kinds.project import BudgetSpec
from reconciler.money import budgets
from reconciler.money.expense import Actual
from reconciler.money.pace import Like, Pace
from reconciler.money.statement import Line
from reconciler.money.work import Work

spending = Table(
    "spending", metadata,
    Column("intent", Integer, primary_key=True, autoincrement=False),
    Column("project", String(200), nullable=False, index=True),
    Column("address", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("work", Text, nullable=False),  # what it comes to
    Column("at", Float, nullable=False),  # unix seconds, when it was reserved
    Column("usd_low", Float),
    Column("usd_high", Float),  # what is reserved; null is unknown
    Column("seconds_low", Float),
    Column("seconds_high", Float),
    Column("why", Text, nullable=False),
    Column("settled_at", Float, index=True),
    Column("usd", Float),
    Column("seconds", Float),
    Column("size", Float),
    Column("answered", Float),
)  # fmt: skip
REMEMBERED = 500  # finished things from which times are learnt


Reserve = Callable[[Connection, Intent], None]


@dataclass(frozen=True)
class Bill:
    """What something will cost, and the budgets that have to have room for it."""

    project: str
    labels: Mapping[str, str]
    work: Work
    estimate: Estimate
    budgets: Sequence[BudgetSpec] = ()

    def reserve(self, db: Connection, intent: Intent) -> None:
        """
        Write the entry, within the transaction that opens the intent. Raises Refused.

        An intent that is asked for again has its entry already.
        """
        if db.execute(select(spending.c.intent).where(spending.c.intent == intent.id)).first():
            return
        _alone(db, self.project)
        if self.budgets:
            known = [_line(row).entry for row in db.execute(_live(spending.c.project == self.project))]
            if why := budgets.refusal(self.budgets, known, self.labels, self.estimate, intent.opened_at):
                raise Refused(why)
        usd, seconds = self.estimate.usd or (None, None), self.estimate.seconds or (None, None)
        db.execute(
            insert(spending).values(
                intent=intent.id, project=self.project, address=intent.address, at=intent.opened_at,
                labels=json.dumps(dict(self.labels)), work=json.dumps(_written(self.work)),
                usd_low=usd[0], usd_high=usd[1], seconds_low=seconds[0], seconds_high=seconds[1],
                why=self.estimate.why,
            )
        )  # fmt: skip


class Ledger:
    """The entries in a journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def keep(self) -> "Ledger":
        """The same to write to. Raises ReconcilerError."""
        self._journal.keep(spending)
        return self

    def lines(self, project: str) -> list[Line]:
        """Everything a project asked for, oldest first; nothing where nothing was ever written."""
        with self._journal.read() as db:
            if not inspect(db).has_table(spending.name):
                return []
            rows = db.execute(_live(spending.c.project == project).order_by(spending.c.intent)).all()
        return [_line(row) for row in rows]

    def paces(self, platform: str) -> list[Pace]:
        """What finished on a platform, and how long it took."""
        with self._journal.read() as db:
            if not inspect(db).has_table(spending.name):
                return []
            mine = (intents.c.platform == platform) & (spending.c.size > 0)
            newest = _live(mine).order_by(spending.c.settled_at.desc()).limit(REMEMBERED)
            rows = db.execute(newest).all()
        return [Pace(_read(r.work).like, r.size, r.seconds, r.answered) for r in rows]

    def unsettled(self, project: str, platform: str) -> dict[str, tuple[Intent, Work]]:
        """By object, what a project made and what is not known to be finished."""
        with self._journal.read() as db:
            open_ = (spending.c.project == project) & (intents.c.platform == platform)
            open_ &= spending.c.settled_at.is_(None)
            rows = db.execute(_live(open_ & intents.c.object_id.is_not(None))).all()
        return {
            r.object_id: (Intent(r.intent, r.platform, r.fingerprint, r.address, r.at), _read(r.work))
            for r in rows
        }

    def settle(self, intent: Intent, actual: Actual, now: float) -> None:
        """Write down what it did cost; what was settled before stays as it is."""
        values = {k: v for k, v in actual._asdict().items() if k != "why"} | {"settled_at": now}
        with self._journal.write() as db:
            mine = (spending.c.intent == intent.id) & spending.c.settled_at.is_(None)
            why = {"why": actual.why} if actual.why else {}
            db.execute(update(spending).where(mine).values(values | why))


def _alone(db: Connection, project: str) -> None:
    """Let nobody else reserve for a project until this transaction ends; SQLite's let nobody else write anyhow."""
    if db.dialect.name == "postgresql":
        db.execute(text("select pg_advisory_xact_lock(hashtext('reconciler.spending'), hashtext(:project))"),
                   {"project": project})  # fmt: skip


def _live(where: ColumnElement[bool]) -> Any:
    """Entries whose intents may have made something."""
    both = select(spending, intents.c.platform, intents.c.fingerprint, intents.c.object_id)
    made = intents.c.closed_at.is_(None) | (intents.c.outcome == "made")
    return both.join(intents, intents.c.id == spending.c.intent).where(made, where)


def _line(row: Any) -> Line:
    usd = None if row.usd_high is None else Range(row.usd_low, row.usd_high)
    seconds = None if row.seconds_high is None else Range(row.seconds_low, row.seconds_high)
    return Line(
        row.platform, row.address, row.object_id, json.loads(row.labels), row.at,
        Estimate(usd, seconds, row.why), row.settled_at, row.usd, row.seconds, row.why,
    )  # fmt: skip


def _written(work: Work) -> dict[str, Any]:
    """What settling needs to know of it."""
    return {"like": list(work.like), "size": list(work.size), "trains": work.trains, "trained": work.trained}


def _read(text: str) -> Work:
    said = json.loads(text)
    trained = Range(*said["trained"]) if said["trained"] else None
    return Work(Like(*said["like"]), Range(*said["size"]), said["trains"], trained)
