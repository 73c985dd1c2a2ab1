"""Which campaigns' mail comes back for a fault of ours, and since when the operator knows.

Owns the count that may pause a campaign. Refuses: to say how many are too many (postroom), and to write the
reports down that it counts (aftermath).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from worker.store.aftermath import BLAMED
from worker.store.database import Database, insert_new
from worker.store.schema import campaigns, deliveries, facts
from worker.store.tallies import TOLD, taken

#: What was under way when a campaign paused is settled within so many seconds; it left before.
_LANDING = 10.0


@dataclass(frozen=True, slots=True)
class Blame:
    """Mail of one campaign to one provider that came back for a fault of ours, since somebody was told."""

    provider: str
    reason: str  #: the one named most often
    count: int
    sent: int  #: how many mails the relay took for that provider meanwhile
    last: int  #: one of these deliveries


class Blames:
    """What names a fault of ours, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def running(self) -> Sequence[int]:
        """Return the campaigns that run."""
        with self._database.read() as connection:
            return list(
                connection.execute(sa.select(campaigns.c.id).where(campaigns.c.state == "running")).scalars()
            )

    def of(self, campaign_id: int, least: int) -> Sequence[Blame]:
        """Return what came back for a fault of ours, by provider, where it is at least so many mails.

        Only of mails that left after the operator was last told: the rest may only be late.
        """
        with self._database.read() as connection:
            told_at = _told_at(connection, campaign_id)
            since = told_at + _LANDING if told_at is not None else 0.0
            found = _blamed_since(connection, campaign_id, since)
            counts = Counter[str]()
            for row in found:
                counts[row.provider] += row.number
            many = [provider for provider, count in counts.items() if count >= least]
            sent = taken(connection, campaign_id, many, since)
        worst = {row.provider: row for row in sorted(found, key=lambda row: row.number)}
        return [Blame(one, worst[one].source, counts[one], sent.get(one, 0), worst[one].last) for one in many]

    def told(self, blame: Blame, now: float) -> None:
        """Note that the operator has been told of it."""
        fact = {"delivery_id": blame.last, "kind": TOLD, "at": now, "source": blame.reason}
        with self._database.write() as connection:
            connection.execute(insert_new(facts, connection).on_conflict_do_nothing(), fact)


def _facts_of(campaign_id: int, kind: str) -> sa.ColumnElement[bool]:
    """Return the condition "a fact of this kind in this campaign", by the ids between which they stand.

    Never by the deliveries, of which there may be a million: the facts are few. Strangers are among them.
    """
    campaign = campaigns.c.id == campaign_id
    first = sa.select(campaigns.c.first_delivery).where(campaign).scalar_subquery()
    last = sa.select(campaigns.c.last_delivery).where(campaign).scalar_subquery()
    here = deliveries.c.campaign_id + 0 == campaign_id  # the sum keeps the planner from that index
    return sa.and_(facts.c.delivery_id.between(first, last), facts.c.kind == kind, here)


def _told_at(connection: sa.Connection, campaign_id: int) -> float | None:
    query = sa.select(sa.func.max(facts.c.at)).join(deliveries, deliveries.c.id == facts.c.delivery_id)
    at: float | None = connection.execute(query.where(_facts_of(campaign_id, TOLD))).scalar_one()
    return at


def _blamed_since(
    connection: sa.Connection, campaign_id: int, since: float
) -> Sequence[sa.Row[str, str, int, int]]:
    query = (
        sa.select(
            deliveries.c.provider,
            facts.c.source,
            sa.func.count().label("number"),
            sa.func.max(deliveries.c.id).label("last"),
        )
        .join(deliveries, deliveries.c.id == facts.c.delivery_id)
        .where(
            _facts_of(campaign_id, BLAMED),
            facts.c.at > since,
            sa.or_(deliveries.c.settled_at.is_(None), deliveries.c.settled_at > since),
        )
        .group_by(deliveries.c.provider, facts.c.source)
    )
    return connection.execute(query).all()
