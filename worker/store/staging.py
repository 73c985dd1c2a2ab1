"""People on their way onto a list: put aside where nobody else sees them, until all of them are there.

Owns the table of an import and the one last transaction that makes everybody a member. The table belongs to
its connection alone (a nameless file on SQLite, a temporary table on PostgreSQL): a crash leaves nothing, no
log is kept of it, and campaigns are not held up. Refuses: keys, and deciding what two records of one person
come to (the caller mends).
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.schema import CreateTable

from worker.deeds import Deed
from worker.errors import Unavailable
from worker.store import keyrings
from worker.store.audit import append
from worker.store.bars import require_same
from worker.store.database import Database, insert_new, translated
from worker.store.policies import meets, of_list
from worker.store.schema import (
    consents,
    lists,
    memberships,
    no_to_a_topic,
    people,
    staged,
    suppressions,
    unheeded,
)
from worker.store.suppressions import (
    ERASURE,
    EVERYTHING,
    among,
    batched,
    only_writer,
    rename_within,
    suppressed,
)

#: Pages of it that SQLite keeps in memory, in KiB; its index takes 30 MB for a million people.
_CACHE_KIB = 48_000
#: Records mended at once, and hashed anew at once.
_MENDED = 1_000
_REHASHED = 500


class Staged(NamedTuple):
    """One person on their way in; a tuple, because a million of them go to the driver as they are."""

    address_key: bytes
    person_id: int
    sealed: bytes | None  #: None: we hold them, and there is nothing to add
    provider: str
    consent_id: int
    consented_at: float | None
    version: int = 0  #: of the held record that this one was merged with; 0: there was none
    shape: int = 0  #: see the schema's memberships
    confirmed_at: float | None = None  #: when they confirmed to another tool (double opt-in)


@dataclass(frozen=True, slots=True)
class Held:
    """A person as the store knows them."""

    id: int
    address_key: bytes
    sealed: bytes
    version: int  #: counts the records we had of them


#: Makes one record of what is staged and of what is held by now.
Mend = Callable[[Staged, Held], Staged]
#: Gives every hash of a staged person's address, under each look-up key in the secret file as it is now.
Forms = Callable[[Staged], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Hashes:
    """What an import knows of other hashes of its people; nothing where only one look-up key ever was."""

    forms: Forms
    #: Something stands against somebody under an earlier hash: that one, and the one they come in under.
    earlier: Mapping[bytes, bytes]


def first_come(ours: Staged, held: Held) -> Staged:
    """Mend by keeping what is held."""
    return ours._replace(person_id=held.id, sealed=None, version=held.version)


class Staging:
    """One import's rows, from first to last; close it in the end, and what is not finished is gone."""

    def __init__(self, database: Database) -> None:
        """Open a connection of its own."""
        self._database = database
        with translated():
            self._connection = database.engine.connect()
            try:
                self._make()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Forget what was staged; may be repeated."""
        if not self._connection.closed:
            self._connection.invalidate()  # not back to the pool: the table ends with its connection
            self._connection.close()

    def held(self, address_keys: Collection[bytes]) -> Mapping[bytes, Held]:
        """Return those of them whom the store holds, by key."""
        clause, values = among(self._connection, address_keys)
        query = f"SELECT id, address_key, sealed, version FROM people WHERE address_key {clause}"
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(query, values)
            return {row[1]: Held(*row) for row in rows}

    def find(self, address_keys: Collection[bytes]) -> Mapping[bytes, Staged]:
        """Return those of them who are staged already, by key."""
        clause, values = among(self._connection, address_keys)
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(f"SELECT * FROM staged WHERE address_key {clause}", values)
            return {row[0]: Staged(*row) for row in rows}

    def add(self, rows: Sequence[Staged]) -> None:
        """Put people aside who are not there yet."""
        if not rows:
            return
        with self._transaction() as connection:
            if self._database.is_sqlite:
                # As the driver wants it: SQLAlchemy's preparation of a row costs more than to write it.
                marks = ", ".join("?" * len(Staged._fields))
                connection.exec_driver_sql(f"INSERT INTO staged VALUES ({marks})", list(rows))
            else:
                _copy(connection, rows)

    def replace(self, rows: Sequence[Staged]) -> None:
        """Put other records in the place of those of people who are there already."""
        if not rows:
            return
        clause, values = among(self._connection, [row.address_key for row in rows])
        with self._transaction() as connection:
            connection.exec_driver_sql(f"DELETE FROM staged WHERE address_key {clause}", values)
        self.add(rows)

    def finish(
        self,
        slug: str,
        title: str,
        now: float,
        mend: Mend = first_come,
        deed: Deed | None = None,
        edition: int | None = None,
        hashes: Hashes | None = None,
    ) -> tuple[int, int]:
        """Make everyone staged a member of a list (made if new), in one transaction; then close.

        `mend` is asked about each person whose record is not the one that theirs was merged with, because
        another import was there first. Refused where the never-mail rules are no more those of
        `edition`. While hashes are changed, or when they were since the first row, everyone staged is first
        put under the hash that they are held under.

        Returns:
            How many people are new to us, and how many members new to the list.
        """
        self._connection.execution_options(tocsin_writes=True)
        with self._transaction() as connection:
            # One import at a time gets further, so that nobody's record changes between look and write.
            only_writer(connection, wait=True)
            if edition is not None:
                require_same(connection, edition)
            list_id = _list(connection, slug, title, now)
            earlier = {} if hashes is None else {**hashes.earlier, **_rehash(connection, hashes.forms)}
            _mend(connection, mend)
            _leave_out(connection)
            new = _write_people(connection, now)
            _bring_along(connection, earlier)
            before = _members(connection, list_id)
            _write_memberships(connection, list_id, now)
            _mind_topics(connection)
            joined = _members(connection, list_id) - before
            if deed is not None:
                append(connection, deed.noting(new_people=new, new_members=joined))
        if new and not self._database.is_sqlite:
            # A store that has just grown: for a minute PostgreSQL would plan for an empty one.
            with self._transaction() as connection:
                connection.exec_driver_sql("ANALYZE people, memberships")
        self.close()
        return new, joined

    def _make(self) -> None:
        """Make the table, in a place of its connection's own."""
        statement = str(CreateTable(staged).compile(self._database.engine))
        if not self._database.is_sqlite:
            with self._connection.begin():
                self._connection.exec_driver_sql(statement.replace("CREATE", "CREATE TEMPORARY", 1))
            return
        store = Path(str(self._database.url.database))
        # Beside the store, where keyed hashes are anyway: the system's folder for temporary files may be
        # small, or another disk. A file without a name is gone with its last user, however that ends.
        number, name = tempfile.mkstemp(prefix=f"{store.name}-import-", dir=store.parent)
        os.close(number)
        try:
            driver = self._connection.connection.driver_connection
            assert driver is not None  # noqa: S101 - a connection that was just opened
            driver.execute("ATTACH ? AS aside", (name,))
            for pragma in ("journal_mode=MEMORY", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):
                driver.execute(f"PRAGMA aside.{pragma}")
            driver.execute(statement.replace("staged", "aside.staged", 1))
        finally:
            Path(name).unlink()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with translated(), self._connection.begin():
            yield self._connection


def _copy(connection: sa.Connection, rows: Sequence[Staged]) -> None:
    """Write rows in PostgreSQL's own bulk way: 3 µs of processor time each instead of 18."""
    driver: Any = connection.connection.cursor()
    try:
        with driver.copy("COPY staged FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["bytea", "int8", "bytea", "varchar", "int8", "float8", "int4", "int8", "float8"])
            for row in rows:
                copy.write_row(row)
    except connection.dialect.loaded_dbapi.OperationalError as error:
        raise exc.OperationalError(None, None, error) from error


# -- the statements of the last transaction ------------------------------------------------------------


def _list(connection: sa.Connection, slug: str, title: str, now: float) -> int:
    made = insert_new(lists, connection).values(slug=slug, title=title, created_at=now)
    connection.execute(made.on_conflict_do_nothing(index_elements=["slug"]))
    return int(connection.execute(sa.select(lists.c.id).where(lists.c.slug == slug)).scalar_one())


def _rehash(connection: sa.Connection, forms: Forms) -> Mapping[bytes, bytes]:
    """Put everyone staged under the hash that they are held under; who is new, under today's.

    Returns:
        Other hashes of theirs under which something stands, and the one that they are under now.
    """
    earlier: dict[bytes, bytes] = {}
    today = keyrings.use(connection)
    if today is None or not (_is_other(connection, staged, today) or _is_other(connection, people, today)):
        return earlier
    after = b""
    query = sa.select(staged).where(staged.c.address_key > sa.bindparam("after"))
    query = query.order_by(staged.c.address_key).limit(_REHASHED)
    change = sa.update(staged).where(staged.c.address_key == sa.bindparam("of"))
    while rows := [Staged(*row) for row in connection.execute(query, {"after": after})]:
        after = rows[-1].address_key
        # Whoever gets a hash further on is met again there, and stays as they are.
        now = _held_by_number(connection, rows) | _held_or_new(connection, rows, forms, today, earlier)
        changes = [{"of": of, "to": to} for of, to in now.items() if of != to]
        if changes:
            connection.execute(change.values(address_key=sa.bindparam("to")), changes)
    return earlier


def _is_other(connection: sa.Connection, table: sa.Table, today: keyrings.Use) -> bool:
    """Tell whether anybody there is under another look-up key than today's; by the index, at once."""
    query = sa.select(sa.literal(1)).limit(1)
    return any(
        connection.execute(query.where(side)).first() is not None
        for side in other_keys(table.c.address_key, today.lookup)
    )


def other_keys(
    column: sa.ColumnElement[bytes], lookup: int
) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """Return the two conditions "made with a key of a lower id, or of a higher one", fit for an index."""
    return column < bytes((lookup,)), column >= bytes((lookup, *(255,) * 16))


def _held_by_number(connection: sa.Connection, rows: Sequence[Staged]) -> dict[bytes, bytes]:
    """Return for those merged with a record the hash that it is held under by now."""
    merged = {row.person_id: row.address_key for row in rows if row.version}
    query = sa.select(people.c.id, people.c.address_key).where(people.c.id.in_(list(merged)))
    return {merged[number]: bytes(key) for number, key in connection.execute(query)}


def _held_or_new(
    connection: sa.Connection,
    rows: Sequence[Staged],
    forms: Forms,
    today: keyrings.Use,
    earlier: dict[bytes, bytes],
) -> dict[bytes, bytes]:
    """Return for those new to us the hash under which another import has brought them in, else today's.

    Whoever said no to everything does not come in; what else stands under another hash is added to `earlier`.
    """
    theirs = {row.address_key: forms(row) for row in rows if not row.version}
    every = [form for each in theirs.values() for form in each]
    held = set(
        connection.execute(sa.select(people.c.address_key).where(people.c.address_key.in_(every))).scalars()
    )
    standing = sa.select(suppressions.c.address_key, suppressions.c.scope)
    stands = connection.execute(standing.where(suppressions.c.address_key.in_(every))).all()
    under = {row.address_key for row in stands}
    said_no = {row.address_key for row in stands if row.scope == EVERYTHING}
    found = {}
    for key, each in theirs.items():
        todays = [form for form in each if form[0] == today.lookup]
        if not todays:
            raise Unavailable(
                f"the key ring here lacks key {today.lookup}, which the database uses by now",
                remedy="Copy var/secret.toml here from where `tocsin keys new` ran, and import again.",
            )
        if not said_no.isdisjoint(each):  # under a hash that an old key ring did not look for
            connection.execute(sa.delete(staged).where(staged.c.address_key == key))
            continue
        found[key] = ([form for form in each if form in held] or todays)[0]
        earlier.update({form: found[key] for form in each if form in under and form != found[key]})
    return found


def _bring_along(connection: sa.Connection, earlier: Mapping[bytes, bytes]) -> None:
    """Put what stands under an earlier hash of those who came in under the hash that they are held under."""
    for some in batched(earlier, _MENDED):
        keys = list({earlier[one] for one in some})
        held = set(
            connection.execute(
                sa.select(people.c.address_key).where(people.c.address_key.in_(keys))
            ).scalars()
        )
        rename_within(connection, {one: earlier[one] for one in some if earlier[one] in held})


def _mend(connection: sa.Connection, mend: Mend) -> None:
    """Bring every staged record up to date with what is held by now, some at a time."""
    after = b""
    query = (
        sa.select(staged, people.c.id, people.c.address_key, people.c.sealed, people.c.version)
        .join(people, people.c.address_key == staged.c.address_key)
        .where(staged.c.address_key > sa.bindparam("after"))
        .where(sa.or_(people.c.version != staged.c.version, people.c.id != staged.c.person_id))
        .order_by(staged.c.address_key)
        .limit(_MENDED)
    )
    width = len(Staged._fields)
    change = (
        sa.update(staged)
        .where(staged.c.address_key == sa.bindparam("of"))
        .values({name: sa.bindparam(f"new_{name}") for name in Staged._fields[1:]})
    )
    while rows := connection.execute(query, {"after": after}).all():
        mended = [mend(Staged(*row[:width]), Held(*row[width:])) for row in rows]
        connection.execute(
            change,
            [
                {"of": one.address_key, **{f"new_{name}": getattr(one, name) for name in one._fields[1:]}}
                for one in mended
            ],
        )
        after = rows[-1].address_key


def _leave_out(connection: sa.Connection) -> None:
    """Let nobody in who is new to us and has been erased since this began: their data must not come back."""
    erased = suppressions.c.scope == EVERYTHING, suppressions.c.reason == ERASURE
    said_no = sa.select(suppressions.c.address_key).where(*erased)
    connection.execute(sa.delete(staged).where(staged.c.address_key.in_(said_no), staged.c.version == 0))


def _write_people(connection: sa.Connection, now: float) -> int:
    """Write the new records, and the changed ones with their shapes; return how many people are new."""
    new = sa.insert(people).from_select(
        ["id", "address_key", "sealed", "provider", "created_at", "updated_at"],
        sa.select(
            *(staged.c.person_id, staged.c.address_key, staged.c.sealed, staged.c.provider),
            *(sa.literal(now), sa.literal(now)),
        ).where(staged.c.version == 0),
    )
    count: int = connection.execute(new, execution_options={"preserve_rowcount": True}).rowcount
    changed = staged.c.version > 0, staged.c.sealed.is_not(None)
    connection.execute(
        sa.update(people)
        .where(people.c.id == staged.c.person_id, *changed)
        .values(sealed=staged.c.sealed, version=people.c.version + 1, updated_at=now)
    )
    connection.execute(
        sa.update(memberships)
        .where(memberships.c.person_id == staged.c.person_id, memberships.c.shape != staged.c.shape, *changed)
        .values(shape=staged.c.shape)
    )
    return count


def _write_memberships(connection: sa.Connection, list_id: int, now: float) -> None:
    whole = meets(of_list(connection, list_id), staged.c.consented_at, staged.c.confirmed_at)
    said_no = suppressed(people.c.address_key, sa.literal(list_id))
    coming = (
        sa.select(
            sa.literal(list_id),
            *(people.c.id, staged.c.consent_id, staged.c.consented_at),
            *(sa.case((whole, 1), else_=0), sa.case((said_no, 1), else_=0)),
            *(staged.c.shape, staged.c.confirmed_at, sa.literal(now)),
        )
        # By way of people: whoever was erased meanwhile does not come back.
        .join(people, people.c.id == staged.c.person_id)
        .join(consents, consents.c.id == staged.c.consent_id)
        .where(sa.true())
    )
    names = ["list_id", "person_id", "consent_id", "consented_at", "consented", "refused", "shape"]
    names.append("confirmed_at")
    member = insert_new(memberships, connection).from_select([*names, "joined_at"], coming)
    ours = member.excluded
    differs = (ours.consent_id != memberships.c.consent_id) | ours.consented_at.is_distinct_from(
        memberships.c.consented_at
    )
    better = _says(ours.consent_id) & ours.consented_at.is_not(None) | ~_says(memberships.c.consent_id)
    connection.execute(
        member.on_conflict_do_update(
            index_elements=["list_id", "person_id"],
            set_={name: ours[name] for name in ("consent_id", "consented_at", "consented", "confirmed_at")},
            # A file that says nothing of consent, or half of it, takes none away; and what stays as it is is
            # not written.
            where=(memberships.c.confirmed_at.is_(None) | ours.confirmed_at.is_not(None))
            & (differs | ours.confirmed_at.is_distinct_from(memberships.c.confirmed_at))
            & ((ours.consented == 1) | (memberships.c.consented == 0) & better),
        )
    )


def _mind_topics(connection: sa.Connection) -> None:
    """Have those looked at (suppressions.heed) who said no to topics; there is no mark for these yet."""
    said_no = sa.select(suppressions.c.address_key).where(no_to_a_topic)
    coming = sa.select(staged.c.address_key).where(staged.c.address_key.in_(said_no))
    connection.execute(sa.insert(unheeded).from_select(["address_key"], coming))


def _says(consent_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return the condition "this consent names a basis"."""
    return sa.select(sa.literal(1)).where(consents.c.id == consent_id, consents.c.basis != "").exists()


def _members(connection: sa.Connection, list_id: int) -> int:
    query = sa.select(sa.func.count()).where(memberships.c.list_id == list_id)
    return connection.execute(query).scalar_one()
