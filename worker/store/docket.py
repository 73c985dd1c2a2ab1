"""Which batches are to be taken next: rung, cancelled, opened again.

Owns the batches that nobody has in hand. Refuses: touching what somebody has (ledger), and ringing itself
(the queue does; here is only written down that it was asked to).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from worker.deeds import Deed
from worker.deliveries import State
from worker.store.audience import Rule
from worker.store.audit import append
from worker.store.database import Database
from worker.store.schema import batch_is_open, batches, campaigns, deliveries
from worker.store.suppressions import suppressed
from worker.store.tallies import of_campaign


@dataclass(frozen=True, slots=True)
class Reopened:
    """What a retry came to."""

    opened: int  #: deliveries that wait again
    left_out: int  #: deliveries that ended so, and whose person must not be written to any more


class Docket:
    """The batches that wait, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def ring(self, now: float, *, limit: int, lost_before: float) -> Sequence[int]:
        """Stamp and return batches whose doorbell should ring: due, free, and not rung since `lost_before`.

        Stamped in the same transaction, so that several sweepers ring once.
        """
        due = (
            sa.select(batches.c.id)
            .join(campaigns, campaigns.c.id == batches.c.campaign_id)
            .where(
                batch_is_open,
                batches.c.due_at <= now,
                batches.c.lease_id.is_(None),
                sa.or_(batches.c.rung_at.is_(None), batches.c.rung_at < lost_before),
                campaigns.c.state == "running",
            )
            .order_by(batches.c.due_at, batches.c.id)
            .limit(limit)
            .with_for_update(of=batches, skip_locked=True)
        )
        with self._database.write() as connection:
            found = list(connection.execute(due).scalars())
            if found:
                connection.execute(sa.update(batches).where(batches.c.id.in_(found)).values(rung_at=now))
        return found

    def rung(self, since: float) -> int:
        """Return how many batches have been rung since then and not yet been taken."""
        query = sa.select(sa.func.count()).where(
            batch_is_open, batches.c.lease_id.is_(None), batches.c.rung_at >= since
        )
        with self._database.read() as connection:
            return connection.execute(query).scalar_one()

    def cancel(self, campaign_id: int, now: float) -> int:
        """Skip everything that waits; what is in hand is closed when it is given back."""
        with self._database.write() as connection:
            skipped = connection.execute(
                sa.update(deliveries)
                .where(of_campaign(campaign_id), deliveries.c.state.in_(("queued", "deferred")))
                .values(state=State.SKIPPED, reason="cancelled", settled_at=now)
            ).rowcount
            connection.execute(
                sa.update(batches)
                .where(batches.c.campaign_id == campaign_id, batches.c.lease_id.is_(None))
                .values(done=1)
            )
        return skipped

    def accept(self, campaign_id: int, now: float, deed: Deed | None = None) -> int:
        """Call every unconfirmed delivery sent, on an operator's word; returns how many."""
        with self._database.write() as connection:
            accepted = connection.execute(
                sa.update(deliveries)
                .where(of_campaign(campaign_id), deliveries.c.state == State.UNCONFIRMED)
                .values(state=State.SENT, reason="accepted by hand", settled_at=now)
            ).rowcount
            if deed is not None and accepted:
                append(connection, deed.noting(deliveries=accepted))
        return accepted

    def reopen(
        self, campaign_id: int, states: Sequence[State], now: float, deed: Deed | None = None
    ) -> Reopened:
        """Queue again the deliveries that ended in these states, with all their attempts.

        Not those whose person has said no since, or whose address is gone: they stay as they ended. The deed
        is written down if there were any others.
        """
        ended = of_campaign(campaign_id), deliveries.c.state.in_(states)
        waiting = {"state": State.QUEUED, "reason": "", "attempts": 0, "due_at": 0.0}
        with self._database.write() as connection:
            topics = _topics(connection, campaign_id)
            said_no = suppressed(deliveries.c.address_key, deliveries.c.list_id, topics, deliveries.c.id)
            opened = list(
                connection.execute(
                    sa.update(deliveries)
                    .where(*ended, ~said_no)
                    .values(lease_id=None, settled_at=None, **waiting)
                    .returning(deliveries.c.batch_id)
                ).scalars()
            )
            left = sa.select(sa.func.count()).select_from(deliveries).where(*ended)
            left_out = connection.execute(left).scalar_one()
            if opened:
                connection.execute(
                    sa.update(batches)
                    .where(batches.c.id.in_(set(opened)))
                    .values(done=0, due_at=now, rung_at=None)
                )
            if deed is not None and opened:
                append(connection, deed.noting(deliveries=len(opened), left_out=left_out))
        return Reopened(len(opened), left_out)


def _topics(connection: sa.Connection, campaign_id: int) -> Sequence[str]:
    """Return what a campaign is about."""
    rule = connection.execute(
        sa.select(campaigns.c.rule).where(campaigns.c.id == campaign_id)
    ).scalar_one_or_none()
    return Rule.from_json(rule).topics if rule else ()
