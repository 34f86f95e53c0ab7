"""Who is stopped in the middle of writing to the journal: others wait, go on, or say who it is."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from reconciler import database
from reconciler.errors import ReconcilerError
from reconciler.intent import Claim
from reconciler.journal import Journal, claims

WRITER = """\
import sys, time
from pathlib import Path
from reconciler.journal import Journal
with Journal.at(Path(sys.argv[1])).write():
    print("writing", flush=True)
    time.sleep(600)
"""


def test_on_sqlite_a_second_process_says_who_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PRAGMAS", (*database.PRAGMAS[:2], "busy_timeout=50"))
    path = tmp_path / "journal.db"
    journal = Journal.at(path)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
    try:
        assert writer.stdout
        assert b"writing\n" == writer.stdout.readline()

        with pytest.raises(
            ReconcilerError, match=f"process {writer.pid} has not let go of it .* end that process"
        ):
            journal.give_back("here:1:1")
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()  # type: ignore[union-attr]

    assert 0 == journal.give_back("here:1:1")


def test_on_sqlite_a_second_process_waits_while_another_one_writes(tmp_path: Path) -> None:
    assert f"busy_timeout={database.PATIENCE}" in database.PRAGMAS
    with Journal.at(tmp_path / "journal.db").write() as db:
        assert 30_000 == db.exec_driver_sql("PRAGMA busy_timeout").scalar()


def test_on_postgresql_who_sleeps_inside_a_transaction_keeps_nobody_from_a_claim(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "IMPATIENT", database.IMPATIENT.replace("10s", "100ms"))
    asleep, awake = Journal.open(postgres), Journal.open(postgres)
    held = awake.claim("local", "e" * 64, "a:1:1", 100.0)
    assert isinstance(held, Claim)
    awake.release(held)

    with pytest.raises(ReconcilerError, match="idle-in-transaction"), asleep.write() as db:
        db.execute(select(claims).where(claims.c.fingerprint == "e" * 64).with_for_update()).all()
        taken = awake.claim("local", "e" * 64, "b:1:1", 101.0)
        db.execute(select(claims)).all()

    assert isinstance(taken, Claim)
    assert held.token + 1 == taken.token
