"""Every row that bears a sealed record or a keyed hash of somebody, renewed under other keys.

Owns what one step of a rotation changes, in one transaction for some people: their record and its shape, the
hash that they are held under, and the same hash on their deliveries and on their "no"s. Refuses: keys (the
caller opens, seals and hashes), and to wait for a row that a sender has: that person's turn comes later.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from worker.bars import Bar
from worker.deeds import Deed
from worker.errors import Refused
from worker.store import bars, keyrings
from worker.store.audit import append
from worker.store.database import Database
from worker.store.keyrings import Use
from worker.store.schema import campaigns, deliveries, invited, memberships, people, suppressions, unheeded
from worker.store.staging import other_keys
from worker.store.suppressions import only_writer, rename_within


@dataclass(frozen=True, slots=True)
class Renewed:
    """One person under the keys of today."""

    id: int
    key: bytes  #: the hash of their address
    others: Sequence[bytes]  #: the hashes of it under every other look-up key
    sealed: bytes | None  #: None: it is under today's key already
    moves: bool  #: whether they are held under another hash so far
    shape: int  #: see the schema's memberships
    rules: Sequence[int]  #: ids of the never-mail rules that the shape stands for


@dataclass(frozen=True, slots=True)
class Step:
    """What one step came to."""

    last: int | None  #: the id of the last person looked at; None: there is nobody left
    renewed: int = 0
    busy: int = 0  #: left for later: somebody has a mail of theirs in hand
    unreadable: int = 0  #: left for good: their record does not open
    moved: int = 0  #: suppressions found under another hash


@dataclass(frozen=True, slots=True)
class Standing:
    """How much is under each key, by its id."""

    sealed: dict[int, int]  #: people's records
    hashed: dict[int, int]  #: people's hashes
    refusals: dict[int, int]  #: suppressions


#: Makes somebody's row anew by the never-mail rules, its id, hash and record; None when that does not open.
Renew = Callable[[Sequence[Bar], int, bytes, bytes], Renewed | None]


class Records:
    """The rows that keys have to do with, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def use(self) -> Use | None:
        """Return which keys are in use."""
        with self._database.read() as connection:
            return keyrings.use(connection)

    def change(self, to: Use, mark: bytes, deed: Deed) -> bool:
        """Use these keys from now on, on every machine; False when they are in use already.

        Args:
            to: the ids of the keys.
            mark: the look-up key's fingerprint.
            deed: written down in the same transaction.
        """
        with self._database.write() as connection:
            only_writer(connection, wait=True)
            keyrings.hold(connection, alone=True)
            if keyrings.use(connection) == to:
                return False
            keyrings.put(connection, to, mark)
            append(connection, deed)
        return True

    def note(self, deed: Deed) -> None:
        """Write down that a rotation is at its end."""
        with self._database.write() as connection:
            append(connection, deed)

    def left(self, to: Use) -> int:
        """Return how many people have anything under another key."""
        with self._database.read() as connection:
            query = sa.select(sa.func.count()).select_from(people).where(_is_other(to))
            return connection.execute(query).scalar_one()

    def standing(self) -> Standing:
        """Count what is under each key."""
        with self._database.read() as connection:
            return Standing(
                _by_key(connection, people.c.sealed),
                _by_key(connection, people.c.address_key),
                _by_key(connection, suppressions.c.address_key),
            )

    def renew(self, to: Use, renew: Renew, after: int, size: int, *, everybody: bool = False) -> Step:
        """Renew the next `size` people after that id who have anything under another key.

        Args:
            to: the keys of today.
            renew: makes a row anew.
            after: the id of the last person looked at.
            size: how many at most.
            everybody: also those who have not, for something may stand against them under another hash.
        """
        with self._database.write() as connection:
            if connection.dialect.name == "sqlite":  # else what was stays readable in the file's gaps
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            # After an import's last step or before it, and after a slice of a launch or before it: they carry
            # hashes from one table into another.
            only_writer(connection, wait=True)
            keyrings.hold(connection, alone=True)
            if keyrings.use(connection) != to:
                raise Refused("the database uses other keys by now", remedy="Look at them: tocsin keys check")
            query = sa.select(people.c.id, people.c.address_key, people.c.sealed).where(people.c.id > after)
            query = query.order_by(people.c.id).limit(size)
            rows = connection.execute(query if everybody else query.where(_is_other(to))).all()
            if not rows:
                return Step(None)
            rules = bars.standing(connection)
            made = [renew(rules, row.id, row.address_key, row.sealed) for row in rows]
            found = [one for one in made if one is not None]
            busy = _rename_deliveries(connection, found)
            done = [one for one in found if one.id not in busy]
            changed = [one for one in done if one.moves or one.sealed is not None]
            bars.know_within(connection, [(one.shape, rule) for one in changed for rule in one.rules])
            _write(connection, changed)
            names = {other: one.key for one in done for other in one.others}
            moved = rename_within(connection, names)
            _rename_invited(connection, names)
            _rename_unheeded(connection, names)
        return Step(rows[-1].id, len(changed), len(busy), len(rows) - len(found), moved)


def _is_other(to: Use) -> sa.ColumnElement[bool]:
    """Return the condition "their record, or the hash they are held under, is under another key"."""
    lower, higher = other_keys(people.c.address_key, to.lookup)
    return sa.or_(lower, higher, _key_of(people.c.sealed) != bytes((to.seal,)))


def _key_of(column: sa.ColumnElement[bytes]) -> sa.ColumnElement[bytes]:
    """Return the first byte, which says by which key the rest was made."""
    return sa.func.substr(column, 1, 1, type_=sa.LargeBinary())


def _by_key(connection: sa.Connection, column: sa.ColumnElement[bytes]) -> dict[int, int]:
    key = _key_of(column).label("key")
    rows = connection.execute(sa.select(key, sa.func.count()).group_by(key)).all()
    return {bytes(row[0])[0]: row[1] for row in rows if row[0]}


def _rename_deliveries(connection: sa.Connection, made: Sequence[Renewed]) -> set[int]:
    """Put the deliveries of these people under their hash of today; return who is left as they were.

    Never waits: a sender that has some of these rows wants others that we have.
    """
    whose = {other: one for one in made for other in one.others}
    if not whose:
        return set()
    query = sa.select(deliveries.c.id, deliveries.c.address_key).where(
        # By campaign as well: that is the index there is.
        deliveries.c.campaign_id.in_(sa.select(campaigns.c.id)),
        deliveries.c.address_key.in_(list(whose)),
    )
    every = connection.execute(query).all()
    free = set()
    if every:
        mine = sa.select(deliveries.c.id).where(deliveries.c.id.in_([row.id for row in every]))
        mine = mine.order_by(deliveries.c.id).with_for_update(skip_locked=True)
        free = set(connection.execute(mine).scalars())
    busy = {whose[row.address_key].id for row in every if row.id not in free}
    names = [
        {"row": row.id, "key": whose[row.address_key].key}
        for row in every
        if whose[row.address_key].id not in busy
    ]
    if names:
        change = sa.update(deliveries).where(deliveries.c.id == sa.bindparam("row"))
        connection.execute(change.values(address_key=sa.bindparam("key")), names)
    return busy


def _write(connection: sa.Connection, done: Sequence[Renewed]) -> None:
    """Write people's hashes, and the records and shapes that are new."""
    if not done:
        return
    theirs = people.c.id == sa.bindparam("person")
    rows = [{"person": one.id, "key": one.key, "shape": one.shape, "record": one.sealed} for one in done]
    same = sa.update(people).where(theirs).values(address_key=sa.bindparam("key"))
    connection.execute(same, [{"person": row["person"], "key": row["key"]} for row in rows])
    sealed = [{"person": row["person"], "record": row["record"]} for row in rows if row["record"] is not None]
    if sealed:
        connection.execute(sa.update(people).where(theirs).values(sealed=sa.bindparam("record")), sealed)
    shape = sa.update(memberships).where(memberships.c.person_id == sa.bindparam("person"))
    connection.execute(
        shape.values(shape=sa.bindparam("shape_now")),
        [{"person": row["person"], "shape_now": row["shape"]} for row in rows],
    )


def _rename_invited(connection: sa.Connection, names: dict[bytes, bytes]) -> None:
    """Let whoever was invited once be found as such under the hash of today."""
    for row in connection.execute(sa.select(invited).where(invited.c.address_key.in_(list(names)))).all():
        mine, key = invited.c.id == row.id, names[row.address_key]
        again = invited.c.list_id == row.list_id, invited.c.address_key == key
        if connection.execute(sa.select(invited.c.id).where(*again)).first() is None:
            connection.execute(sa.update(invited).where(mine).values(address_key=key))


def _rename_unheeded(connection: sa.Connection, names: dict[bytes, bytes]) -> None:
    """Let whoever was to be looked at be looked at under the hash of today."""
    waiting = connection.execute(sa.select(unheeded).where(unheeded.c.address_key.in_(list(names)))).all()
    if waiting:
        change = sa.update(unheeded).where(unheeded.c.id == sa.bindparam("row"))
        change = change.values(address_key=sa.bindparam("key"))
        connection.execute(change, [{"row": row.id, "key": names[row.address_key]} for row in waiting])
