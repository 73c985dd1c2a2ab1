"""Whom we must not write to: standing "no"s by keyed hash, which name nobody and outlive erasure.

Owns the suppressions table, and the mark on memberships by which a plan counts them. Refuses: lifting
anything by itself (an import never does), and addresses: callers hash them first.

The mark is set later than the suppression, and only ever by one at a time (`only_writer`): whoever says no
writes that down, notes that their memberships are to be looked at, and never waits for an import that is
just writing those. `heed` does the looking when no import is at its last step. So each suppression was either
seen by the import, or is looked at when what the import wrote can be seen.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from worker.deeds import Deed
from worker.store.audit import append
from worker.store.database import Database, insert_new
from worker.store.schema import memberships, people, suppressions, unheeded

EVERYTHING = "all"
#: The reason that stands for somebody who asked to be forgotten.
ERASURE = "erasure"
#: Addresses looked at in one transaction; a statement takes so many values and no more.
_HEEDED = 1_000
#: PostgreSQL's number for the right to write memberships.
_MEMBERSHIPS = 0x_746F_6373_696E


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
    # In one order, whoever writes: two who bring the same people would else wait for each other (PostgreSQL).
    rows = [
        {
            "address_key": one.address_key,
            "scope": one.scope,
            "reason": one.reason,
            "source": one.source,
            "created_at": one.created_at,
        }
        for one in sorted(entries, key=lambda one: (one.address_key, one.scope))
    ]
    statement = insert_new(suppressions, connection).on_conflict_do_nothing()
    new = connection.execute(statement, rows, execution_options={"preserve_rowcount": True}).rowcount
    connection.execute(sa.insert(unheeded), [{"address_key": one["address_key"]} for one in rows])
    return new


def only_writer(connection: sa.Connection, *, wait: bool) -> bool:
    """Be the only one who writes memberships until the transaction ends; False if somebody else is."""
    if connection.dialect.name == "sqlite":
        return True  # who writes at all is alone
    if not wait:
        free = sa.select(sa.func.pg_try_advisory_xact_lock(_MEMBERSHIPS))
        return bool(connection.execute(free).scalar_one())
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MEMBERSHIPS)))
    return True


def heed(database: Database) -> None:
    """Mark the memberships of whoever said no, or took it back, for plans to count.

    While an import is at its last step nothing is marked, and nothing is forgotten.
    """
    while _is_news(database):
        with database.write() as connection:
            if not only_writer(connection, wait=False):
                return
            _heed_some(connection)


def _is_news(database: Database) -> bool:
    with database.read() as connection:  # most of the time: no write, no lock
        return connection.execute(sa.select(unheeded.c.id).limit(1)).first() is not None


def _heed_some(connection: sa.Connection) -> None:
    some = connection.execute(sa.select(unheeded).order_by(unheeded.c.id).limit(_HEEDED)).all()
    said_no = sa.case((suppressed(people.c.address_key, memberships.c.list_id), 1), else_=0)
    connection.execute(
        sa.update(memberships)
        .where(
            memberships.c.person_id == people.c.id,
            people.c.address_key.in_({row.address_key for row in some}),
            memberships.c.refused != said_no,
        )
        .values(refused=said_no)
    )
    # By their own ids: one with a lower id may be committed after this look.
    connection.execute(sa.delete(unheeded).where(unheeded.c.id.in_([row.id for row in some])))


class Suppressions:
    """The standing "no"s, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def add(self, entries: Sequence[Suppression], deed: Deed | None = None) -> int:
        """Write entries; idempotent. Returns how many were new.

        Args:
            entries: what stands from now on.
            deed: what an operator does, for the audit log; None: it is not an operator who does it.
        """
        with self._database.write() as connection:
            new = add_within(connection, entries)
            if deed is not None:
                append(connection, deed.noting(addresses=len(entries), new=new))
        heed(self._database)
        return new

    def remove(self, address_key: bytes, scope: str | None = None, deed: Deed | None = None) -> int:
        """Lift one person's suppressions (all, or of one scope); returns how many there were.

        If there were any, the deed is written down with their keyed hash.
        """
        condition = suppressions.c.address_key == address_key
        if scope is not None:
            condition &= suppressions.c.scope == scope
        with self._database.write() as connection:
            lifted = connection.execute(sa.delete(suppressions).where(condition)).rowcount
            connection.execute(sa.insert(unheeded).values(address_key=address_key))
            if deed is not None and lifted:
                append(connection, deed.noting(key=address_key.hex(), lifted=lifted))
        heed(self._database)
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
