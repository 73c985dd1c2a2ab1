"""Whom we must not write to: standing "no"s by keyed hash, which name nobody and outlive erasure.

Owns the suppressions table. Refuses: lifting anything by itself (an import never does), and addresses:
callers hash them first.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from worker.store.database import Database
from worker.store.schema import suppressions

EVERYTHING = "all"


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
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


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
    return connection.execute(statement, rows, execution_options={"preserve_rowcount": True}).rowcount


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
        with self._database.write() as connection:
            return connection.execute(sa.delete(suppressions).where(condition)).rowcount

    def find(self, address_key: bytes) -> Sequence[Suppression]:
        """Return what stands against writing to this person."""
        query = sa.select(suppressions).where(suppressions.c.address_key == address_key)
        with self._database.read() as connection:
            return [Suppression(*row) for row in connection.execute(query)]

    def said_no(self, address_keys: Collection[bytes], scopes: Collection[str]) -> set[bytes]:
        """Return those of the keys that are suppressed in one of the scopes."""
        query = sa.select(suppressions.c.address_key).where(
            suppressions.c.address_key.in_(address_keys), suppressions.c.scope.in_(scopes)
        )
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def all(self) -> Iterator[Suppression]:
        """Yield every suppression, by key; memory stays flat."""
        query = sa.select(suppressions).order_by(suppressions.c.address_key, suppressions.c.scope)
        with self._database.read() as connection:
            for row in connection.execution_options(yield_per=1000).execute(query):
                yield Suppression(*row)
