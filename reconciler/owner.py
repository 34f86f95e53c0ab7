"""
Whose journal it is. What is written there is found by platform and address, so one journal serves one project.

A journal has a name of its own too: numbers begin anew in a new one, and a platform that remembers a request
by its key must not take the first of the new journal for the first of the old.
"""

import secrets

from sqlalchemy import Column, Integer, String, Table, insert, select
from sqlalchemy.exc import IntegrityError

from reconciler.errors import ReconcilerError
from reconciler.journal import Journal, metadata

owner = Table(
    "owner", metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("series", String(16), nullable=False),
    Column("project", String(200), nullable=False),
)  # fmt: skip


def series(journal: Journal, project: str, *, shared: bool) -> str:
    """The journal's own name. Raises ReconcilerError where a `shared` one belongs to another project."""
    journal.keep(owner)
    try:
        with journal.write() as db:
            if db.execute(select(owner.c.id)).first() is None:
                db.execute(insert(owner).values(id=1, series=secrets.token_hex(4), project=project))
    except IntegrityError:
        pass  # somebody else was first
    with journal.read() as db:
        row = db.execute(select(owner)).one()
    if shared and row.project != project:
        what = f"the journal belongs to the project {row.project}"
        raise ReconcilerError(f"{what}; give {project} a database of its own, or another schema")
    return str(row.series)
