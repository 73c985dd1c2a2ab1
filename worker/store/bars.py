"""The never-mail rules as rows, and the shapes by which plans and launches know whom they hold for.

Owns the tables of rules and of barred shapes. A rule is asked of opened records where one is open anyway (an
import, a correction, a claim); for plans and launches, which open none, the shape of whoever is under a rule
says so. Refuses: keys and records (barring opens them).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from worker.bars import Bar
from worker.deeds import Deed
from worker.errors import Refused
from worker.store.audit import append
from worker.store.counters import allocate
from worker.store.database import Database, insert_new
from worker.store.schema import barred, counters, memberships, people, rules
from worker.store.suppressions import only_writer

#: The counter that moves with each change of the rules: who has read them earlier must read them again.
_COUNTER = "rules"


class Marked(NamedTuple):
    """Somebody who is under rules, and the shape that says so."""

    person_id: int
    version: int  #: of the record that was looked at
    shape: int
    under: Sequence[int]  #: ids of rules


class Record(NamedTuple):
    """A person's sealed record as it stands."""

    id: int
    sealed: bytes
    version: int


class Book(NamedTuple):
    """The rules at one moment."""

    bars: tuple[Bar, ...]
    edition: int  #: changes with them


def standing(connection: sa.Connection) -> tuple[Bar, ...]:
    """Return the rules in force, the oldest first."""
    columns = rules.c.id, rules.c.name, rules.c.kind, rules.c.pattern
    return tuple(Bar(*row) for row in connection.execute(sa.select(*columns).order_by(rules.c.id)))


def book(connection: sa.Connection) -> Book:
    """Return the rules in force and what changes with them."""
    value = connection.execute(sa.select(counters.c.value).where(counters.c.name == _COUNTER)).scalar()
    return Book(standing(connection), value or 0)


def require_same(connection: sa.Connection, edition: int) -> None:
    """Refuse to write by rules that are not in force any more."""
    if book(connection).edition != edition:
        raise Refused(
            "never-mail rules or hashed suppressions have changed meanwhile; nothing was written",
            remedy="Try again.",
        )


def barred_shapes() -> sa.Subquery:
    """Return shape and reason of every barred shape, for a join; one row each."""
    least = sa.select(barred.c.shape, sa.func.min(barred.c.rule_id).label("rule_id"))
    least_of = least.group_by(barred.c.shape).subquery()
    reason = sa.literal("rule ").concat(rules.c.name).label("reason")
    return sa.select(least_of.c.shape, reason).join(rules, rules.c.id == least_of.c.rule_id).subquery("bars")


def reasons(connection: sa.Connection) -> Mapping[int, str]:
    """Return why nobody of a barred shape is written to, by shape; Refused before all are counted."""
    query = sa.select(rules.c.name).where(rules.c.counted == 0).limit(1)
    if (name := connection.execute(query).scalar_one_or_none()) is not None:
        raise Refused(
            f"it is not yet known whom the never-mail rule {name} holds for",
            remedy="Wait for `tocsin suppress rules add`, or run it again if it was stopped.",
        )
    bars = barred_shapes()
    return {row.shape: row.reason for row in connection.execute(sa.select(bars))}


class Bars:
    """The rules, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def book(self) -> Book:
        """Return the rules in force and what changes with them."""
        with self._database.read() as connection:
            return book(connection)

    def add(self, bar: Bar, now: float, deed: Deed) -> Bar:
        """Put a rule in force for every import and claim from here on; one of the same name and words stays.

        Plans know of it when all are counted (`mark`, then `counted`).
        """
        with self._database.write() as connection:
            only_writer(connection, wait=True)  # after an import's last step, or before it
            found = next((one for one in standing(connection) if one.name == bar.name), None)
            if found is not None:
                if (found.kind, found.pattern) != (bar.kind, bar.pattern):
                    raise Refused(
                        f"there is another rule called {bar.name}",
                        remedy="See: tocsin suppress rules list. Remove that one first, or choose a name.",
                    )
                return found
            values = {"name": bar.name, "kind": bar.kind, "pattern": bar.pattern, "created_at": now}
            made = sa.insert(rules).values(**values, counted=0).returning(rules.c.id)
            number = connection.execute(made).scalar_one()
            allocate(connection, _COUNTER, 1)
            append(connection, deed)
        return Bar(number, bar.name, bar.kind, bar.pattern)

    def remove(self, name: str, deed: Deed) -> bool:
        """Take a rule out of force; False where there is none of that name."""
        with self._database.write() as connection:
            only_writer(connection, wait=True)
            number = connection.execute(sa.select(rules.c.id).where(rules.c.name == name)).scalar()
            if number is None:
                return False
            connection.execute(sa.delete(barred).where(barred.c.rule_id == number))
            connection.execute(sa.delete(rules).where(rules.c.id == number))
            allocate(connection, _COUNTER, 1)
            append(connection, deed)
        return True

    def records(self, size: int) -> Iterator[Sequence[Record]]:
        """Yield everybody's record, so many at a time, in the order of their ids."""
        after = -1
        query = sa.select(people.c.id, people.c.sealed, people.c.version).order_by(people.c.id).limit(size)
        while True:
            with self._database.read() as connection:
                rows = [Record(*row) for row in connection.execute(query.where(people.c.id > after))]
            if not rows:
                return
            yield rows
            after = rows[-1].id

    def again(self, ids: Sequence[int]) -> Sequence[Record]:
        """Return these people's records as they stand now."""
        query = sa.select(people.c.id, people.c.sealed, people.c.version).where(people.c.id.in_(ids))
        with self._database.read() as connection:
            return [Record(*row) for row in connection.execute(query)]

    def know(self, shape: int, under: Sequence[int]) -> None:
        """Write down that people of this shape are under these rules; may be repeated."""
        with self._database.write() as connection:
            know_within(connection, [(shape, number) for number in under])

    def mark(self, found: Sequence[Marked]) -> Sequence[int]:
        """Give people the shapes that say they are under rules; return the ids of who has changed since."""
        missed = []
        with self._database.write() as connection:
            only_writer(connection, wait=True)
            in_force = {bar.id for bar in standing(connection)}
            pairs = {(one.shape, number) for one in found for number in one.under if number in in_force}
            know_within(connection, sorted(pairs))
            for one in found:
                same = people.c.id == one.person_id, people.c.version == one.version
                # A version more: who corrects this record now has not seen the rule (dossiers.replace).
                change = sa.update(people).where(*same).values(version=people.c.version + 1)
                if not connection.execute(change).rowcount:
                    missed.append(one.person_id)
                    continue
                theirs = memberships.c.person_id == one.person_id
                connection.execute(sa.update(memberships).where(theirs).values(shape=one.shape))
        return missed

    def counted(self, number: int) -> None:
        """Write down that everybody has been looked at for a rule."""
        with self._database.write() as connection:
            connection.execute(sa.update(rules).where(rules.c.id == number).values(counted=1))

    def met(self, kinds: Collection[str]) -> Collection[str]:
        """Return those kinds of foreign hashes that suppressions have come in by."""
        names = {f"hash {kind}": kind for kind in kinds}
        query = sa.select(counters.c.name).where(counters.c.name.in_(names))
        with self._database.read() as connection:
            return sorted(names[name] for name in connection.execute(query).scalars())

    def meet(self, kinds: Collection[str]) -> None:
        """Write down that suppressions come in by these; imports under way are refused (require_same)."""
        with self._database.write() as connection:
            only_writer(connection, wait=True)
            for name in sorted(f"hash {kind}" for kind in kinds):
                allocate(connection, name, 1)
            allocate(connection, _COUNTER, 1)

    def uncounted(self) -> set[int]:
        """Return the ids of rules for which not everybody has been looked at."""
        with self._database.read() as connection:
            return set(connection.execute(sa.select(rules.c.id).where(rules.c.counted == 0)).scalars())


def know_within(connection: sa.Connection, pairs: Sequence[tuple[int, int]]) -> None:
    """Write down which rules shapes stand for, inside the caller's transaction; may be repeated."""
    if pairs:
        made = insert_new(barred, connection).on_conflict_do_nothing()
        connection.execute(made, [{"shape": shape, "rule_id": number} for shape, number in pairs])
