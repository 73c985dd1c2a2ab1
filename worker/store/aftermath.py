"""What becomes known of a delivery after the relay's answer: bounces, complaints, addresses that are gone.

Owns the facts added to deliveries, the settling of unconfirmed ones by a report, and the suppressions that
dead addresses earn. Each function is one transaction and may be repeated. Refuses: deliveries that are in
somebody's hands (the ledger's), and changing how a delivery ended once that is known.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import sqlalchemy as sa

from worker.deliveries import State
from worker.post.replies import GONE, GONE_IF_AGAIN
from worker.store.database import Database, insert_new
from worker.store.ledger import Outcome
from worker.store.schema import campaigns, deliveries, facts
from worker.store.suppressions import EVERYTHING, Suppression, add_within, keys_now
from worker.store.tallies import of_campaign, taken

#: Kinds of facts. The source of a late bounce is its reason, that of a complaint its type.
BOUNCED, COMPLAINED, NOT_SPAM = "bounced later", "complained", "not spam"
#: It came back for a fault of ours; the source says which.
BLAMED = "our fault"
#: A suppression followed. Once for each delivery: what an operator lifts by hand stays lifted.
GONE_FACT = "address gone"

#: A provider that calls so many addresses of one campaign dead, and more than it took, is not believed:
#: Gmail did so for a day in December 2020, and every address was alive.
_IMPLAUSIBLE = 20
#: Suppressions written in one transaction.
_CHUNK = 1_000


class Change(Enum):
    """What a piece of news came to."""

    #: It is written down now.
    NEW = auto()
    #: It was known already.
    KNOWN = auto()
    #: The delivery is in somebody's hands: tell it again later.
    IN_HAND = auto()
    #: There is no such delivery here.
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class _Dead:
    """A delivery whose address is gone."""

    delivery_id: int
    address_key: bytes
    provider: str = ""


class Aftermath:
    """The late news of every delivery, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def bounced(self, end: Outcome, now: float) -> Change:
        """Write a final failure down: as the end of an unconfirmed delivery, else as a fact about it.

        An address that is gone is suppressed in the same transaction; one that may be, the second time.

        Args:
            end: how it failed; its state is `BOUNCED`.
            now: UTC seconds.
        """
        with self._database.write() as connection:
            found = _ended(connection, end.id)
            if isinstance(found, Change):
                return found
            if found.state == State.UNCONFIRMED:
                _settle(connection, end, now)
            elif found.state == State.BOUNCED or not _add_fact(connection, end.id, BOUNCED, end.reason, now):
                return Change.KNOWN
            if _is_gone(connection, end, found.address_key):
                _suppress(connection, [_Dead(end.id, found.address_key)], "report", now)
        return Change.NEW

    def blamed(self, end: Outcome, now: float) -> Change:
        """Write down that a mail came back for a fault of ours: a fact about it, no word about a person.

        One that was unconfirmed ends as bounced, and waits for an operator (`retry --bounced`). It does not
        go again by itself: whoever forwards mail breaks its authentication, so it may have arrived once.
        """
        with self._database.write() as connection:
            found = _ended(connection, end.id)
            if isinstance(found, Change):
                return found
            if found.state == State.BOUNCED:
                return Change.KNOWN
            if found.state == State.UNCONFIRMED:
                _settle(connection, end, now)
            new = _add_fact(connection, end.id, BLAMED, end.reason, now)
        return Change.NEW if new or found.state == State.UNCONFIRMED else Change.KNOWN

    def delivered(self, delivery_id: int, now: float) -> Change:
        """Write down that an unconfirmed mail was taken after all; nothing else is news."""
        with self._database.write() as connection:
            found = _ended(connection, delivery_id)
            if isinstance(found, Change):
                return found
            if found.state != State.UNCONFIRMED:
                return Change.KNOWN
            _settle(connection, Outcome(delivery_id, State.SENT, "delivery report"), now)
        return Change.NEW

    def complained(self, delivery_id: int, kind: str, now: float) -> Change:
        """Write a complaint down and suppress whoever made it, everywhere and for good."""
        with self._database.write() as connection:
            found = _standing(connection, delivery_id)
            if found is None:
                return Change.UNKNOWN
            new = _add_fact(connection, delivery_id, COMPLAINED, kind, now)
            if new:
                suppression = Suppression(found.address_key, EVERYTHING, "complaint", "feedback report", now)
                add_within(connection, [suppression])
        return Change.NEW if new else Change.KNOWN

    def noted(self, delivery_id: int, kind: str, source: str, now: float) -> Change:
        """Write a fact down that nothing follows from."""
        with self._database.write() as connection:
            if _standing(connection, delivery_id) is None:
                return Change.UNKNOWN
            new = _add_fact(connection, delivery_id, kind, source, now)
        return Change.NEW if new else Change.KNOWN

    # -- refused by the relay itself -----------------------------------------------------------------

    def open_or_ended_since(self, since: float) -> Mapping[int, float | None]:
        """Return the campaigns in which somebody may have been refused since then, and when they ended."""
        going = campaigns.c.state.in_(("running", "paused"))
        ended = sa.case((going, None), else_=campaigns.c.finished_at)
        query = sa.select(campaigns.c.id, ended).where(sa.or_(going, ended >= since))
        with self._database.read() as connection:
            return dict(connection.execute(query).all())

    def suppress_refused(self, campaign_id: int, now: float) -> int:
        """Suppress whom the relay called gone in a campaign; returns how many are new.

        The settling of mails knows nothing of this: it is one statement over a campaign, now and then.
        """
        with self._database.read() as connection:
            dead = _refused(connection, campaign_id)
        for start in range(0, len(dead), _CHUNK):
            with self._database.write() as connection:
                _suppress(connection, _again(connection, dead[start : start + _CHUNK]), "relay", now)
        return len(dead)


def _standing(connection: sa.Connection, delivery_id: int) -> sa.Row[str, bytes] | None:
    query = sa.select(deliveries.c.state, deliveries.c.address_key).where(deliveries.c.id == delivery_id)
    return connection.execute(query.with_for_update()).one_or_none()


def _ended(connection: sa.Connection, delivery_id: int) -> sa.Row[str, bytes] | Change:
    """Return a delivery that nobody has in hand, or why there is none to speak of."""
    found = _standing(connection, delivery_id)
    if found is None:
        return Change.UNKNOWN
    return Change.IN_HAND if found.state == State.SENDING else found


def _settle(connection: sa.Connection, end: Outcome, now: float) -> None:
    connection.execute(
        sa.update(deliveries)
        .where(deliveries.c.id == end.id, deliveries.c.state == State.UNCONFIRMED)
        .values(
            state=end.state,
            reason=end.reason,
            reply_code=end.code,
            reply_status=end.status,
            reply_text=end.text,
            settled_at=now,
        )
    )


def _add_fact(connection: sa.Connection, delivery_id: int, kind: str, source: str, now: float) -> bool:
    statement = insert_new(facts, connection).values(
        delivery_id=delivery_id, kind=kind, at=now, source=source
    )
    options = {"preserve_rowcount": True}
    return bool(connection.execute(statement.on_conflict_do_nothing(), execution_options=options).rowcount)


def _suppress(connection: sa.Connection, dead: Sequence[_Dead], source: str, now: float) -> None:
    """Suppress addresses that are gone, and note at each delivery that this was done."""
    rows = [{"delivery_id": one.delivery_id, "kind": GONE_FACT, "at": now, "source": source} for one in dead]
    connection.execute(insert_new(facts, connection).on_conflict_do_nothing(), rows)
    add_within(connection, [Suppression(one.address_key, EVERYTHING, "bounce", source, now) for one in dead])


def _again(connection: sa.Connection, dead: Sequence[_Dead]) -> Sequence[_Dead]:
    """Return them by the hashes that they have now: since the look they may have got new ones."""
    now = keys_now(connection, [one.delivery_id for one in dead])
    return [_Dead(one.delivery_id, now[one.delivery_id], one.provider) for one in dead]


def _is_gone(connection: sa.Connection, end: Outcome, address_key: bytes) -> bool:
    if end.reason in GONE_IF_AGAIN:
        return connection.execute(sa.select(_has_failed_before(address_key, end.id))).scalar_one()
    return end.reason in GONE


def _refused(connection: sa.Connection, campaign_id: int) -> Sequence[_Dead]:
    """Return whom the relay called gone in a campaign, where it can be believed and nothing was done yet."""
    again = _has_failed_before(deliveries.c.address_key, deliveries.c.id)
    noted = sa.exists().where(facts.c.delivery_id == deliveries.c.id, facts.c.kind == GONE_FACT)
    query = sa.select(deliveries.c.id, deliveries.c.address_key, deliveries.c.provider).where(
        of_campaign(campaign_id),
        deliveries.c.state == State.BOUNCED,
        sa.or_(
            deliveries.c.reason.in_(GONE),
            sa.and_(deliveries.c.reason.in_(GONE_IF_AGAIN), again),
        ),
        ~noted,
    )
    dead = [_Dead(*row) for row in sorted(connection.execute(query))]  # in one order, whoever writes
    counts = Counter(one.provider for one in dead)
    suspects = [provider for provider, count in counts.items() if count >= _IMPLAUSIBLE]
    took = taken(connection, campaign_id, suspects)
    doubtful = {provider for provider in suspects if counts[provider] > took.get(provider, 0)}
    return [one for one in dead if one.provider not in doubtful]


def _has_failed_before(
    address_key: sa.ColumnElement[bytes] | bytes, delivery_id: sa.ColumnElement[int] | int
) -> sa.ColumnElement[bool]:
    """Return the SQL condition "another mail to this address came back as gone, or as maybe gone"."""
    other, late = deliveries.alias("other"), facts.alias("late")
    reasons = sorted(GONE | GONE_IF_AGAIN)
    told_later = sa.exists().where(
        late.c.delivery_id == other.c.id, late.c.kind == BOUNCED, late.c.source.in_(reasons)
    )
    refused = sa.and_(other.c.state == State.BOUNCED, other.c.reason.in_(reasons))
    return sa.exists().where(
        # By campaign as well: that is the index there is.
        other.c.campaign_id.in_(sa.select(campaigns.c.id)),
        other.c.address_key == address_key,
        other.c.id != delivery_id,
        sa.or_(refused, told_later),
    )
