"""Persons, lists and consent, as rows: sealed records that only a key can open.

Owns the lists, the texts of consents and the numbers of people. Refuses: keys (callers seal and hash), making
members (staging), and deciding who may be written to (audience).
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import sqlalchemy as sa

from worker.errors import Refused
from worker.policies import ground
from worker.store.counters import allocate
from worker.store.database import Database, insert_new
from worker.store.schema import consents, lists, memberships, people
from worker.store.staging import Staging
from worker.store.suppressions import among

#: Basis, source, wording; and whether an opt-out was offered, where that is known.
ConsentText: TypeAlias = tuple[str, str, str] | tuple[str, str, str, bool]


@dataclass(frozen=True, slots=True)
class List:
    """What people joined."""

    id: int
    slug: str
    title: str
    members: int = 0


class People:
    """Everybody we hold, and the lists they joined."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    # -- lists -------------------------------------------------------------------------------------

    def lists(self) -> Sequence[List]:
        """Return every list with its number of members, by slug."""
        # Counted list by list: over a join, a million memberships would be sorted first.
        members = sa.select(sa.func.count()).where(memberships.c.list_id == lists.c.id).scalar_subquery()
        query = sa.select(lists.c.id, lists.c.slug, lists.c.title, members).order_by(lists.c.slug)
        with self._database.read() as connection:
            return [List(*row) for row in connection.execute(query)]

    def lists_named(self, *slugs: str) -> Sequence[List]:
        """Return those of the lists that exist."""
        query = sa.select(lists.c.id, lists.c.slug, lists.c.title).where(lists.c.slug.in_(slugs))
        with self._database.read() as connection:
            return [List(*row) for row in connection.execute(query)]

    def find_lists(self, slugs: Sequence[str]) -> Sequence[List]:
        """Return the lists of these slugs; Refused names one that does not exist."""
        found = {each.slug: each for each in self.lists_named(*slugs)}
        missing = [slug for slug in slugs if slug not in found]
        if missing:
            raise Refused(
                f"there is no list called {missing[0]}",
                remedy="See `tocsin lists`, or import one: tocsin lists import FILE --list SLUG",
            )
        return [found[slug] for slug in dict.fromkeys(slugs)]

    def records(self, address_keys: Collection[bytes]) -> Sequence[tuple[int, bytes, bytes]]:
        """Return id, address key and sealed record of those of these keys whom we hold."""
        query = sa.select(people.c.id, people.c.address_key, people.c.sealed)
        with self._database.read() as connection:
            rows = connection.execute(query.where(people.c.address_key.in_(address_keys)))
            return [(number, key, sealed) for number, key, sealed in rows]

    # -- for an import -----------------------------------------------------------------------------

    def begin_import(self) -> Staging:
        """Open an import; close it in the end."""
        return Staging(self._database)

    def consent_ids(self, texts: Sequence[ConsentText]) -> Sequence[int]:
        """Return the ids of consent texts, each written down once."""
        with self._database.write() as connection:
            return write_consents(connection, texts)

    def new_ids(self, count: int) -> int:
        """Take `count` new person ids; return the first."""
        with self._database.write() as connection:
            return allocate(connection, "person", count)


def write_consents(connection: sa.Connection, texts: Sequence[ConsentText]) -> Sequence[int]:
    """Return the ids of consent texts, each written down once, inside the caller's transaction."""
    digests = [hashlib.sha256("\0".join(map(str, text)).encode()).digest() for text in texts]
    rows = [
        {
            "digest": digest,
            **dict(zip(("basis", "source", "wording"), text, strict=False)),
            "ground": ground(text[0]),
            "offered": int(text[3:] == (True,)),
        }
        # In one order, whoever writes: two imports would else wait for each other (PostgreSQL).
        for digest, text in sorted(zip(digests, texts, strict=True))
    ]
    statement = insert_new(consents, connection)
    connection.execute(statement.on_conflict_do_nothing(index_elements=["digest"]), rows)
    clause, values = among(connection, digests)
    query = f"SELECT digest, id FROM consents WHERE digest {clause}"
    found = {bytes(digest): number for digest, number in connection.exec_driver_sql(query, values)}
    return [found[digest] for digest in digests]
