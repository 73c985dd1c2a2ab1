"""The policies of lists as rows, and the one condition by which a membership meets one.

Owns `memberships.consented`, which plans, launches and claims ask; it is set anew for a whole list when its
policy changes. Refuses: deciding what a policy asks for (worker.policies).
"""

from collections.abc import Sequence

import sqlalchemy as sa

from worker.deeds import Deed
from worker.policies import CHARITY_SINCE, OFFERED, Ground, Policy
from worker.store.audit import append
from worker.store.database import Database
from worker.store.schema import consents, lists, memberships
from worker.store.suppressions import only_writer


def of_list(connection: sa.Connection, list_id: int) -> Policy:
    """Return a list's policy."""
    query = sa.select(lists.c.policy).where(lists.c.id == list_id)
    return Policy.from_json(connection.execute(query).scalar_one())


def meets(
    policy: Policy, consented_at: sa.ColumnElement[float], confirmed_at: sa.ColumnElement[float]
) -> sa.ColumnElement[bool]:
    """Return the SQL condition "this consent, given and confirmed then, is what the list asks for"."""
    asked = [consents.c.basis != "", consents.c.source != "", consented_at.is_not(None)]
    if policy.is_set:
        charity_old = sa.and_(consents.c.ground == Ground.CHARITY, consented_at < CHARITY_SINCE)
        asked += [sa.or_(consents.c.ground.not_in(OFFERED), consents.c.offered == 1), sa.not_(charity_old)]
    if policy.grounds:
        asked.append(consents.c.ground.in_(policy.grounds))
    if policy.wording:
        asked.append(consents.c.wording != "")
    if policy.offered:
        asked.append(consents.c.offered == 1)
    if policy.confirmed:
        asked.append(confirmed_at.is_not(None))
    return sa.and_(*asked)


def lack(connection: sa.Connection, lists_of: Sequence[int], since: float) -> bool:
    """Tell whether one of these lists has changed its policy since then: a claim must look again."""
    query = sa.select(sa.func.max(lists.c.policy_at)).where(lists.c.id.in_(lists_of))
    return (connection.execute(query).scalar_one() or 0.0) >= since


def consenting(person_id: sa.ColumnElement[int], lists_of: Sequence[int]) -> sa.ColumnElement[bool]:
    """Return the SQL condition "this person's consent is what one of these lists asks for"."""
    theirs = memberships.c.person_id == person_id, memberships.c.list_id.in_(lists_of)
    return sa.select(sa.literal(1)).where(*theirs, memberships.c.consented == 1).exists()


class Policies:
    """The policies, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def get(self, list_id: int) -> Policy:
        """Return a list's policy."""
        with self._database.read() as connection:
            return of_list(connection, list_id)

    def meeting(self, list_id: int) -> tuple[int, int]:
        """Return how many members there are, and how many have what the policy asks for."""
        sums = sa.func.count(), sa.func.coalesce(sa.func.sum(memberships.c.consented), 0)
        with self._database.read() as connection:
            row = connection.execute(sa.select(*sums).where(memberships.c.list_id == list_id)).one()
        return int(row[0]), int(row[1])

    def special_names(self, list_ids: Sequence[int]) -> tuple[str, ...]:
        """Return what those of the lists are called that are special-category: slugs and titles."""
        query = sa.select(lists.c.slug, lists.c.title, lists.c.policy).where(lists.c.id.in_(list_ids))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(lists.c.slug)).all()
        special = [row for row in rows if Policy.from_json(row.policy).special]
        return tuple(dict.fromkeys(name for row in special for name in (row.slug, row.title) if name))

    def any_discreet(self, list_ids: Sequence[int]) -> bool:
        """Tell whether one of the lists wants the discreet form for everybody."""
        query = sa.select(lists.c.policy).where(lists.c.id.in_(list_ids))
        with self._database.read() as connection:
            return any(Policy.from_json(text).discreet for text in connection.execute(query).scalars())

    def set(self, list_id: int, policy: Policy, now: float, deed: Deed) -> None:
        """Give a list a policy, and look at every membership anew, in one transaction."""
        with self._database.write() as connection:
            only_writer(connection, wait=True)
            values = {"policy": policy.to_json(), "policy_at": now}
            connection.execute(sa.update(lists).where(lists.c.id == list_id).values(**values))
            met = meets(policy, memberships.c.consented_at, memberships.c.confirmed_at)
            consented = sa.case((met, 1), else_=0)
            connection.execute(
                sa.update(memberships)
                .where(
                    memberships.c.list_id == list_id,
                    memberships.c.consent_id == consents.c.id,
                    memberships.c.consented != consented,
                )
                .values(consented=consented)
            )
            append(connection, deed)
