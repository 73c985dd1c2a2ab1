"""Invitations: whom an operator asks whether they want to be on a list, once ever, and what their "yes" does.

Owns the table of who was asked, which is all that "once ever" rests on, and the one transaction of the
answer. Refuses: keys and records (callers open and hash), to ask anybody who said no, and to take a "yes" for
more than the one list it was shown for.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from worker.deeds import Action, Deed
from worker.errors import Unavailable
from worker.store import bars, keyrings
from worker.store.audit import append
from worker.store.database import Database, insert_new
from worker.store.notices import DAY, INVITE, JOIN, MOST_A_DAY, Notice
from worker.store.people import ConsentText, write_consents
from worker.store.policies import meets, of_list
from worker.store.schema import (
    INVITED,
    consents,
    invited,
    memberships,
    notice_is_open,
    notices,
    people,
    signups,
    suppressions,
    unheeded,
)
from worker.store.staging import Held
from worker.store.suppressions import (
    EVERYTHING,
    PAUSE,
    REST,
    Act,
    heed,
    is_firm,
    lift_within,
    list_scope,
    only_writer,
    stands_firm,
    suppressed,
)

#: Why somebody is not asked, the weightiest first.
SAID_NO, PAUSED, ASKED, CONSENTS = "said no", "on a pause", "asked before", "consent is there"
#: Seconds from one invitation to the next: they share the relay with mail that cannot wait.
APART = 0.5


@dataclass(frozen=True, slots=True)
class Yes:
    """Somebody's consent, as they gave it."""

    text: ConsentText
    shape: int  #: see the schema's memberships
    edition: int  #: of the never-mail rules that the shape was made by (bars.Book)
    keys: Sequence[bytes]  #: every hash of their address


@dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """What somebody has entered, sealed."""

    keys: Sequence[bytes]  #: every hash of the address
    person_id: int  #: new, and bound in the seal
    sealed: bytes
    provider: str


class Invitations:
    """Who was asked, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def without_consent(self, list_id: int, size: int) -> Iterator[Sequence[Held]]:
        """Yield the members who lack what the list asks for, so many at a time."""
        query = sa.select(people.c.id, people.c.address_key, people.c.sealed, people.c.version)
        query = query.join(memberships, memberships.c.person_id == people.c.id).limit(size)
        query = query.where(memberships.c.list_id == list_id, memberships.c.consented == 0)
        after = -1
        while True:
            with self._database.read() as connection:
                more = query.where(memberships.c.person_id > after).order_by(memberships.c.person_id)
                rows = [Held(*row) for row in connection.execute(more)]
            if not rows:
                return
            yield rows
            after = rows[-1].id

    def members(self, list_id: int, keys: Collection[bytes]) -> Sequence[int]:
        """Return the ids of the members held under one of these keys."""
        query = sa.select(people.c.id).join(memberships, memberships.c.person_id == people.c.id)
        query = query.where(memberships.c.list_id == list_id, people.c.address_key.in_(keys))
        with self._database.read() as connection:
            return list(connection.execute(query.order_by(people.c.id)).scalars())

    def reasons(self, list_id: int, keys: Collection[bytes]) -> Mapping[bytes, str]:
        """Return those of the keys under which something speaks against asking, and what."""
        found: dict[bytes, str] = {}
        consenting = sa.select(people.c.address_key).join(memberships, memberships.c.person_id == people.c.id)
        consenting = consenting.where(memberships.c.list_id == list_id, memberships.c.consented == 1)
        asked = sa.select(invited.c.address_key).where(invited.c.list_id == list_id)
        said = sa.select(suppressions.c.address_key).where(suppressions.c.address_key.in_(keys))
        queries = (
            (CONSENTS, consenting.where(people.c.address_key.in_(keys))),
            (ASKED, asked.where(invited.c.address_key.in_(keys))),
            (PAUSED, said.where(suppressions.c.scope.in_((PAUSE, REST)))),
            (SAID_NO, said.where(suppressions.c.scope.in_((EVERYTHING, list_scope(list_id))))),
        )
        with self._database.read() as connection:
            for reason, query in queries:
                found.update(dict.fromkeys(connection.execute(query).scalars(), reason))
        return found

    def ask(self, list_id: int, ids: Collection[int], now: float, deed: Deed) -> int:
        """Write down that these are asked, and the mail to each; return how many were not asked before."""
        with self._database.write() as connection:
            keyrings.hold(connection, alone=False)
            held = sa.select(people.c.address_key).where(people.c.id.in_(ids))
            held = held.where(~suppressed(people.c.address_key, sa.literal(list_id)))
            keys = sorted(connection.execute(held).scalars())
            new = _write_asked(connection, list_id, keys, now)
            due = max(now, _last_due(connection) + APART)
            rows = [
                _notice(number, key, INVITE, due + place * APART) for place, (number, key) in enumerate(new)
            ]
            if rows:
                connection.execute(sa.insert(notices), rows)
                append(connection, deed.noting(invited=len(rows)))
        return len(rows)

    def sign_up(self, list_id: int, entry: "Entry", now: float) -> bool:
        """Put aside what somebody has entered, and write the mail down that asks whether it was them.

        False, and nothing is kept, where a "no" stands that this cannot lift, or they had mails enough today.
        """
        with self._database.write() as connection:
            keyrings.hold(connection, alone=False)
            held = _held(connection, entry.keys)
            key = held.address_key if held else _todays(connection, entry.keys)
            recent = notices.c.address_key.in_(entry.keys), notices.c.asked_at > now - DAY
            count = connection.execute(sa.select(sa.func.count()).select_from(notices).where(*recent))
            if count.scalar_one() >= MOST_A_DAY or _is_firm(connection, entry.keys, list_id):
                return False
            number = _asked_as(connection, list_id, entry.keys, key, now)
            if held is None:
                row = {"person_id": entry.person_id, "sealed": entry.sealed, "provider": entry.provider}
                made = insert_new(signups, connection).values(invited_id=number, made_at=now, **row)
                # Who was first is who they are: nobody else changes the name that is already there.
                connection.execute(made.on_conflict_do_nothing())
            connection.execute(sa.insert(notices), [_notice(number, key, JOIN, now)])
        return True

    def drop_old(self, before: float) -> int:
        """Remove what was entered before then and never confirmed; return how many."""
        old = signups.c.made_at < before
        with self._database.read() as connection:  # most of the time: no write, no lock
            if connection.execute(sa.select(signups.c.invited_id).where(old).limit(1)).first() is None:
                return 0
        with self._database.write() as connection:
            if connection.dialect.name == "sqlite":  # else what is deleted stays readable in the file's gaps
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            return connection.execute(sa.delete(signups).where(old)).rowcount

    def stands_open(self, notice: Notice) -> bool:
        """Tell whether nothing that its reader has said stands against a "yes" to this invitation."""
        against = stands_firm(invited.c.address_key, invited.c.list_id, notice.asked_at)
        query = sa.select(invited.c.id).where(invited.c.id == notice.delivery_id - INVITED, ~against)
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def confirm(self, notice: Notice, yes: Yes, now: float, deed: Deed) -> bool:
        """Put somebody onto the list by their own word, with its proof, in one transaction.

        A "no" to this list that they said before they were asked is lifted; False, and nothing is changed,
        where another stands, or the link was used.
        """
        with self._database.write() as connection:
            only_writer(connection, wait=True)
            if bars.book(connection).edition != yes.edition:
                raise Unavailable("never-mail rules have changed just now", remedy="Try again.")
            keyrings.hold(connection, alone=False)
            number = notice.delivery_id - INVITED
            query = sa.select(invited.c.list_id).where(invited.c.id == number)
            list_id = connection.execute(query).scalar_one()
            firm = _is_firm(connection, yes.keys, list_id, notice.asked_at)
            who = None if firm else _held(connection, yes.keys) or _brought_in(connection, number, yes, now)
            unused = notices.c.id == notice.id, notices.c.confirmed_at.is_(None)
            used = sa.update(notices).where(*unused).values(confirmed_at=now).returning(notices.c.id)
            if who is None or connection.execute(used).first() is None:
                return False
            connection.execute(sa.delete(signups).where(signups.c.invited_id == number))
            _join(connection, list_id, who.id, yes, now)
            connection.execute(sa.insert(unheeded).values(address_key=who.address_key))
            # The deed last, and the lifting, which writes one of its own.
            append(connection, deed.noting(key=who.address_key.hex()))
            scope = list_scope(list_id)
            lifting = replace(deed, action=Action.SUPPRESS_LIFT, subject=scope)
            lift_within(connection, yes.keys, scope, Act.CONFIRMED, lifting)
        heed(self._database)
        return True


def _held(connection: sa.Connection, keys: Sequence[bytes]) -> Held | None:
    """Return whom we hold under one of these keys."""
    query = sa.select(people.c.id, people.c.address_key, people.c.sealed, people.c.version)
    row = connection.execute(query.where(people.c.address_key.in_(keys))).first()
    return Held(*row) if row else None


def _is_firm(
    connection: sa.Connection, keys: Sequence[bytes], list_id: int, since: float | None = None
) -> bool:
    """Tell whether a "no" stands under one of these keys that coming onto a list does not lift."""
    under = suppressions.c.address_key.in_(keys)
    against = is_firm(sa.literal(list_id), since)
    return connection.execute(sa.select(suppressions.c.scope).where(under, against)).first() is not None


def _todays(connection: sa.Connection, keys: Sequence[bytes]) -> bytes:
    """Return the one of somebody's keys that whoever is new is held under."""
    use = keyrings.use(connection)
    found = [key for key in keys if use is None or key[0] == use.lookup]
    if not found:
        raise Unavailable("the key ring here is older than the database", remedy="Run `tocsin keys check`.")
    return found[0]


def _asked_as(connection: sa.Connection, list_id: int, keys: Sequence[bytes], key: bytes, now: float) -> int:
    """Return the number under which somebody is asked, by any of their keys; made if they never were."""
    mine = invited.c.list_id == list_id, invited.c.address_key.in_(keys)
    made = insert_new(invited, connection).values(list_id=list_id, address_key=key, asked_at=now)
    query = sa.select(invited.c.id, invited.c.address_key).where(*mine)
    rows = connection.execute(query).all()
    if not rows:
        connection.execute(made.on_conflict_do_nothing())
        rows = connection.execute(query).all()
    same = next((row for row in rows if row.address_key == key), None)
    if same is None:
        connection.execute(sa.update(invited).where(invited.c.id == rows[0].id).values(address_key=key))
    return int((same or rows[0]).id)


def _brought_in(connection: sa.Connection, number: int, yes: Yes, now: float) -> Held | None:
    """Hold from now on whoever has signed up; None where that was never so, or is dropped."""
    row = connection.execute(sa.select(signups).where(signups.c.invited_id == number)).one_or_none()
    if row is None:
        return None
    key = _todays(connection, yes.keys)
    record = {"id": row.person_id, "address_key": key, "sealed": row.sealed, "provider": row.provider}
    connection.execute(sa.insert(people).values(**record, created_at=now, updated_at=now))
    return Held(row.person_id, key, row.sealed, 1)


def _write_asked(
    connection: sa.Connection, list_id: int, keys: Sequence[bytes], now: float
) -> Sequence[tuple[int, bytes]]:
    """Write down that these are asked; return number and key of those who were not asked before."""
    made = insert_new(invited, connection).on_conflict_do_nothing().returning(invited.c.id)
    new = []
    for key in keys:
        row = connection.execute(made.values(list_id=list_id, address_key=key, asked_at=now)).first()
        if row is not None:
            new.append((row.id, key))
    return new


def _last_due(connection: sa.Connection) -> float:
    """Return when the last of the invitations goes that wait."""
    waits = notice_is_open, notices.c.kind == INVITE
    last = connection.execute(sa.select(sa.func.max(notices.c.due_at)).where(*waits)).scalar_one()
    return float(last or 0.0)


def _notice(number: int, key: bytes, kind: str, due_at: float) -> Mapping[str, object]:
    # Asked when it is due: what its reader says before that is said before the mail, and stops it.
    what = {"delivery_id": INVITED + number, "address_key": key, "kind": kind, "state": "waiting"}
    return {**what, "asked_at": due_at, "due_at": due_at}


def _join(connection: sa.Connection, list_id: int, person_id: int, yes: Yes, now: float) -> None:
    """Make somebody a member by a consent, or their consent this one."""
    said = {"consent_id": write_consents(connection, [yes.text])[0], "consented_at": now, "confirmed_at": now}
    row = {"list_id": list_id, "person_id": person_id, "consented": 0, "joined_at": now, "shape": yes.shape}
    member = insert_new(memberships, connection).values(**row, **said)
    same = ["list_id", "person_id"]
    connection.execute(member.on_conflict_do_update(index_elements=same, set_={**said, "shape": yes.shape}))
    met = meets(of_list(connection, list_id), memberships.c.consented_at, memberships.c.confirmed_at)
    theirs = memberships.c.list_id == list_id, memberships.c.person_id == person_id
    connection.execute(
        sa.update(memberships)
        .where(*theirs, memberships.c.consent_id == consents.c.id)
        .values(consented=sa.case((met, 1), else_=0))
    )
