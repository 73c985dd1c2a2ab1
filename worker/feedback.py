"""What readers tell us by the links in a mail, and by mail to its opt-out address: that they want no more.

Owns the step from an authentic mark to a suppression and a fact on the delivery, and back again in the first
half hour. Refuses: acting on anything that does not carry our mark, and asking who is asking.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

from worker.deeds import PERSON, Action, Deed
from worker.policies import Policy
from worker.sealing import Keyring, Person, SealError
from worker.store.audit import append
from worker.store.database import Database, insert_new
from worker.store.schema import INVITED, deliveries, facts, invited, lists, people, signups
from worker.store.suppressions import (
    BY_PAGE,
    EVERYTHING,
    UNDO_SECONDS,
    Suppression,
    add_within,
    keys_now,
    list_scope,
    undoable_since,
)
from worker.store.wishes import take_back
from worker.tokens import Marks, Purpose

log = structlog.get_logger()

#: The delivery number of a test mail, which belongs to no campaign.
TEST = 0


@dataclass(frozen=True, slots=True)
class About:
    """What an opt-out link is about, as far as its page may tell."""

    sender: str
    list_title: str
    language: str = ""
    discreet: bool = False
    test: bool = False


@dataclass(frozen=True, slots=True)
class Reader:
    """Whoever got the mail that a link stands in."""

    delivery_id: int
    address_key: bytes
    list_id: int
    about: About
    person: Person | None = None  #: None: forgotten, or the record does not open
    list_slug: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """An opt-out by the page."""

    about: About
    #: With it the same link can take this back for a while; "" if there is nothing to take back.
    voucher: str = ""


class OptOuts:
    """Opt-outs by the link in a mail's header or body."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        *,
        sender: str,
        discreet_sender: str,
        clock: Callable[[], float],
    ) -> None:
        """Take the store, the keys, and the names under which mail leaves."""
        self._database = database
        self._keyring = keyring
        self._marks: Marks = keyring.marks()
        self._sender = sender
        self._discreet_sender = discreet_sender
        self._clock = clock

    def knows(self, token: str) -> bool:
        """Tell whether a mark is ours, without asking the store."""
        return self._marks.read(Purpose.OPT_OUT, token) is not None

    def describe(self, token: str) -> About | None:
        """Tell what a link is about; None if the mark is not ours. Changes nothing."""
        reader = self.reader(token)
        return reader.about if reader else None

    def reader(self, token: str) -> Reader | None:
        """Return whom a link is for; None if the mark is not ours. Changes nothing."""
        delivery_id = self._marks.read(Purpose.OPT_OUT, token)
        if delivery_id is None:
            return None
        if delivery_id == TEST:
            return Reader(TEST, b"", 0, About(self._sender, "", test=True))
        with self._database.read() as connection:
            row = connection.execute(_about(delivery_id)).one_or_none()
        if row is None:
            return None
        person = self._opened(row.id, row.sealed)
        # Whoever we know nothing of is shown the discreet page. What a mail of a campaign looked like, its
        # edition says; an invitation follows the list.
        by_list = delivery_id >= INVITED and Policy.from_json(row.policy).discreet
        discreet = person is None or person.discreet or by_list
        sender = self._discreet_sender if discreet else self._sender
        about = About(sender, row.title, person.language if person else "", discreet)
        return Reader(delivery_id, row.address_key, row.list_id, about, person, row.slug)

    def opt_out(self, token: str, how: str) -> bool:
        """Suppress the person everywhere, durably, before returning; the second time changes nothing.

        False, with nothing changed, if the mark is not ours.
        """
        return self.opt_out_all([token], how)[0]

    def opt_out_all(self, tokens: Sequence[str], how: str) -> Sequence[bool]:
        """Do the same for several, all in one transaction."""
        numbers = [self._marks.read(Purpose.OPT_OUT, token) for token in tokens]
        known = self._said_no({number for number in numbers if number is not None}, how)
        return [number in known for number in numbers]

    def said_no(self, delivery_id: int, how: str) -> bool:
        """Do the same for a delivery whose mark was read elsewhere; False if it is not here."""
        return delivery_id in self._said_no({delivery_id}, how)

    def stop(self, token: str, *, this_list: bool = False) -> Stopped | None:
        """Do the same for who pressed the button, for all lists or for the mail's own; None if not ours."""
        # Described first: once the opt-out is stored, nothing may stand between it and "done".
        reader = self.reader(token)
        if reader is None:
            return None
        if reader.delivery_id == TEST:
            return Stopped(reader.about)
        scope, now = list_scope(reader.list_id) if this_list else EVERYTHING, self._clock()
        with self._database.write() as connection:
            found = keys_now(connection, [reader.delivery_id])
            _write(connection, found, scope, BY_PAGE, now)
            at = undoable_since(connection, found[reader.delivery_id], scope, now)
        log.info("opted_out", delivery=reader.delivery_id, how=BY_PAGE)
        subject = _undoing(reader.delivery_id, scope)
        return Stopped(reader.about, "" if at is None else self._marks.voucher(subject, at))

    def undo(self, token: str, voucher: str) -> bool | None:
        """Take back the opt-out of a voucher; False if that cannot be, None if the mark is not ours."""
        reader = self.reader(token)
        if reader is None:
            return None
        for scope in (EVERYTHING, list_scope(reader.list_id)):
            at = self._marks.vouched(_undoing(reader.delivery_id, scope), voucher)
            if at is not None and at + UNDO_SECONDS > self._clock():
                return self._taken_back(reader.delivery_id, scope, at)
        return False

    def _taken_back(self, delivery_id: int, scope: str, at: float) -> bool:
        with self._database.write() as connection:
            key = take_back(connection, delivery_id, scope, at)
            if key is not None:
                deed = Deed(self._clock(), PERSON, Action.SUPPRESS_LIFT, scope)
                append(connection, deed.noting(key=key.hex(), lifted=1, had_said=["opt-out"]))
        return key is not None

    def _said_no(self, numbers: Iterable[int], how: str) -> set[int]:
        """Write opt-outs from everything; return those whose mail is known here."""
        ids = set(numbers)
        asked = ids - {TEST}
        if not asked:
            return ids
        with self._database.write() as connection:
            found = keys_now(connection, asked)
            _write(connection, found, EVERYTHING, how, self._clock())
        for number in found:
            log.info("opted_out", delivery=number, how=how)
        return found.keys() | (ids & {TEST})

    def _opened(self, person_id: int | None, sealed: bytes | None) -> Person | None:
        if person_id is None or sealed is None:
            return None
        try:
            return Person.from_bytes(self._keyring.open(person_id, sealed))
        except SealError:
            return None


def _about(number: int) -> sa.Select[Any]:
    """Return the statement: whom the mail of a delivery, or of an invitation, went to, and for which list."""
    mails, mine, theirs = deliveries, number, people.c.id == deliveries.c.person_id
    who: list[sa.ColumnElement[Any]] = [people.c.id, people.c.sealed]
    if number >= INVITED:
        mails, mine, theirs = invited, number - INVITED, people.c.address_key == invited.c.address_key
        # Who has signed up and not confirmed it is nobody we hold.
        new = sa.select(signups.c.person_id, signups.c.sealed).where(signups.c.invited_id == mine)
        pair = new.subquery("new")
        who = [
            sa.func.coalesce(people.c.id, sa.select(pair.c.person_id).scalar_subquery()).label("id"),
            sa.func.coalesce(people.c.sealed, sa.select(pair.c.sealed).scalar_subquery()).label("sealed"),
        ]
    return (
        sa.select(mails.c.address_key, lists.c.id.label("list_id"), lists.c.slug, lists.c.title)
        .add_columns(lists.c.policy, *who)
        .select_from(mails)
        .join(lists, lists.c.id == mails.c.list_id)
        .outerjoin(people, theirs)
        .where(mails.c.id == mine)
    )


def _write(connection: sa.Connection, found: Mapping[int, bytes], scope: str, how: str, now: float) -> None:
    """Write the opt-outs of these deliveries, whose address keys are given."""
    if not found:
        return
    # The delivery first, then the person, as does who reads a complaint; the other way round, each would wait
    # for the other (PostgreSQL). Both in one order, for the same reason.
    told = insert_new(facts, connection).on_conflict_do_nothing()
    # An invitation has no such row: nothing of it is counted with a campaign.
    ids = [each for each in sorted(found) if each < INVITED]
    rows = [{"delivery_id": each, "kind": "opted out", "at": now, "source": how} for each in ids]
    if rows:
        connection.execute(told, rows)
    keys = set(found.values())
    add_within(connection, [Suppression(key, scope, "opt-out", how, now) for key in keys])


def _undoing(delivery_id: int, scope: str) -> str:
    return f"undo {delivery_id} {scope}"
