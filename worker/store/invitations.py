"""Invitations: whom an operator asks whether they want to be on a list, once ever, and what their "yes" does.

Owns the table of who was asked, which outlives the person and is all that "once ever" rests on, and the one
transaction of the answer. Refuses: keys and records (callers open and hash), to ask anybody who said no, and
to take a "yes" for more than the one list it was shown for.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from worker.deeds import Action, Deed
from worker.errors import Unavailable
from worker.store import bars, keyrings
from worker.store.audit import append
from worker.store.database import Database, insert_new
from worker.store.notices import INVITE, Notice
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
            mine = invited.c.id == notice.delivery_id - INVITED
            against = stands_firm(invited.c.address_key, invited.c.list_id, notice.asked_at)
            query = sa.select(invited.c.list_id, people.c.id, people.c.address_key)
            query = query.join(people, people.c.address_key == invited.c.address_key).where(mine, ~against)
            row = connection.execute(query).one_or_none()
            unused = notices.c.id == notice.id, notices.c.confirmed_at.is_(None)
            used = sa.update(notices).where(*unused).values(confirmed_at=now).returning(notices.c.id)
            if row is None or connection.execute(used).first() is None:
                return False
            _join(connection, row.list_id, row.id, yes, now)
            connection.execute(sa.insert(unheeded).values(address_key=row.address_key))
            # The deed last, and the lifting, which writes one of its own.
            append(connection, deed.noting(key=row.address_key.hex()))
            scope = list_scope(row.list_id)
            lifting = replace(deed, action=Action.SUPPRESS_LIFT, subject=scope)
            lift_within(connection, yes.keys, scope, Act.CONFIRMED, lifting)
        heed(self._database)
        return True


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
