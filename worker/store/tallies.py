"""What happened, counted: per state and reason, provider and hour, and the facts that came later.

Owns the questions a report asks of the deliveries. Refuses: writing, and naming a person.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from worker.deliveries import State
from worker.store.database import Database
from worker.store.schema import campaigns, deliveries, facts

#: No fact about a person: at this moment the operator was told of mail of this campaign that came back for a
#: fault of ours, so that from then on it counts anew (aftermath).
TOLD = "told"


def of_campaign(campaign_id: int) -> sa.ColumnElement[bool]:
    """Return the condition "a delivery of this campaign", by the ids between which they stand.

    By the index of campaign and address, a million deliveries would be fetched one by one in the order of
    their hashes: 4 s on SQLite instead of 0.4 s.
    """
    campaign = campaigns.c.id == campaign_id
    first = sa.select(campaigns.c.first_delivery).where(campaign).scalar_subquery()
    last = sa.select(campaigns.c.last_delivery).where(campaign).scalar_subquery()
    # The sum keeps the planner from that index.
    return sa.and_(deliveries.c.id.between(first, last), deliveries.c.campaign_id + 0 == campaign_id)


def taken(
    connection: sa.Connection, campaign_id: int, providers: Sequence[str], since: float = 0.0
) -> Mapping[str, int]:
    """Return how many mails of a campaign each provider took since then."""
    if not providers:
        return {}
    query = sa.select(deliveries.c.provider, sa.func.count()).where(
        of_campaign(campaign_id),
        deliveries.c.state == State.SENT,
        deliveries.c.settled_at > since,
        deliveries.c.provider.in_(providers),
    )
    return dict(connection.execute(query.group_by(deliveries.c.provider)).all())


class Tallies:
    """The counts of every campaign, read from the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def tally(self, campaign_id: int) -> Mapping[tuple[str, str], int]:
        """Return how many deliveries stand in each (state, reason)."""
        return self._counts(campaign_id, deliveries.c.state, deliveries.c.reason)

    def providers(self, campaign_id: int) -> Mapping[tuple[str, str], int]:
        """Return how many deliveries stand in each (provider, state)."""
        return self._counts(campaign_id, deliveries.c.provider, deliveries.c.state)

    def hours(self, campaign_id: int) -> Mapping[tuple[int, str], int]:
        """Return how many deliveries were settled in each (hour as UTC seconds, state)."""
        hour = sa.cast(sa.func.floor(deliveries.c.settled_at / 3600), sa.BigInteger) * 3600
        return self._counts(campaign_id, hour, deliveries.c.state, deliveries.c.settled_at.is_not(None))

    def facts(self, campaign_id: int) -> Mapping[tuple[str, str], int]:
        """Return how many deliveries have each (fact, its reason or way) added to how they ended."""
        query = (
            sa.select(facts.c.kind, facts.c.source, sa.func.count())
            .join(deliveries, deliveries.c.id == facts.c.delivery_id)
            .where(of_campaign(campaign_id), facts.c.kind != TOLD)
            .group_by(facts.c.kind, facts.c.source)
        )
        with self._database.read() as connection:
            return {(kind, source): count for kind, source, count in connection.execute(query)}

    def unconfirmed(self, campaign_id: int) -> Sequence[tuple[int, str, float]]:
        """Return (delivery id, reason, when) of those that only a person can settle."""
        query = (
            sa.select(deliveries.c.id, deliveries.c.reason, deliveries.c.settled_at)
            .where(of_campaign(campaign_id), deliveries.c.state == "unconfirmed")
            .order_by(deliveries.c.id)
        )
        with self._database.read() as connection:
            return [tuple(row) for row in connection.execute(query)]

    def _counts(
        self,
        campaign_id: int,
        first: sa.ColumnElement[Any],
        second: sa.ColumnElement[Any],
        *where: sa.ColumnElement[bool],
    ) -> Mapping[Any, int]:
        query = sa.select(first, second, sa.func.count())
        query = query.where(of_campaign(campaign_id), *where).group_by(first, second)
        with self._database.read() as connection:
            return {(one, other): count for one, other, count in connection.execute(query)}
