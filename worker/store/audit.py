"""The audit log: who did what when to what, each entry chained to the one before.

Owns the audit table: appending, reading in order, and cutting off the beginning when its time is over, which
is an entry too. Refuses: to change an entry or remove another (so does the database itself, by triggers), and
to forge one: the chain's rules are `deeds`'.
"""

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import sqlalchemy as sa

from worker.deeds import BEGINNING, Deed, Entry, Verdict, link, verify
from worker.store.counters import allocate
from worker.store.database import Database, insert_new
from worker.store.schema import audit, counters

#: The counter that numbers the entries, and whose row lets one writer at a time to the chain's end.
COUNTER = "audit"
#: The counter that says up to which entry the triggers let the log be cut off.
CUT = "audit cut"


def append(connection: sa.Connection, deed: Deed) -> None:
    """Write a deed at the chain's end inside the caller's transaction, as the last thing it does.

    From here to the end of that transaction every other writer of the log waits: so two never follow the same
    entry, and nobody who holds this lock waits for another.
    """
    number = allocate(connection, COUNTER, 1)
    # The last there is, whatever its number: where somebody has removed some, deeds are still written down,
    # and the gap tells.
    last = sa.select(audit.c.hash).order_by(audit.c.id.desc()).limit(1)
    previous = connection.execute(last).scalar_one_or_none()
    entry = link(deed, number, previous or BEGINNING)
    connection.execute(
        sa.insert(audit).values(
            id=entry.number,
            at=entry.at,
            operator=entry.operator,
            action=entry.action,
            subject=entry.subject,
            details=entry.details,
            previous=entry.previous,
            hash=entry.hash,
        )
    )


class Audit:
    """The log, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def note(self, deed: Deed) -> None:
        """Write down a deed that has no transaction of its own in the store."""
        with self._database.write() as connection:
            append(connection, deed)

    def oldest(self) -> float | None:
        """Return when the first entry that is there was written."""
        with self._database.read() as connection:
            first = sa.select(audit.c.at).order_by(audit.c.id).limit(1)
            at: float | None = connection.execute(first).scalar_one_or_none()
            return at

    def trim(self, before: float, deed: Deed) -> int:
        """Cut off what was written before then, up to the first entry that was not; return how many entries.

        The deed is written first, with the number and the hash of the last that goes: so the rest still
        holds, and says who cut it.
        """
        oldest = self.oldest()
        if oldest is None or oldest >= before:  # most of the time: no write, no lock
            return 0
        with self._database.write() as connection:
            stays = sa.select(sa.func.min(audit.c.id)).where(audit.c.at >= before).scalar_subquery()
            going = sa.select(audit.c.id, audit.c.hash).where(sa.or_(stays.is_(None), audit.c.id < stays))
            last = connection.execute(going.order_by(audit.c.id.desc()).limit(1)).one_or_none()
            if last is None:
                return 0
            append(connection, deed.noting(cut=last.id, head=last.hash))
            allowed = insert_new(counters, connection).values(name=CUT, value=last.id)
            again = {"value": allowed.excluded.value}
            connection.execute(allowed.on_conflict_do_update(index_elements=["name"], set_=again))
            return connection.execute(sa.delete(audit).where(audit.c.id <= last.id)).rowcount

    def entries(self, since: float = 0.0) -> Iterator[Entry]:
        """Yield the entries written since then, the oldest first; memory stays flat."""
        with self._database.read() as connection:
            yield from _rows(connection, sa.select(audit).where(audit.c.at >= since))

    def verify(self, kept: str = "") -> Verdict:
        """Look through the whole chain, in one view of the store.

        Args:
            kept: the hash of a head that an operator has kept; "" = none.
        """
        written = sa.select(counters.c.value).where(counters.c.name == COUNTER)
        with self._database.read() as connection:
            if not self._database.is_sqlite:
                # One view for both statements: what is appended between them would look like too many.
                connection.execution_options(isolation_level="REPEATABLE READ")
            counted = connection.execute(written).scalar_one_or_none() or 0
            # Closed: a look that ends at a broken entry has not read them all.
            with contextlib.closing(_rows(connection, sa.select(audit))) as rows:
                return verify(rows, counted=counted, kept=kept)


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> Generator[Entry]:
    with connection.execution_options(yield_per=1000).execute(query.order_by(audit.c.id)) as rows:
        for row in rows:
            yield Entry(*row)
