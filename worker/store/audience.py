"""Who will be written to, and why each other one will not.

Owns the audience rule and the one statement that applies it, used alike by the plan that only counts and by
the launch that writes. Refuses: writing anything, and the claim's own last look (ledger).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from worker.store.schema import consents, memberships, people
from worker.store.suppressions import suppressed

#: Why somebody is left out, mildest first: among several lists the mildest reason counts.
_REASONS = ("", "no consent", "suppressed")


@dataclass(frozen=True, slots=True)
class Rule:
    """Whom a campaign addresses: everyone on these lists, less those the rules leave out."""

    lists: tuple[int, ...]  #: list ids
    limit: int | None = None  #: only the first so many who may be written to
    require_consent: bool = True  #: leave out who lacks basis, source or date (PECR reg. 22)

    def to_json(self) -> str:
        """Return the one text form, fit for a digest."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Rule":
        """Read what `to_json` wrote."""
        facts = json.loads(text)
        return cls(tuple(facts["lists"]), facts["limit"], facts["require_consent"])


def last_of_slice(rule: Rule, after: int, size: int) -> sa.Select[int]:
    """Return the statement: the id at which the next `size` people on the lists end, or null.

    Bounding a slice by two ids first keeps each slice's cost flat: the planner walks one range of an index,
    where a LIMIT over joins and groups would make it sort all who are left.
    """
    ids = (
        sa.select(memberships.c.person_id)
        .where(memberships.c.list_id.in_(rule.lists), memberships.c.person_id > after)
        .order_by(memberships.c.person_id)
        .limit(size)
        .subquery()
    )
    return sa.select(sa.func.max(ids.c.person_id))


def chosen(rule: Rule, *, after: int = 0, upto: int | None = None) -> sa.Select[int, bytes, str, int, str]:
    """Return the statement: person_id, address_key, provider, list_id, reason ("" = may be written to).

    One row a person, in the order of their ids, each considered once however many lists they are on; with a
    limit, only those who may be written to.
    """
    rank = _rank(rule)
    may = sa.func.min(sa.case((rank == 0, memberships.c.list_id)))
    best = sa.func.min(rank)
    reason = sa.case(*((best == number, word) for number, word in enumerate(_REASONS)))
    query = (
        sa.select(
            people.c.id.label("person_id"),
            people.c.address_key,
            people.c.provider,
            sa.func.coalesce(may, sa.func.min(memberships.c.list_id)).label("list_id"),
            reason.label("reason"),
        )
        .join(people, people.c.id == memberships.c.person_id)
        .join(consents, consents.c.id == memberships.c.consent_id)
        .where(memberships.c.list_id.in_(rule.lists), memberships.c.person_id > after)
        .group_by(memberships.c.person_id, people.c.id, people.c.address_key, people.c.provider)
        .order_by(memberships.c.person_id)
    )
    if rule.limit is not None:
        query = query.having(best == 0).limit(rule.limit)
    return query if upto is None else query.where(memberships.c.person_id <= upto)


def count_by_reason(connection: sa.Connection, rule: Rule) -> Mapping[str, int]:
    """Return how many people stand under each reason; "" counts those who would be written to."""
    everyone = chosen(rule).subquery()
    rows = connection.execute(sa.select(everyone.c.reason, sa.func.count()).group_by(everyone.c.reason))
    return dict(rows.all())


def _rank(rule: Rule) -> sa.ColumnElement[int]:
    """Return the place in `_REASONS` of one membership."""
    whens: list[tuple[sa.ColumnElement[bool], int]] = [
        (suppressed(people.c.address_key, memberships.c.list_id), _REASONS.index("suppressed"))
    ]
    if rule.require_consent:
        lacking = sa.or_(
            consents.c.basis == "", consents.c.source == "", memberships.c.consented_at.is_(None)
        )
        whens.append((lacking, _REASONS.index("no consent")))
    return sa.case(*whens, else_=0)
