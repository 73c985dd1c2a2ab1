"""Whom we must not write to: standing "no"s by keyed hash, which name nobody and outlive erasure.

Owns the suppressions table, and the mark on memberships by which a plan counts them. Refuses: lifting
anything by itself (an import never does), and addresses: callers hash them first.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from worker.store.database import Database
from worker.store.schema import memberships, people, suppressions

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

EVERYTHING = "all"
#: Entries whose memberships are marked at once.
_HEEDED = 1_000


def list_scope(list_id: int) -> str:
    """Return the scope of one list."""
    return f"list:{list_id}"


def suppressed(
    address_key: sa.ColumnElement[bytes], list_id: sa.ColumnElement[int]
) -> sa.ColumnElement[bool]:
    """Return the SQL condition "this person said no, to everything or to this list"."""
    scopes = (sa.literal(EVERYTHING), sa.literal("list:").concat(sa.cast(list_id, sa.String)))
    return (
        sa.select(sa.literal(1))
        .where(suppressions.c.address_key == address_key, suppressions.c.scope.in_(scopes))
        .exists()
    )


def insert_new(table: sa.Table, connection: sa.Connection) -> "sqlite.Insert | postgresql.Insert":
    """Return this database's INSERT that knows ON CONFLICT."""
    # The other database's dialect is never loaded.
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite  # noqa: PLC0415 - see above

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - see above

    return postgresql.insert(table)


def among(connection: sa.Connection, keys: Collection[bytes]) -> tuple[str, tuple[object, ...]]:
    """Return the condition "is one of these", in the driver's words, and its values.

    SQLAlchemy's own IN names each value in turn, which for thousands of them takes longer than to find them.
    """
    if connection.dialect.name == "sqlite":
        return f"IN ({','.join('?' * len(keys))})", tuple(keys)
    return "= ANY(%b)", (list(keys),)


@dataclass(frozen=True, slots=True)
class Suppression:
    """A standing "do not write"."""

    address_key: bytes
    scope: str  #: "all" or "list:<id>"
    reason: str  #: opt-out, complaint, bounce, operator, imported, erasure
    source: str  #: where it came from: "one-click", "page", "cli", a file's name
    created_at: float  #: UTC seconds


def add_within(connection: sa.Connection, entries: Sequence[Suppression]) -> int:
    """Write entries inside the caller's transaction; those that stand already stay as they are.

    Returns:
        How many were new.
    """
    if not entries:
        return 0
    statement = insert_new(suppressions, connection).on_conflict_do_nothing()
    rows = [
        {
            "address_key": one.address_key,
            "scope": one.scope,
            "reason": one.reason,
            "source": one.source,
            "created_at": one.created_at,
        }
        for one in entries
    ]
    new = connection.execute(statement, rows, execution_options={"preserve_rowcount": True}).rowcount
    for start in range(0, len(entries), _HEEDED):  # a statement takes so many values and no more
        some = {one.address_key for one in entries[start : start + _HEEDED]}
        heed(connection, people.c.address_key.in_(some))
    return new


def heed(connection: sa.Connection, whose: sa.ColumnElement[bool]) -> None:
    """Mark the memberships of these people that a suppression stands against, for plans to count.

    A membership that an import is just writing is left to that import: nobody's "no" waits for it.
    """
    found = (
        sa.select(memberships.c.list_id, memberships.c.person_id)
        .join(people, people.c.id == memberships.c.person_id)
        .where(whose, memberships.c.refused == 0, suppressed(people.c.address_key, memberships.c.list_id))
        .with_for_update(of=memberships, skip_locked=True)
    )
    mine = sa.tuple_(memberships.c.list_id, memberships.c.person_id).in_(found)
    connection.execute(sa.update(memberships).where(mine).values(refused=1))


class Suppressions:
    """The standing "no"s, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def add(self, entries: Sequence[Suppression]) -> int:
        """Write entries; idempotent. Returns how many were new."""
        with self._database.write() as connection:
            return add_within(connection, entries)

    def remove(self, address_key: bytes, scope: str | None = None) -> int:
        """Lift one person's suppressions (all, or of one scope); returns how many there were."""
        condition = suppressions.c.address_key == address_key
        if scope is not None:
            condition &= suppressions.c.scope == scope
        person = sa.select(people.c.id).where(people.c.address_key == address_key)
        with self._database.write() as connection:
            lifted = connection.execute(sa.delete(suppressions).where(condition)).rowcount
            theirs = memberships.c.person_id.in_(person)
            connection.execute(sa.update(memberships).where(theirs).values(refused=0))
            heed(connection, people.c.address_key == address_key)
        return lifted

    def find(self, address_key: bytes) -> Sequence[Suppression]:
        """Return what stands against writing to this person."""
        query = sa.select(suppressions).where(suppressions.c.address_key == address_key)
        with self._database.read() as connection:
            return [Suppression(*row) for row in connection.execute(query)]

    def said_no(self, address_keys: Collection[bytes], scopes: Collection[str]) -> set[bytes]:
        """Return those of the keys that are suppressed in one of the scopes."""
        with self._database.read() as connection:
            clause, values = among(connection, address_keys)
            query = f"SELECT address_key, scope FROM suppressions WHERE address_key {clause}"
            rows = connection.exec_driver_sql(query, values)
            return {address_key for address_key, scope in rows if scope in scopes}

    def all(self) -> Iterator[Suppression]:
        """Yield every suppression, by key; memory stays flat."""
        query = sa.select(suppressions).order_by(suppressions.c.address_key, suppressions.c.scope)
        with self._database.read() as connection:
            for row in connection.execution_options(yield_per=1000).execute(query):
                yield Suppression(*row)
