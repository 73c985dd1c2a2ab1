"""Which key ring this store belongs to, and which of its keys are in use.

Another ring, though readable, would find no suppression. Owns the fingerprint, and the lock under which
hashes are changed. Refuses: to keep a key, and to change to newer ones (`records`).
"""

from dataclasses import dataclass

import sqlalchemy as sa

from worker.errors import WrongUse
from worker.sealing import Keyring
from worker.store.database import Database, insert_new
from worker.store.schema import keyrings

#: PostgreSQL's number for the right to change the keys under which people are held.
_HASHES = 0x_746F_6B65_7973
_ROW = sa.select(keyrings.c.fingerprint, keyrings.c.seal, keyrings.c.lookup)


@dataclass(frozen=True, slots=True)
class Use:
    """The ids of the keys in use."""

    seal: int
    lookup: int


def require(database: Database, ring: Keyring) -> Keyring:
    """Return the ring with the keys in use that this store says; its first use says them.

    Raises:
        WrongUse: it is another store's ring, or an older copy of this one's. Nobody who said no would be
            recognised.
    """
    marks = ring.fingerprints()
    with database.read() as connection:
        known = connection.execute(_ROW).one_or_none()
    if known is None:
        first = {"seal": ring.seal_keys.current, "lookup": ring.lookup_keys.current}
        with database.write() as connection:
            mark = insert_new(keyrings, connection).values(id=1, fingerprint=marks[first["lookup"]], **first)
            connection.execute(mark.on_conflict_do_nothing())
            known = connection.execute(_ROW).one()
    if known.lookup in marks and marks[known.lookup] != known.fingerprint:
        raise WrongUse(
            "this key ring is not the one that this database was made with",
            remedy="Restore var/secret.toml from its copy; with another one no opt-out would be found.",
        )
    return ring.using(known.seal, known.lookup)


def use(connection: sa.Connection) -> Use | None:
    """Return which keys are in use; None where no ring has been used yet."""
    row = connection.execute(_ROW).one_or_none()
    return None if row is None else Use(row.seal, row.lookup)


def put(connection: sa.Connection, to: Use, mark: bytes) -> None:
    """Say which keys are in use from now on.

    Args:
        connection: of who is alone in this (`hold`).
        to: their ids.
        mark: the look-up key's fingerprint.
    """
    connection.execute(sa.update(keyrings).values(seal=to.seal, lookup=to.lookup, fingerprint=mark))


def hold(connection: sa.Connection, *, alone: bool) -> None:
    """Let no hash be changed until the transaction ends; `alone` is for who changes them.

    Whoever reads a hash and writes it into another table holds this from before the look: the hash might else
    be changed between the two, and what was written would lead to nobody.
    """
    if connection.dialect.name == "sqlite":
        return  # who writes at all is alone
    lock = sa.func.pg_advisory_xact_lock if alone else sa.func.pg_advisory_xact_lock_shared
    connection.execute(sa.select(lock(_HASHES)))
