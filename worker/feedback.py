"""What readers tell us by the links in a mail, and by mail to its opt-out address: that they want no more.

Owns the step from an authentic mark to a suppression and a fact on the delivery. Refuses: acting on anything
that does not carry our mark, and asking who is asking.
"""

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
import structlog

from worker.sealing import Keyring, Person, SealError
from worker.store.database import Database, insert_new
from worker.store.schema import deliveries, facts, lists, people
from worker.store.suppressions import EVERYTHING, Suppression, add_within
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

    def describe(self, token: str) -> About | None:
        """Tell what a link is about; None if the mark is not ours. Changes nothing."""
        delivery_id = self._marks.read(Purpose.OPT_OUT, token)
        if delivery_id is None:
            return None
        if delivery_id == TEST:
            return About(self._sender, "", test=True)
        query = (
            sa.select(lists.c.title, people.c.id, people.c.sealed)
            .select_from(deliveries)
            .join(lists, lists.c.id == deliveries.c.list_id)
            .outerjoin(people, people.c.id == deliveries.c.person_id)
            .where(deliveries.c.id == delivery_id)
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        language, discreet = self._form(row.id, row.sealed)
        return About(self._discreet_sender if discreet else self._sender, row.title, language, discreet)

    def opt_out(self, token: str, how: str) -> bool:
        """Suppress the person everywhere, durably, before returning; the second time changes nothing.

        False, with nothing changed, if the mark is not ours.
        """
        delivery_id = self._marks.read(Purpose.OPT_OUT, token)
        return delivery_id is not None and self.said_no(delivery_id, how)

    def said_no(self, delivery_id: int, how: str) -> bool:
        """Do the same for a delivery whose mark was read elsewhere; False if it is not here."""
        if delivery_id == TEST:
            return True
        with self._database.write() as connection:
            key = connection.execute(
                sa.select(deliveries.c.address_key).where(deliveries.c.id == delivery_id)
            ).scalar_one_or_none()
            if key is None:
                return False
            now = self._clock()
            # The delivery first, then the person, as does who reads a complaint; the other way round, each
            # would wait for the other (PostgreSQL).
            fact = insert_new(facts, connection).values(
                delivery_id=delivery_id, kind="opted out", at=now, source=how
            )
            connection.execute(fact.on_conflict_do_nothing())
            add_within(connection, [Suppression(key, EVERYTHING, "opt-out", how, now)])
        log.info("opted_out", delivery=delivery_id, how=how)
        return True

    def _form(self, person_id: int | None, sealed: bytes | None) -> tuple[str, bool]:
        """Return the language and form of this person's page; nothing known is shown discreetly."""
        if person_id is None or sealed is None:
            return "", True
        try:
            person = Person.from_bytes(self._keyring.open(person_id, sealed))
        except SealError:
            return "", True
        return person.language, person.discreet
