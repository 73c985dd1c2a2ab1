"""Notices: single mails that somebody has just asked for themself, and the one use of the link in each.

Owns the table: asked, begun, settled, confirmed, each durably before what follows from it. Refuses: to begin
one a second time whose end is not known, more than a few a day for one address, and every content: a notice
is a kind and a delivery's number.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from worker.store.database import Database
from worker.store.schema import INVITED, deliveries, invited, notice_is_open, notices, people
from worker.store.suppressions import stands_firm, suppressed

#: Notices that one address gets in a day, whoever asks, so that nobody can be bombed.
MOST_A_DAY = 3
DAY = 86_400.0
#: Seconds after which one is not even counted any more.
_KEPT = 30 * DAY
_OPEN = ("waiting", "sending")
#: What asks somebody to come onto a list: by an operator's wish, and by what they entered themselves.
INVITE, JOIN = "invite", "join"
#: Seconds after which one that was begun and never settled is in doubt: far longer than a relay takes.
_SILENT = 1_800.0


@dataclass(frozen=True, slots=True)
class Notice:
    """One of them."""

    id: int
    kind: str
    delivery_id: int  #: or an invitation's number
    asked_at: float  #: UTC seconds
    attempts: int  #: with this one
    confirmed: bool  #: its link was used


_COLUMNS = (
    *(notices.c.id, notices.c.kind, notices.c.delivery_id, notices.c.asked_at, notices.c.attempts),
    notices.c.confirmed_at.is_not(None),
)


class Notices:
    """The notices, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def ask(self, delivery_id: int, kind: str, now: float) -> bool:
        """Write one down to whoever got this delivery; False if they had enough for a day, or are gone."""
        person = sa.select(people.c.address_key).join(deliveries, deliveries.c.person_id == people.c.id)
        mine = deliveries.c.id == delivery_id
        if delivery_id >= INVITED:
            person = sa.select(people.c.address_key).join(
                invited, invited.c.address_key == people.c.address_key
            )
            mine = invited.c.id == delivery_id - INVITED
        with self._database.write() as connection:
            # Held until the end, so that two who ask at once do not both see room for the last.
            key = connection.execute(person.where(mine).with_for_update(of=people)).scalar_one_or_none()
            recent = notices.c.address_key == key, notices.c.asked_at > now - DAY
            count = sa.select(sa.func.count()).select_from(notices).where(*recent)
            if key is None or connection.execute(count).scalar_one() >= MOST_A_DAY:
                return False
            old = notices.c.asked_at < now - _KEPT, notices.c.state.not_in(_OPEN)
            connection.execute(sa.delete(notices).where(*old))
            made = {"delivery_id": delivery_id, "address_key": key, "kind": kind, "state": "waiting"}
            connection.execute(sa.insert(notices).values(**made, asked_at=now, due_at=now))
        return True

    def due(self, now: float) -> bool:
        """Tell whether one waits to be sent; what was begun long ago and not settled is in doubt from now."""
        waits = notice_is_open, notices.c.state == "waiting", notices.c.due_at <= now
        silent = notice_is_open, notices.c.state == "sending", notices.c.begun_at < now - _SILENT
        with self._database.read() as connection:  # most of the time: no write, no lock
            found = connection.execute(sa.select(notices.c.id).where(*waits).limit(1)).first() is not None
            doubtful = connection.execute(sa.select(notices.c.id).where(*silent).limit(1)).first()
        if doubtful is not None:
            with self._database.write() as connection:
                connection.execute(sa.update(notices).where(*silent).values(state="unconfirmed"))
        return found

    def begin(self, now: float) -> Notice | None:
        """Take one in hand that is due, durably, before anything of it leaves; None when none is.

        An invitation to somebody who has said no meanwhile is put away.
        """
        waits = notice_is_open, notices.c.state == "waiting", notices.c.due_at <= now
        first = sa.select(notices.c.id).where(*waits).order_by(notices.c.due_at, notices.c.id).limit(1)
        begun = {"state": "sending", "begun_at": now, "attempts": notices.c.attempts + 1}
        while True:
            with self._database.write() as connection:
                number = connection.execute(first.with_for_update(skip_locked=True)).scalar_one_or_none()
                taken = sa.update(notices).where(notices.c.id == number, *waits).values(**begun)
                row = connection.execute(taken.returning(*_COLUMNS)).one_or_none()
                if row is None or not _is_unwelcome(connection, Notice(*row)):
                    return None if row is None else Notice(*row)
                away = sa.update(notices).where(notices.c.id == number)
                connection.execute(away.values(state="refused"))

    def settle(self, number: int, state: str, due_at: float = 0.0) -> None:
        """Write down how an attempt ended: sent, refused, unconfirmed, or waiting until then."""
        mine = notices.c.id == number, notices.c.state == "sending"
        with self._database.write() as connection:
            connection.execute(sa.update(notices).where(*mine).values(state=state, due_at=due_at))

    def find(self, number: int) -> Notice | None:
        """Return one; None when it is gone, with its person."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(*_COLUMNS).where(notices.c.id == number)).one_or_none()
        return None if row is None else Notice(*row)

    def confirm(self, number: int, now: float) -> bool:
        """Use up its link; False if somebody has."""
        unused = notices.c.id == number, notices.c.confirmed_at.is_(None)
        with self._database.write() as connection:
            used = sa.update(notices).where(*unused).values(confirmed_at=now)
            return connection.execute(used.returning(notices.c.id)).first() is not None


def _is_unwelcome(connection: sa.Connection, notice: Notice) -> bool:
    """Tell whether this would invite somebody who has said no.

    Who entered the address themself gets it where they had only left that list, or are on a pause.
    """
    if notice.kind not in {INVITE, JOIN}:
        return False
    against = suppressed(invited.c.address_key, invited.c.list_id)
    if notice.kind == JOIN:
        against = stands_firm(invited.c.address_key, invited.c.list_id)
    query = sa.select(invited.c.id).where(invited.c.id == notice.delivery_id - INVITED, against)
    return connection.execute(query).first() is not None
