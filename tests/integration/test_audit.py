"""The audit log in the store: written with the deed or not at all, never changed, one chain for all."""

import subprocess
import sys

import pytest
import sqlalchemy as sa

from worker.deeds import TIMER, Action, Deed
from worker.deliveries import State
from worker.store.audit import CUT, Audit, append
from worker.store.database import Database
from worker.store.docket import Docket
from worker.store.schema import audit, counters, suppressions
from worker.store.suppressions import EVERYTHING, Act, Suppression, Suppressions

_PAUSE = Deed(1.5, "alice", Action.PAUSE, "one-1", {"note": "naïve ✓"})
#: Appends on its own, as another process would.
_WRITER = """
import sys
from worker.deeds import TIMER, Action, Deed
from worker.store.audit import Audit
from worker.store.database import Database
database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    Audit(database).note(Deed(float(number), sys.argv[2], Action.PAUSE, "one-1", {"number": number}))
"""


@pytest.fixture
def log(database: Database) -> Audit:
    """A log with three entries."""
    found = Audit(database)
    for _ in range(3):
        found.note(_PAUSE)
    return found


def test_what_is_appended_is_read_back_and_holds(log: Audit) -> None:
    """Entries come in order, as they were written, from a moment on if asked."""
    log.note(Deed(9.0, "bob", Action.RESUME, "one-1"))
    assert [(one.number, one.operator) for one in log.entries()] == [
        *((number, "alice") for number in (1, 2, 3)),
        (4, "bob"),
    ]
    assert [one.number for one in log.entries(since=9.0)] == [4]
    assert [one.facts for one in log.entries()] == [{"note": "naïve ✓"}] * 3 + [{}]
    verdict = log.verify()
    assert (verdict.holds, verdict.number) == (True, 4)
    assert log.verify(verdict.head).holds


#: Ways to change or remove an entry, on both databases and on either alone.
_ATTACKS = (
    "UPDATE audit SET operator = 'bob' WHERE id = 2",
    "UPDATE audit SET hash = hash",
    "DELETE FROM audit WHERE id = 2",
    "DELETE FROM audit",
)
_ATTACKS_ON = {
    "sqlite": (
        "INSERT OR REPLACE INTO audit SELECT * FROM audit",
        "INSERT INTO audit SELECT * FROM audit WHERE true ON CONFLICT (id) DO UPDATE SET operator = 'bob'",
    ),
    "postgresql": (
        "TRUNCATE audit",
        "INSERT INTO audit SELECT * FROM audit ON CONFLICT (id) DO UPDATE SET operator = 'bob'",
    ),
}


def test_the_database_refuses_to_change_or_remove_an_entry(database: Database, log: Audit) -> None:
    """By a trigger, whoever asks and however."""
    before = list(log.entries())
    for statement in (*_ATTACKS, *_ATTACKS_ON[database.url.get_backend_name()]):
        with database.write() as connection, pytest.raises(sa.exc.DBAPIError, match="append-only"):
            connection.exec_driver_sql(statement)
        assert list(log.entries()) == before, statement


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("UPDATE audit SET operator = 'bob' WHERE id = 2", 2),
        ("DELETE FROM audit WHERE id = 1", 1),
        ("DELETE FROM audit WHERE id = 3", 3),
        ("DELETE FROM audit", 1),
    ],
)
def test_who_gets_past_the_trigger_is_found_and_deeds_go_on(
    database: Database, log: Audit, statement: str, broken: int
) -> None:
    """The owner of a database can switch a trigger off; the log tells the first entry, and takes new ones."""
    with database.write() as connection:
        names = "audit_no_update" if database.is_sqlite else "audit_append_only", "audit_no_delete"
        for name in names:
            connection.exec_driver_sql(f"DROP TRIGGER {name}{'' if database.is_sqlite else ' ON audit'}")
        connection.exec_driver_sql(statement)
    assert log.verify().broken == broken
    log.note(_PAUSE)
    assert log.verify().broken == broken


def test_a_deed_and_its_entry_are_one_transaction(database: Database, log: Audit) -> None:
    """What is rolled back leaves no entry and no gap."""
    with pytest.raises(sa.exc.IntegrityError), database.write() as connection:  # noqa: PT012 - one transaction
        append(connection, _PAUSE)
        connection.execute(sa.insert(counters).values(name="audit", value=1))
    log.note(_PAUSE)
    assert [one.number for one in log.entries()] == [1, 2, 3, 4]
    assert log.verify().holds


def test_a_suppression_without_its_entry_is_not_written(database: Database, log: Audit) -> None:
    """The deed is undone when the log cannot take it."""
    with database.write() as connection:  # the next number is taken: as if the counter had been set back
        connection.execute(sa.update(counters).where(counters.c.name == "audit").values(value=2))
    entry = Suppression(b"k" * 16, EVERYTHING, "operator", "cli", 1.0)
    with pytest.raises(sa.exc.IntegrityError):
        Suppressions(database).add([entry], Deed(1.0, "alice", Action.SUPPRESS_ADD, "all"))
    with database.read() as connection:
        assert connection.execute(sa.select(suppressions)).all() == []
    assert not log.verify().holds


def test_what_changes_nothing_leaves_no_entry(database: Database, log: Audit) -> None:
    """Nothing lifted, nothing tried again, nothing accepted: nobody did anything."""
    lifting = Deed(1.0, "alice", Action.SUPPRESS_LIFT)
    Suppressions(database).lift([b"k" * 16], None, Act.OPERATOR, lifting)
    Docket(database).accept(1, 1.0, Deed(1.0, "alice", Action.ACCEPT))
    Docket(database).reopen(1, [State.BOUNCED], 1.0, Deed(1.0, "alice", Action.RETRY))
    assert len(list(log.entries())) == 3


def test_two_processes_that_append_at_once_make_one_chain(database: Database, database_url: str) -> None:
    """Neither waits in vain, no number is used twice, no two entries follow the same one."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, database_url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("alice", "bob")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n", timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0]
    verdict = Audit(database).verify()
    assert (verdict.holds, verdict.number) == (True, 80)
    with database.read() as connection:
        previous = connection.execute(sa.select(sa.func.count(audit.c.previous.distinct()))).scalar_one()
    assert previous == 80


def test_what_is_old_may_go_and_the_rest_says_so(database: Database, log: Audit) -> None:
    """Only from the beginning, only what is older, once; the triggers guard what is left as before."""
    timer = Deed(9.0, TIMER, Action.RETENTION, "audit")
    log.note(Deed(5.0, "bob", Action.RESUME, "one-1"))
    log.note(_PAUSE)  # of a clock that was set back: it stays, for the one before it does
    assert log.trim(1.0, timer) == 0
    kept = log.verify().head
    assert log.trim(5.0, timer) == 3
    assert log.trim(5.0, timer) == 0
    assert [(one.number, one.operator) for one in log.entries()] == [(4, "bob"), (5, "alice"), (6, TIMER)]
    assert (log.verify(kept).holds, log.verify().first) == (True, 4)
    for statement in _ATTACKS[1::2]:
        with database.write() as connection, pytest.raises(sa.exc.DBAPIError, match="append-only"):
            connection.exec_driver_sql(statement)
    with database.write() as connection:  # further than the entry says
        connection.execute(sa.update(counters).where(counters.c.name == CUT).values(value=4))
        connection.execute(sa.delete(audit).where(audit.c.id == 4))
    assert log.verify().broken == 1
