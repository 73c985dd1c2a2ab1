"""How often each link of a campaign was followed: counts by variant and link, and nothing about who.

Owns the visits table. Refuses: anything finer than a sum. It holds no time, no address and no delivery.
"""

from collections.abc import Mapping
from typing import TypeAlias

import sqlalchemy as sa

from worker.store.database import Database, insert_new
from worker.store.schema import visits

#: A campaign's id, the variant of its mail ("en", "en discreet"), and the number of the link in it.
Followed: TypeAlias = tuple[int, str, int]


class Visits:
    """The counts, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def add(self, counts: Mapping[Followed, int]) -> None:
        """Add to the counts, all of them or none; Unavailable when the database is away."""
        rows = [
            {"campaign_id": campaign, "variant": variant, "link": link, "count": count}
            for (campaign, variant, link), count in sorted(counts.items())
        ]
        with self._database.write() as connection:
            new = insert_new(visits, connection)
            summed = {"count": visits.c.count + new.excluded.count}
            connection.execute(
                new.on_conflict_do_update(index_elements=["campaign_id", "variant", "link"], set_=summed),
                rows,
            )

    def of(self, campaign_id: int) -> Mapping[tuple[str, int], int]:
        """Return how often each (variant, number of a link) was followed."""
        query = sa.select(visits.c.variant, visits.c.link, visits.c.count)
        with self._database.read() as connection:
            rows = connection.execute(query.where(visits.c.campaign_id == campaign_id))
            return {(variant, link): count for variant, link, count in rows}
