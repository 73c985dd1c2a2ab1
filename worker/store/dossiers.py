"""Everything the store holds of one person, gathered, changed and erased.

Owns the statements behind a person's rights, each one transaction that may be repeated. Refuses: keys
(callers seal, hash and open), and changing how a mail ended.

An erased delivery keeps its row, its state and its code. Its person becomes `NOBODY` and its address key a
blank made of its own id, so that one campaign still has one row for each, and none leads to anybody.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from worker.deeds import Deed
from worker.deliveries import State
from worker.store import keyrings
from worker.store.audit import append
from worker.store.database import Database
from worker.store.ledger import NOBODY
from worker.store.schema import (
    INVITED,
    campaigns,
    consents,
    deliveries,
    facts,
    invited,
    lists,
    memberships,
    notices,
    people,
    signups,
    suppressions,
    unheeded,
)
from worker.store.staging import Held
from worker.store.suppressions import ERASURE, EVERYTHING, Suppression, add_within, only_writer
from worker.store.wishes import forget as forget_wishes

_WAITING = (State.QUEUED, State.DEFERRED)


@dataclass(frozen=True, slots=True)
class Membership:
    """A list they are on, and on what ground."""

    slug: str
    title: str
    basis: str
    source: str  #: where they said yes
    wording: str  #: exactly what was shown to them
    consented_at: float | None  #: UTC seconds; None: nobody told us
    joined_at: float  #: UTC seconds
    confirmed_at: float | None  #: UTC seconds; when they confirmed it from their mailbox
    offered: bool  #: whether an opt-out was offered then
    meets: bool  #: whether that is all that the list asks for


@dataclass(frozen=True, slots=True)
class Mail:
    """One delivery to them."""

    campaign: str
    appeal: str
    state: str
    reason: str
    code: int | None  #: of the relay's last answer
    text: str | None  #: its words, scrubbed
    settled_at: float | None  #: UTC seconds
    slug: str  #: the list that reached them
    attempts: int
    status: str | None  #: the enhanced code of that answer
    facts: Sequence[tuple[str, float, str]] = ()  #: what became known later: kind, when, source


@dataclass(frozen=True, slots=True)
class Asked:
    """A mail outside any campaign: one that they asked for by the link in one of ours, or an invitation."""

    kind: str  #: what the notice is for, or which list they were once invited to
    state: str
    asked_at: float  #: UTC seconds
    confirmed_at: float | None  #: UTC seconds; when its link was used


@dataclass(frozen=True, slots=True)
class Dossier:
    """Everything we hold of one person."""

    held: Held | None = None  #: the sealed record; None: there is none (any more)
    created_at: float | None = None
    updated_at: float | None = None
    memberships: Sequence[Membership] = ()
    suppressions: Sequence[Suppression] = ()
    mails: Sequence[Mail] = ()
    asked: Sequence[Asked] = ()
    provider: str = ""  #: what kind of mailbox they have, for pacing

    def __bool__(self) -> bool:
        """Tell whether there is anything at all."""
        return bool(self.held or self.memberships or self.suppressions or self.mails)


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure takes away, or would."""

    records: int = 0
    memberships: int = 0
    mails: int = 0  #: deliveries that lead to nobody now
    stopped: int = 0  #: of those, the ones that waited to be sent
    in_hand: int = 0  #: of those, the ones that a sender holds at this moment
    suppressed: bool = False  #: a suppression is new; False: one stood already


def blank(delivery_id: int) -> bytes:
    """Return the address key of an erased delivery: nobody's hash, and no other row's."""
    return bytes(8) + delivery_id.to_bytes(8, "big")


class Dossiers:
    """One person at a time, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def of_delivery(self, delivery_id: int) -> Held | bytes | None:
        """Return whom a delivery or an invitation is for: their record, or else their address key.

        None for nobody.
        """
        query = (
            sa.select(people.c.id, people.c.address_key, people.c.sealed, people.c.version)
            .add_columns(deliveries.c.address_key.label("key"))
            .select_from(deliveries)
            .outerjoin(people, people.c.id == deliveries.c.person_id)
            .where(deliveries.c.id == delivery_id, deliveries.c.person_id != NOBODY)
        )
        if delivery_id >= INVITED:
            query = (
                sa.select(people.c.id, people.c.address_key, people.c.sealed, people.c.version)
                .add_columns(invited.c.address_key.label("key"))
                .select_from(invited)
                .outerjoin(people, people.c.address_key == invited.c.address_key)
                .where(invited.c.id == delivery_id - INVITED)
            )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return bytes(row.key) if row.id is None else Held(*row[:4])

    def gather(self, keys: Collection[bytes], hashed: Collection[bytes] = ()) -> Dossier:
        """Return everything held under these address keys.

        Args:
            keys: the hashes of one address.
            hashed: keys under which another tool's hash of it would stand as a suppression.
        """
        with self._database.read() as connection:
            person = connection.execute(sa.select(people).where(people.c.address_key.in_(keys))).first()
            return Dossier(
                Held(person.id, person.address_key, person.sealed, person.version) if person else None,
                person.created_at if person else None,
                person.updated_at if person else None,
                _memberships(connection, keys),
                _named_once(_suppressions(connection, keys), _suppressions(connection, hashed)),
                _mails(connection, keys),
                _asked(connection, keys),
                person.provider if person else "",
            )

    def replace(self, held: Held, sealed: bytes, shape: int, now: float, deed: Deed | None) -> bool:
        """Put a new record in the place of that one; False when it is not the one held any more.

        Args:
            held: the one to be replaced.
            sealed: the new one.
            shape: see the schema's memberships.
            now: UTC seconds.
            deed: for the audit log, written in the same transaction; None: it is not written down.
        """
        with self._database.write() as connection:
            only_writer(connection, wait=True)
            same = people.c.id == held.id, people.c.version == held.version
            changed = connection.execute(
                sa.update(people)
                .where(*same)
                .values(sealed=sealed, version=people.c.version + 1, updated_at=now)
            ).rowcount
            if changed:
                connection.execute(
                    sa.update(memberships).where(memberships.c.person_id == held.id).values(shape=shape)
                )
            if changed and deed is not None:
                append(connection, deed.noting(key=held.address_key.hex()))
        return bool(changed)

    def weigh(self, keys: Sequence[bytes]) -> Erased:
        """Return what `erase` would do now; changes nothing."""
        with self._database.read() as connection:
            states = [row.state for row in _deliveries(connection, keys)]
            stands = any(one.scope == EVERYTHING for one in _suppressions(connection, keys))
            who = sa.select(people.c.id).where(people.c.address_key.in_(keys))
            count = sa.select(sa.func.count())
            return Erased(
                connection.execute(count.select_from(who.subquery())).scalar_one(),
                connection.execute(count.where(memberships.c.person_id.in_(who))).scalar_one(),
                len(states),
                len([one for one in states if one in _WAITING]),
                states.count(State.SENDING),
                not stands,
            )

    def erase(self, keys: Sequence[bytes], source: str, now: float, deed: Deed | None = None) -> Erased:
        """Take everything away but the "no", which is written down, and the counts.

        Args:
            keys: the hashes of one address, today's first; the "no" is kept under that one.
            source: what the "no" says of where it came from.
            now: UTC seconds.
            deed: for the audit log, with the hash that the "no" has too; None: it is not written down.
        """
        with self._database.write() as connection:
            if connection.dialect.name == "sqlite":  # else what is deleted stays readable in the file's gaps
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            # After an import's last step or before it, and after a slice of a launch or before it: each would
            # else bring back what it saw before.
            only_writer(connection, wait=True)
            keyrings.hold(connection, alone=False)
            launching = sa.select(campaigns.c.id).where(campaigns.c.launched_at.is_(None))
            connection.execute(launching.order_by(campaigns.c.id).with_for_update()).all()
            standing = [one for one in _suppressions(connection, keys) if one.scope == EVERYTHING]
            mails, stopped, in_hand = _unlink(connection, keys, now)
            # With one hash it may be the store's own, of a record that does not open.
            forms = () if standing or len(keys) == 1 else tuple(keys)
            key = standing[0].address_key if standing else keys[0]
            add_within(connection, [Suppression(key, EVERYTHING, ERASURE, source, now, forms=forms)])
            who = sa.select(people.c.id).where(people.c.address_key.in_(keys))
            left = connection.execute(sa.delete(memberships).where(memberships.c.person_id.in_(who))).rowcount
            gone = connection.execute(sa.delete(people).where(people.c.address_key.in_(keys))).rowcount
            forget_wishes(connection, keys)
            connection.execute(sa.delete(notices).where(notices.c.address_key.in_(keys)))
            asked = sa.select(invited.c.id).where(invited.c.address_key.in_(keys))
            connection.execute(sa.delete(signups).where(signups.c.invited_id.in_(asked)))
            # The "no" keeps them from being invited; that they were is nothing to keep.
            connection.execute(sa.delete(invited).where(invited.c.address_key.in_(keys)))
            # There is no membership left to be marked.
            connection.execute(sa.delete(unheeded).where(unheeded.c.address_key.in_(keys)))
            if deed is not None:
                append(connection, deed.noting(key=key.hex(), mails=mails, stopped=stopped))
        return Erased(gone, left, mails, stopped, in_hand, not standing)


def _unlink(connection: sa.Connection, keys: Collection[bytes], now: float) -> tuple[int, int, int]:
    """Stop what waits and let no delivery lead to them; return how many there are, waited, are in hand."""
    ids = sorted(row.id for row in _deliveries(connection, keys))
    # Before the key goes: a claim that has looked already finds them waiting no more.
    stopped = connection.execute(
        sa.update(deliveries)
        .where(deliveries.c.id.in_(ids), deliveries.c.state.in_(_WAITING))
        .values(state=State.SKIPPED, reason="forgotten", settled_at=now)
    ).rowcount
    for number in ids:
        connection.execute(
            sa.update(deliveries)
            .where(deliveries.c.id == number)
            .values(person_id=NOBODY, address_key=blank(number), reply_text=None)
        )
    held = sa.select(sa.func.count()).where(deliveries.c.id.in_(ids), deliveries.c.state == State.SENDING)
    return len(ids), stopped, connection.execute(held).scalar_one()


def _deliveries(connection: sa.Connection, keys: Collection[bytes]) -> Sequence[sa.Row[int, str]]:
    # By campaign as well: that is the index there is.
    query = sa.select(deliveries.c.id, deliveries.c.state).where(
        deliveries.c.campaign_id.in_(sa.select(campaigns.c.id)), deliveries.c.address_key.in_(keys)
    )
    return connection.execute(query).all()


def _memberships(connection: sa.Connection, keys: Collection[bytes]) -> Sequence[Membership]:
    query = (
        sa.select(
            *(lists.c.slug, lists.c.title, consents.c.basis, consents.c.source, consents.c.wording),
            *(memberships.c.consented_at, memberships.c.joined_at, memberships.c.confirmed_at),
            *(consents.c.offered == 1, memberships.c.consented == 1),
        )
        .select_from(memberships)
        .join(people, people.c.id == memberships.c.person_id)
        .join(lists, lists.c.id == memberships.c.list_id)
        .join(consents, consents.c.id == memberships.c.consent_id)
        .where(people.c.address_key.in_(keys))
        .order_by(lists.c.slug)
    )
    return [Membership(*row) for row in connection.execute(query)]


def _suppressions(connection: sa.Connection, keys: Collection[bytes]) -> Sequence[Suppression]:
    query = sa.select(suppressions).where(suppressions.c.address_key.in_(keys))
    return [Suppression(*row) for row in connection.execute(query.order_by(suppressions.c.created_at))]


def _named_once(own: Sequence[Suppression], hashed: Sequence[Suppression]) -> Sequence[Suppression]:
    """Join what stands under their own hash, and under another tool's where it is not theirs yet."""
    scopes = {one.scope for one in own}
    return [*own, *{one.scope: one for one in hashed if one.scope not in scopes}.values()]


def _mails(connection: sa.Connection, keys: Collection[bytes]) -> Sequence[Mail]:
    query = (
        sa.select(
            *(deliveries.c.id, campaigns.c.name, campaigns.c.appeal, deliveries.c.state),
            *(deliveries.c.reason, deliveries.c.reply_code, deliveries.c.reply_text),
            *(deliveries.c.settled_at, lists.c.slug, deliveries.c.attempts, deliveries.c.reply_status),
        )
        .join(campaigns, campaigns.c.id == deliveries.c.campaign_id)
        .join(lists, lists.c.id == deliveries.c.list_id)
        .where(deliveries.c.address_key.in_(keys))
        .order_by(deliveries.c.id)
    )
    rows = connection.execute(query).all()
    late = sa.select(facts.c.delivery_id, facts.c.kind, facts.c.at, facts.c.source)
    late = late.where(facts.c.delivery_id.in_([row.id for row in rows])).order_by(facts.c.at)
    told: dict[int, list[tuple[str, float, str]]] = {}
    for number, *what in connection.execute(late):
        kind, at, source = what
        told.setdefault(number, []).append((kind, at, source))
    return [Mail(*row[1:], facts=tuple(told.get(row.id, ()))) for row in rows]


def _asked(connection: sa.Connection, keys: Collection[bytes]) -> Sequence[Asked]:
    query = sa.select(notices.c.kind, notices.c.state, notices.c.asked_at, notices.c.confirmed_at)
    query = query.where(notices.c.address_key.in_(keys)).order_by(notices.c.id)
    asked = sa.select(lists.c.slug, invited.c.asked_at).join(lists, lists.c.id == invited.c.list_id)
    asked = asked.where(invited.c.address_key.in_(keys)).order_by(invited.c.id)
    return [
        *(Asked(*row) for row in connection.execute(query)),
        *(Asked(f"invited to {slug}", "asked", at, None) for slug, at in connection.execute(asked)),
    ]
