"""Persons, lists and consent, as rows: sealed records that only a key can open.

Owns people, lists, memberships and the staging of an import. Refuses: keys (callers seal and hash), and
deciding who may be written to (audience).
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from worker.errors import Refused
from worker.store.database import Database
from worker.store.schema import consents, counters, imports, lists, memberships, people, staged
from worker.store.suppressions import insert_new


@dataclass(frozen=True, slots=True)
class List:
    """What people joined."""

    id: int
    slug: str
    title: str
    members: int = 0


@dataclass(frozen=True, slots=True)
class Staged:
    """One person on their way in."""

    address_key: bytes
    person_id: int
    sealed: bytes
    provider: str
    consent_id: int
    consented_at: float | None


@dataclass(frozen=True, slots=True)
class Sealed:
    """A person as the store knows them."""

    id: int
    address_key: bytes
    sealed: bytes


def allocate(connection: sa.Connection, name: str, count: int) -> int:
    """Take `count` ids of a counter inside the caller's transaction; return the first."""
    statement = insert_new(counters, connection).values(name=name, value=count)
    statement = statement.on_conflict_do_update(
        index_elements=["name"], set_={"value": counters.c.value + count}
    )
    return int(connection.execute(statement.returning(counters.c.value)).scalar_one()) - count + 1


class People:
    """Everybody we hold, and the lists they joined."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    # -- lists -------------------------------------------------------------------------------------

    def lists(self) -> Sequence[List]:
        """Return every list with its number of members, by slug."""
        members = sa.func.count(memberships.c.person_id)
        query = (
            sa.select(lists.c.id, lists.c.slug, lists.c.title, members)
            .outerjoin(memberships, memberships.c.list_id == lists.c.id)
            .group_by(lists.c.id, lists.c.slug, lists.c.title)
            .order_by(lists.c.slug)
        )
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

    # -- an import ---------------------------------------------------------------------------------

    def begin_import(self, now: float) -> int:
        """Open an import; return its id."""
        with self._database.write() as connection:
            statement = sa.insert(imports).values(started_at=now).returning(imports.c.id)
            return int(connection.execute(statement).scalar_one())

    def consent_id(self, basis: str, source: str, wording: str) -> int:
        """Return the id of this consent text, written down once."""
        digest = hashlib.sha256(f"{basis}\0{source}\0{wording}".encode()).digest()
        with self._database.write() as connection:
            statement = insert_new(consents, connection).values(
                digest=digest, basis=basis, source=source, wording=wording
            )
            connection.execute(statement.on_conflict_do_nothing(index_elements=["digest"]))
            query = sa.select(consents.c.id).where(consents.c.digest == digest)
            return int(connection.execute(query).scalar_one())

    def held(self, address_keys: Collection[bytes]) -> Mapping[bytes, Sealed]:
        """Return those of them whom we hold already, by key."""
        query = sa.select(people.c.id, people.c.address_key, people.c.sealed)
        with self._database.read() as connection:
            rows = connection.execute(query.where(people.c.address_key.in_(address_keys)))
            return {row.address_key: Sealed(*row) for row in rows}

    def staged(self, import_id: int, address_keys: Collection[bytes]) -> Mapping[bytes, Sealed]:
        """Return those of them whom this import has put aside already, by key."""
        query = sa.select(staged.c.person_id, staged.c.address_key, staged.c.sealed)
        mine = staged.c.import_id == import_id, staged.c.address_key.in_(address_keys)
        with self._database.read() as connection:
            return {row.address_key: Sealed(*row) for row in connection.execute(query.where(*mine))}

    def new_ids(self, count: int) -> int:
        """Take `count` new person ids; return the first."""
        with self._database.write() as connection:
            return allocate(connection, "person", count)

    def stage(self, import_id: int, rows: Sequence[Staged]) -> None:
        """Put rows of an import aside; a person put aside before has their record replaced."""
        if not rows:
            return
        values = [
            {
                "import_id": import_id,
                "address_key": row.address_key,
                "person_id": row.person_id,
                "sealed": row.sealed,
                "provider": row.provider,
                "consent_id": row.consent_id,
                "consented_at": row.consented_at,
            }
            for row in rows
        ]
        with self._database.write() as connection:
            statement = insert_new(staged, connection)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["import_id", "address_key"], set_={"sealed": statement.excluded.sealed}
                ),
                values,
            )

    def finish_import(self, import_id: int, slug: str, title: str, now: float) -> tuple[int, int]:
        """Make everyone staged a member of a list (made if new), in one transaction.

        Returns:
            How many people are new to us, and how many members new to the list.
        """
        mine = staged.c.import_id == import_id
        with self._database.write() as connection:
            made = insert_new(lists, connection).values(slug=slug, title=title, created_at=now)
            connection.execute(made.on_conflict_do_nothing(index_elements=["slug"]))
            list_id = connection.execute(sa.select(lists.c.id).where(lists.c.slug == slug)).scalar_one()
            before = _count(connection, people), _count(connection, memberships)
            person = insert_new(people, connection).from_select(
                ["id", "address_key", "sealed", "provider", "created_at", "updated_at"],
                sa.select(
                    staged.c.person_id,
                    staged.c.address_key,
                    staged.c.sealed,
                    staged.c.provider,
                    sa.literal(now),
                    sa.literal(now),
                ).where(mine),
            )
            connection.execute(
                person.on_conflict_do_update(
                    index_elements=["address_key"],
                    set_={"sealed": person.excluded.sealed, "updated_at": now},
                    # The seal binds the id: if someone else brought this address in meanwhile under
                    # another id, their record stays and ours is dropped.
                    where=people.c.id == person.excluded.id,
                )
            )
            member = insert_new(memberships, connection).from_select(
                ["list_id", "person_id", "consent_id", "consented_at", "joined_at"],
                sa.select(
                    sa.literal(list_id),
                    people.c.id,
                    staged.c.consent_id,
                    staged.c.consented_at,
                    sa.literal(now),
                )
                .join(people, people.c.address_key == staged.c.address_key)
                .where(mine),
            )
            connection.execute(
                member.on_conflict_do_update(
                    index_elements=["list_id", "person_id"],
                    set_={
                        "consent_id": member.excluded.consent_id,
                        "consented_at": member.excluded.consented_at,
                    },
                    # A file that says nothing of consent takes none away.
                    where=_says(member.excluded.consent_id) & member.excluded.consented_at.is_not(None)
                    | ~_says(memberships.c.consent_id),
                )
            )
            after = _count(connection, people), _count(connection, memberships)
            _drop_staged(connection, import_id, now)
        return after[0] - before[0], after[1] - before[1]

    def abandon_import(self, import_id: int, now: float) -> None:
        """Forget what was staged; nobody became a member."""
        with self._database.write() as connection:
            _drop_staged(connection, import_id, now)

    def abandon_stale_imports(self, started_before: float, now: float) -> int:
        """Forget imports whose process died long ago; returns how many."""
        stale = sa.select(imports.c.id).where(
            imports.c.finished_at.is_(None), imports.c.started_at < started_before
        )
        with self._database.write() as connection:
            found = list(connection.execute(stale).scalars())
            for import_id in found:
                _drop_staged(connection, import_id, now)
        return len(found)


def _says(consent_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return the condition "this consent names a basis"."""
    return sa.select(sa.literal(1)).where(consents.c.id == consent_id, consents.c.basis != "").exists()


def _count(connection: sa.Connection, table: sa.Table) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _drop_staged(connection: sa.Connection, import_id: int, now: float) -> None:
    connection.execute(sa.delete(staged).where(staged.c.import_id == import_id))
    connection.execute(sa.update(imports).where(imports.c.id == import_id).values(finished_at=now))
