"""Who will be written to, and why each other one will not.

Owns the audience rule and the statements that apply it: `chosen`, by which the launch writes, and `kinds`, by
which the plan counts; a test holds them together. Refuses: writing anything, and the claim's own last look
(ledger).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from worker.store.bars import barred_shapes, reasons
from worker.store.schema import barred, memberships, people
from worker.store.suppressions import REFUSED, sets_of_topics, suppressed

#: Why somebody is left out, mildest first: among several lists the mildest reason counts.
_REASONS = ("", "no consent", "suppressed")
#: The same people's memberships of another list. Made once: that takes longer than to ask.
_OTHER = memberships.alias("other")


@dataclass(frozen=True, slots=True)
class Rule:
    """Whom a campaign addresses: everyone on these lists, less those the rules leave out."""

    lists: tuple[int, ...]  #: list ids
    limit: int | None = None  #: only the first so many who may be written to
    require_consent: bool = True  #: leave out who lacks basis, source or date (PECR reg. 22)
    topics: tuple[str, ...] = ()  #: what it is about: who said no to one of these is left out

    def to_json(self) -> str:
        """Return the one text form, fit for a digest."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Rule":
        """Read what `to_json` wrote."""
        facts = json.loads(text)
        return cls(
            tuple(facts["lists"]), facts["limit"], facts["require_consent"], tuple(facts.get("topics", ()))
        )


@dataclass(frozen=True, slots=True)
class Kind:
    """People of one shape whom one reason concerns."""

    shape: int  #: see the schema's memberships
    reason: str  #: "": they would be written to
    count: int
    example: int  #: the id of one person of this shape


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


def chosen(rule: Rule, *, after: int, upto: int, barring: bool) -> sa.Select[int, bytes, str, int, str]:
    """Return the statement: person_id, address_key, provider, list_id, reason ("" = may be written to).

    One row for each person with an id in that range, in the order of their ids, considered once however many
    lists they are on. The rule's limit is the caller's to apply; `barring`: there are never-mail rules.
    """
    ranked = (
        sa.select(
            people.c.id.label("person_id"),
            people.c.address_key,
            people.c.provider,
            memberships.c.list_id,
            _rank(rule).label("rank"),
            memberships.c.shape,
        )
        .join(people, people.c.id == memberships.c.person_id)
        .where(
            memberships.c.list_id.in_(rule.lists),
            memberships.c.person_id > after,
            memberships.c.person_id <= upto,
        )
        .offset(0)  # a fence: else the suppressions are asked anew wherever the rank is named
        .subquery("ranked")
    )
    rank, list_id = ranked.c.rank, ranked.c.list_id
    may = sa.func.min(sa.case((rank == 0, list_id)))
    who = ranked.c.person_id, ranked.c.address_key, ranked.c.provider
    reason = _reason(sa.func.min(rank))
    source: sa.FromClause = ranked
    if barring:  # a person has one shape on all their lists
        bars = barred_shapes()
        source = ranked.outerjoin(bars, bars.c.shape == ranked.c.shape)
        # Whoever lacks consent, or said no, is left out for that.
        reason = sa.case(
            (sa.func.min(rank) > 0, reason), else_=sa.func.coalesce(sa.func.min(bars.c.reason), "")
        )
    return (
        sa.select(
            *who,
            sa.func.coalesce(may, sa.func.min(list_id)).label("list_id"),
            reason.label("reason"),
        )
        .select_from(source)
        .group_by(*who)
        .order_by(ranked.c.person_id)
    )


def kinds(connection: sa.Connection, rule: Rule) -> Sequence[Kind]:
    """Count everybody on the lists by shape and reason; with a limit, only those who may be written to.

    A million people on one list take a tenth of a second: their index of kinds is all that is read.
    """
    ranks, bars = _ranks(rule, sets_of_topics(connection)), reasons(connection)
    upto = None if rule.limit is None else connection.execute(_bound(rule, ranks[0])).scalar_one_or_none()
    within = sa.true() if upto is None else memberships.c.person_id <= upto
    counts: Counter[tuple[int, str]] = Counter()
    examples: dict[int, int] = {}
    for rank, firsts in _firsts(connection, rule, ranks):
        query = sa.select(memberships.c.shape, sa.func.count(), sa.func.min(memberships.c.person_id))
        query = query.where(firsts, within).group_by(memberships.c.shape)
        for shape, count, example in connection.execute(query):
            counts[shape, _REASONS[rank] or bars.get(shape, "")] += count
            examples[shape] = example
    if rule.limit is not None:
        counts = Counter({(shape, reason): count for (shape, reason), count in counts.items() if not reason})
    return [Kind(shape, reason, count, examples[shape]) for (shape, reason), count in counts.items()]


def some(connection: sa.Connection, rule: Rule, number: int) -> Sequence[int]:
    """Return the ids of so many people who would be written to, or of all, picked by chance."""
    may = _ranks(rule, sets_of_topics(connection))[0](memberships)
    bars = reasons(connection)
    ids = sa.select(memberships.c.person_id).where(memberships.c.list_id.in_(rule.lists), *may)
    ids = ids.where(memberships.c.shape.not_in(list(bars))).group_by(memberships.c.person_id)
    return list(connection.execute(ids.order_by(sa.func.random()).limit(number)).scalars())


def _firsts(
    connection: sa.Connection, rule: Rule, ranks: "Sequence[_Ranked]"
) -> Iterator[tuple[int, sa.ColumnElement[bool]]]:
    """Yield ranks and conditions that hold together, over all of them, for one membership of each person.

    That is their first with their best rank. The largest list comes first: only the members of the others are
    looked up one by one.
    """
    lists = list(rule.lists)
    if len(lists) > 1:
        sizes = sa.select(memberships.c.list_id, sa.func.count()).where(memberships.c.list_id.in_(lists))
        rows = connection.execute(sizes.group_by(memberships.c.list_id))
        found = {row.list_id: row[1] for row in rows}
        lists.sort(key=lambda one: found.get(one, 0), reverse=True)
    for rank, ranked in enumerate(ranks if rule.limit is None else ranks[:1]):
        for place, list_id in enumerate(lists):
            better = [~_is_on(other, each) for each in ranks[:rank] for other in lists if other != list_id]
            same = [~_is_on(other, ranked) for other in lists[:place]]
            yield rank, sa.and_(memberships.c.list_id == list_id, *ranked(memberships), *better, *same)


def _is_on(list_id: int, ranked: "_Ranked") -> sa.Exists:
    """Return the condition "this member is on that list too, with this rank"."""
    same = _OTHER.c.list_id == list_id, _OTHER.c.person_id == memberships.c.person_id
    return sa.select(sa.literal(1)).where(*same, *ranked(_OTHER)).exists()


#: The conditions under which a membership has a rank.
_Ranked = Callable[[sa.FromClause], Sequence[sa.ColumnElement[bool]]]


def _ranks(rule: Rule, sets: Mapping[int, frozenset[str]]) -> Sequence[_Ranked]:
    """Return for each of `_REASONS` when a membership stands under it, by the columns kept for this.

    Args:
        rule: what counts as consent, and what it is about.
        sets: topics that people said no to, by the number in the memberships' marks.
    """
    consents = (1,) if rule.require_consent else (0, 1)
    about = {number for number, topics in sets.items() if topics.intersection(rule.topics)}
    against, free = (REFUSED, *about), (0, *(sets.keys() - about))
    return (
        lambda table: (table.c.refused.in_(free), table.c.consented.in_(consents)),
        lambda table: (table.c.refused.in_(free), table.c.consented.not_in(consents)),
        lambda table: (table.c.refused.in_(against),),
    )


def _bound(rule: Rule, ranked: _Ranked) -> sa.Select[int]:
    """Return the statement: the id of the last person within the limit; null when there are fewer."""
    may = ranked(memberships)
    ids = sa.select(memberships.c.person_id).where(memberships.c.list_id.in_(rule.lists), *may)
    ids = ids.where(memberships.c.shape.not_in(sa.select(barred.c.shape)))
    ids = ids if len(rule.lists) == 1 else ids.distinct()
    return ids.order_by(memberships.c.person_id).limit(1).offset((rule.limit or 1) - 1)


def _rank(rule: Rule) -> sa.ColumnElement[int]:
    """Return the place in `_REASONS` of one membership, by what the suppressions say."""
    said_no = suppressed(people.c.address_key, memberships.c.list_id, rule.topics)
    whens = [(said_no, _REASONS.index("suppressed"))]
    if rule.require_consent:
        whens.append((memberships.c.consented == 0, _REASONS.index("no consent")))
    return sa.case(*whens, else_=0)


def _reason(rank: sa.ColumnElement[int]) -> sa.ColumnElement[str]:
    return sa.case(*((rank == number, word) for number, word in enumerate(_REASONS)))
