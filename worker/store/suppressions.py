"""Whom we must not write to: standing "no"s by keyed hash, which name nobody and outlive erasure.

Owns the suppressions table, and the mark on memberships by which a plan counts them. Refuses: lifting
anything by itself (an import never does; see `Act`), and addresses: callers hash them first.

The mark is set later than the suppression, and only ever by one at a time (`only_writer`): whoever says no
writes that down, notes that their memberships are to be looked at, and never waits for an import that is
just writing those. `heed` does the looking when no import is at its last step. So each suppression was either
seen by the import, or is looked at when what the import wrote can be seen.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, NamedTuple

import sqlalchemy as sa

from worker.deeds import Deed
from worker.errors import WrongUse
from worker.store import keyrings
from worker.store.audit import append
from worker.store.database import Database, insert_new
from worker.store.schema import (
    INVITED,
    deliveries,
    invited,
    memberships,
    no_to_a_topic,
    people,
    suppressions,
    topic_sets,
    unheeded,
)

EVERYTHING = "all"
#: What a person wishes of us for a time (wishes): a pause; and the rest after each mail, of who wants fewer.
#: These alone end by themselves.
PAUSE, REST = "pause", "rest"
#: Who wants fewer mails; in nobody's way but for the rests that it makes.
FEWER = "fewer"
#: How an opt-out came that its own page can take back, and for how many seconds.
BY_PAGE, UNDO_SECONDS = "page", 1800.0
#: The reason that stands for somebody who asked to be forgotten.
ERASURE = "erasure"
#: Reasons that take the place of milder ones, and that an operator lifts only by naming them.
STRICT: Final = ("complaint", ERASURE)
_TO_TOPIC: Final = "topic:"
_TOPIC: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TOPIC_MOST: Final = 64
#: What a membership's mark says of a "no" to everything or to its list; sets of topics are numbered from 2.
REFUSED: Final = 1
#: Addresses looked at in one transaction; a statement takes so many values and no more.
_HEEDED = 1_000
#: PostgreSQL's number for the right to write memberships.
_MEMBERSHIPS = 0x_746F_6373_696E


def batched(keys: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Yield lists of so many keys."""
    left = iter(keys)
    while some := list(itertools.islice(left, size)):
        yield some


def list_scope(list_id: int) -> str:
    """Return the scope of one list."""
    return f"list:{list_id}"


def topic_scope(slug: str) -> str:
    """Return the scope of one topic; WrongUse where that is no name of one."""
    if not _TOPIC.fullmatch(slug) or len(slug) > _TOPIC_MOST:
        raise WrongUse(
            "a topic is small letters, digits and hyphens, 64 at most", remedy="As in: --topic petitions"
        )
    return f"{_TO_TOPIC}{slug}"


def is_topic(scope: str) -> bool:
    """Tell whether a scope is one topic's, well named."""
    slug = scope.removeprefix(_TO_TOPIC)
    return slug != scope and _TOPIC.fullmatch(slug) is not None and len(slug) <= _TOPIC_MOST


def suppressed(
    address_key: sa.ColumnElement[bytes],
    list_id: sa.ColumnElement[int],
    topics: Collection[str] = (),
    delivery_id: sa.ColumnElement[int] | None = None,
) -> sa.ColumnElement[bool]:
    """Return the SQL condition "this person said no, to everything, to this list, a topic, or for a time".

    Asked of a delivery, the rest that begins with itself does not count.
    """
    of_list = sa.literal("list:").concat(sa.cast(list_id, sa.String))
    of_topics = [sa.literal(f"{_TO_TOPIC}{topic}") for topic in topics]
    scopes = (sa.literal(EVERYTHING), of_list, sa.literal(PAUSE), sa.literal(REST), *of_topics)
    standing = sa.select(sa.literal(1)).where(
        suppressions.c.address_key == address_key, suppressions.c.scope.in_(scopes)
    )
    if delivery_id is not None:
        another = suppressions.c.source != sa.cast(delivery_id, sa.String)
        standing = standing.where(sa.or_(suppressions.c.scope != REST, another))
    return standing.exists()


def stands_firm(
    address_key: sa.ColumnElement[bytes], list_id: sa.ColumnElement[int], since: float | None = None
) -> sa.ColumnElement[bool]:
    """Return the SQL condition "a no stands that coming onto this list by one's own word does not lift"."""
    theirs = suppressions.c.address_key == address_key
    return sa.select(sa.literal(1)).where(theirs, is_firm(list_id, since)).exists()


def is_firm(list_id: sa.ColumnElement[int], since: float | None = None) -> sa.ColumnElement[bool]:
    """Return the SQL condition on a suppression by which coming onto this list does not lift it.

    It is one to everything, an operator's, or one to this list said `since` (UTC seconds).
    """
    said = suppressions.c
    of_list = said.scope == sa.literal("list:").concat(sa.cast(list_id, sa.String))
    firm = [said.scope == EVERYTHING, sa.and_(of_list, said.reason == "operator")]
    if since is not None:
        firm.append(sa.and_(of_list, said.created_at >= since))
    return sa.or_(*firm)


def among(connection: sa.Connection, keys: Collection[bytes]) -> tuple[str, tuple[object, ...]]:
    """Return the condition "is one of these", in the driver's words, and its values.

    SQLAlchemy's own IN names each value in turn, which for thousands of them takes longer than to find them.
    """
    if connection.dialect.name == "sqlite":
        return f"IN ({','.join('?' * len(keys))})", tuple(keys)
    return "= ANY(%b)", (list(keys),)


@dataclass(frozen=True, slots=True)
class Suppression:
    """A standing "do not write"."""

    address_key: bytes
    scope: str  #: "all", "list:<id>", "topic:<slug>" or a wish
    reason: str  #: opt-out, complaint, bounce, operator, imported, erasure
    source: str  #: where it came from: "one-click", "page", "cli", a file's name
    created_at: float  #: UTC seconds
    ends_at: float | None = None  #: UTC seconds; None: it never ends by itself
    #: Where an address was just hashed: its hash under each look-up key we have, in place of the one above.
    #: Empty: the key was read from the store in this transaction.
    forms: tuple[bytes, ...] = ()


class Act(Enum):
    """By whose act a "no" is lifted. An import is none."""

    #: The person's own, confirmed from their mailbox (double opt-in): all but what an operator has set.
    CONFIRMED = auto()
    #: An operator's, with a stated reason: not over a complaint or a wish to be forgotten, unless named.
    OPERATOR = auto()


_LIFTS: Final[Mapping[Act, tuple[str, ...]]] = {
    Act.CONFIRMED: ("opt-out", "bounce", "imported", *STRICT),
    Act.OPERATOR: ("opt-out", "bounce", "imported", "operator"),
}


class Lifted(NamedTuple):
    """What a lifting came to."""

    lifted: int  #: entries that stand no more
    left: Sequence[Suppression]  #: entries that this act cannot lift


def add_within(connection: sa.Connection, entries: Sequence[Suppression]) -> int:
    """Write entries inside the caller's transaction; those that stand already stay, but for a strict reason.

    But for one: an opt-out that its page could still take back becomes the one that comes now, for whoever
    says no twice, or complains after it, has not taken that back.

    Returns:
        How many were new.
    """
    if not entries:
        return 0
    entries = _as_held(connection, entries)
    # In one order, whoever writes: two who bring the same people would else wait for each other (PostgreSQL).
    rows = [
        {
            "address_key": one.address_key,
            "scope": one.scope,
            "reason": one.reason,
            "source": one.source,
            "created_at": one.created_at,
        }
        for one in sorted(entries, key=lambda one: (one.address_key, one.scope))
    ]
    statement = insert_new(suppressions, connection).on_conflict_do_nothing()
    new = connection.execute(statement, rows, execution_options={"preserve_rowcount": True}).rowcount
    if new < len(rows):
        _confirm(connection, [one for one in rows if one["source"] != BY_PAGE])
    connection.execute(sa.insert(unheeded), [{"address_key": one["address_key"]} for one in rows])
    for reason in STRICT:
        _harden(connection, [one for one in rows if one["reason"] == reason], reason)
    return new


def undoable_since(connection: sa.Connection, key: bytes, scope: str, now: float) -> float | None:
    """Return when the opt-out was written that its page can take back now; None where none stands."""
    query = sa.select(suppressions.c.created_at).where(
        suppressions.c.address_key == key,
        suppressions.c.scope == scope,
        suppressions.c.reason == "opt-out",
        suppressions.c.source == BY_PAGE,
        suppressions.c.created_at > now - UNDO_SECONDS,
    )
    at: float | None = connection.execute(query).scalar_one_or_none()
    return at


def _confirm(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Put what is said now in the place of an opt-out that its page could still take back."""
    if rows:
        said = suppressions.c
        change = sa.update(suppressions).where(
            said.address_key == sa.bindparam("key"),
            said.scope == sa.bindparam("of"),
            said.source == BY_PAGE,
            said.reason == "opt-out",
            said.created_at > sa.bindparam("at", type_=sa.Double) - UNDO_SECONDS,
        )
        change = change.values(
            reason=sa.bindparam("why"), source=sa.bindparam("from"), created_at=sa.bindparam("at")
        )
        names = {"key": "address_key", "of": "scope", "why": "reason", "from": "source", "at": "created_at"}
        connection.execute(change, [{new: one[name] for new, name in names.items()} for one in rows])


def _harden(connection: sa.Connection, rows: Sequence[Mapping[str, object]], reason: str) -> None:
    """Let a strict reason take a milder one's place; when they said no, and how, stays as their proof."""
    if rows:
        harder = STRICT[STRICT.index(reason) :]
        change = sa.update(suppressions).where(
            suppressions.c.address_key == sa.bindparam("key"),
            suppressions.c.scope == sa.bindparam("of"),
            suppressions.c.reason.not_in(harder),
        )
        keys = [{"key": one["address_key"], "of": one["scope"]} for one in rows]
        connection.execute(change.values(reason=reason), keys)


def lift_within(
    connection: sa.Connection,
    keys: Collection[bytes],
    scope: str | None,
    act: Act,
    deed: Deed,
    *,
    since: float = 0.0,
    although: Collection[str] = (),
) -> Lifted:
    """Lift one person's suppressions inside the caller's transaction, and write the deed down if there were.

    Among every scope is a pause, which was "nothing until then". That they want fewer mails is no "no": it
    stays, and with it the rest that it makes.

    The deed is the last thing written: nothing else of the transaction may follow (see audit.append).

    Args:
        connection: of a write transaction.
        keys: every hash of one address.
        scope: which one; None: every scope.
        act: by whose act, which decides what reasons it can lift.
        deed: for the audit log; `deeds.PERSON` acts where it is the person.
        since: UTC seconds; only what was said since then.
        although: strict reasons that an operator lifts all the same.
    """
    standing = sa.select(suppressions).where(suppressions.c.address_key.in_(keys))
    if scope is not None:
        standing = standing.where(suppressions.c.scope == scope)
    reasons = {*_LIFTS[act], *although}
    found = [Suppression(*row) for row in connection.execute(standing.where(suppressions.c.scope != REST))]
    lifted = [
        one for one in found if (one.reason in reasons or one.scope == PAUSE) and one.created_at >= since
    ]
    for one in lifted:
        this = suppressions.c.address_key == one.address_key, suppressions.c.scope == one.scope
        connection.execute(sa.delete(suppressions).where(*this))
        connection.execute(sa.insert(unheeded).values(address_key=one.address_key))
    if lifted:
        said = sorted({one.reason for one in lifted})
        first = lifted[0].address_key.hex()
        append(connection, deed.noting(key=first, lifted=len(lifted), had_said=said))
    return Lifted(len(lifted), [one for one in found if one not in lifted])


def _as_held(connection: sa.Connection, entries: Sequence[Suppression]) -> Sequence[Suppression]:
    """Put each address just hashed under the key that its person is held under, else under today's.

    While hashes are changed, some people are held under the old one and some under the new; a "no" under the
    other would be found by no claim.
    """
    if not any(one.forms for one in entries):
        return entries
    keyrings.hold(connection, alone=False)
    today = keyrings.use(connection)
    found = [one for one in entries if one.forms]
    if today is not None and any(max(form[0] for form in one.forms) < today.lookup for one in found):
        raise WrongUse(
            f"the key ring here lacks key {today.lookup}, which the database uses since a moment ago",
            remedy="Copy var/secret.toml here from where `tocsin keys new` ran, and repeat: it is safe.",
        )
    held = _held(connection, [form for one in found if len(one.forms) > 1 for form in one.forms])
    return [replace(one, address_key=_chosen(one, held, today)) if one.forms else one for one in entries]


def _held(connection: sa.Connection, forms: Sequence[bytes]) -> set[bytes]:
    """Return those of the hashes under which somebody is held."""
    found: set[bytes] = set()
    for some in batched(forms, _HEEDED):
        clause, values = among(connection, some)
        query = f"SELECT address_key FROM people WHERE address_key {clause}"
        found.update(bytes(row[0]) for row in connection.exec_driver_sql(query, values))
    return found


def _chosen(one: Suppression, held: Collection[bytes], today: keyrings.Use | None) -> bytes:
    theirs = [form for form in one.forms if form in held]
    todays = [form for form in one.forms if today is not None and form[0] == today.lookup]
    return (*theirs, *todays, one.forms[0])[0]


def keys_now(connection: sa.Connection, delivery_ids: Collection[int]) -> dict[int, bytes]:
    """Return the hashes of whom these deliveries or invitations are for, as they are until the end of this.

    Locked against a change of the hash only: a "no" under one that is just changed would be found by nobody.
    """
    found: dict[int, bytes] = {}
    for table, first, last in ((deliveries, 0, INVITED), (invited, INVITED, 2 * INVITED)):
        ids = [number - first for number in delivery_ids if first <= number < last]
        query = sa.select(table.c.id, table.c.address_key).where(table.c.id.in_(ids))
        query = query.order_by(table.c.id).with_for_update(read=True, key_share=True)
        if ids:
            found |= {row.id + first: row.address_key for row in connection.execute(query)}
    return found


def rename_within(connection: sa.Connection, names: Mapping[bytes, bytes]) -> int:
    """Put what stands under the first of each two hashes under the second; return how many entries did.

    What stands under the second already stays, but for a strict reason. The caller has seen to it that the
    second one is what the person is held under.
    """
    count = 0
    for some in batched(names, _HEEDED):
        rows = connection.execute(sa.select(suppressions).where(suppressions.c.address_key.in_(some))).all()
        if rows:
            moved = [{**row._mapping, "address_key": names[row.address_key]} for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for it
            moved.sort(key=lambda row: (row["address_key"], row["scope"]))
            connection.execute(insert_new(suppressions, connection).on_conflict_do_nothing(), moved)
            for reason in STRICT:
                _harden(connection, [one for one in moved if one["reason"] == reason], reason)
            connection.execute(sa.delete(suppressions).where(suppressions.c.address_key.in_(some)))
            news = {names[row.address_key] for row in rows}
            connection.execute(sa.insert(unheeded), [{"address_key": one} for one in sorted(news)])
        count += len(rows)
    return count


def only_writer(connection: sa.Connection, *, wait: bool) -> bool:
    """Be the only one who writes memberships until the transaction ends; False if somebody else is."""
    if connection.dialect.name == "sqlite":
        return True  # who writes at all is alone
    if not wait:
        free = sa.select(sa.func.pg_try_advisory_xact_lock(_MEMBERSHIPS))
        return bool(connection.execute(free).scalar_one())
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MEMBERSHIPS)))
    return True


def heed(database: Database) -> None:
    """Mark the memberships of whoever said no, or took it back, for plans to count.

    While an import is at its last step nothing is marked, and nothing is forgotten.
    """
    while _is_news(database):
        with database.write() as connection:
            if not only_writer(connection, wait=False):
                return
            _heed_some(connection)


def _is_news(database: Database) -> bool:
    with database.read() as connection:  # most of the time: no write, no lock
        return connection.execute(sa.select(unheeded.c.id).limit(1)).first() is not None


def _heed_some(connection: sa.Connection) -> None:
    some = connection.execute(sa.select(unheeded).order_by(unheeded.c.id).limit(_HEEDED)).all()
    for mark, keys in _by_topics(connection, {row.address_key for row in some}).items():
        # To everything or to the list weighs more than to any topics.
        said_no = suppressed(people.c.address_key, memberships.c.list_id)
        refused = sa.case((said_no, REFUSED), else_=mark)
        connection.execute(
            sa.update(memberships)
            .where(
                memberships.c.person_id == people.c.id,
                people.c.address_key.in_(keys),
                memberships.c.refused != refused,
            )
            .values(refused=refused)
        )
    # By their own ids: one with a lower id may be committed after this look.
    connection.execute(sa.delete(unheeded).where(unheeded.c.id.in_([row.id for row in some])))


def _by_topics(connection: sa.Connection, keys: Collection[bytes]) -> Mapping[int, Collection[bytes]]:
    """Sort people by the set of topics that they said no to, 0 for none; a new set gets its number."""
    query = sa.select(suppressions.c.address_key, suppressions.c.scope)
    refused: dict[bytes, set[str]] = {key: set() for key in keys}
    for key, scope in connection.execute(query.where(suppressions.c.address_key.in_(keys), no_to_a_topic)):
        refused[key].add(scope.removeprefix(_TO_TOPIC))
    numbers = {topics: number for number, topics in sets_of_topics(connection).items()}
    numbers[frozenset()] = 0
    found = defaultdict[int, list[bytes]](list)
    for key, topics in refused.items():
        number = numbers.setdefault(frozenset(topics), max(*numbers.values(), REFUSED) + 1)
        if number not in found and number:
            made = insert_new(topic_sets, connection).values(id=number, topics=" ".join(sorted(topics)))
            connection.execute(made.on_conflict_do_nothing())
        found[number].append(key)
    return found


def sets_of_topics(connection: sa.Connection) -> Mapping[int, frozenset[str]]:
    """Return the sets of topics that people said no to, by the number that marks their memberships."""
    return {row.id: frozenset(row.topics.split()) for row in connection.execute(sa.select(topic_sets))}


class Suppressions:
    """The standing "no"s, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    def add(self, entries: Sequence[Suppression], deed: Deed | None = None) -> int:
        """Write entries; idempotent. Returns how many were new.

        Args:
            entries: what stands from now on.
            deed: what an operator does, for the audit log; None: it is not an operator who does it.
        """
        with self._database.write() as connection:
            new = add_within(connection, entries)
            if deed is not None:
                append(connection, deed.noting(addresses=len(entries), new=new))
        heed(self._database)
        return new

    def lift(
        self,
        keys: Collection[bytes],
        scope: str | None,
        act: Act,
        deed: Deed,
        *,
        since: float = 0.0,
        although: Collection[str] = (),
    ) -> Lifted:
        """Lift one person's suppressions in a transaction of its own (see lift_within)."""
        with self._database.write() as connection:
            done = lift_within(connection, keys, scope, act, deed, since=since, although=although)
        heed(self._database)
        return done

    def find(self, address_key: bytes) -> Sequence[Suppression]:
        """Return what stands against writing to this person."""
        query = sa.select(suppressions).where(suppressions.c.address_key == address_key)
        with self._database.read() as connection:
            return [Suppression(*row) for row in connection.execute(query)]

    def scopes(self, address_keys: Collection[bytes]) -> Sequence[tuple[bytes, str]]:
        """Return what those of the keys said no to who said any: key and scope."""
        with self._database.read() as connection:
            clause, values = among(connection, address_keys)
            query = f"SELECT address_key, scope FROM suppressions WHERE address_key {clause}"
            return [(key, scope) for key, scope in connection.exec_driver_sql(query, values)]

    def standing(self, address_keys: Sequence[bytes]) -> Sequence[Suppression]:
        """Return what stands under any of these keys, however many, and does not end by itself."""
        found: list[Suppression] = []
        with self._database.read() as connection:
            for some in batched(address_keys, _HEEDED):
                query = sa.select(suppressions).where(suppressions.c.address_key.in_(some))
                rows = connection.execute(query.where(suppressions.c.ends_at.is_(None)))
                found += [Suppression(*row) for row in rows]
        return found

    def all(self) -> Iterator[Suppression]:
        """Yield every "no" that does not end by itself, by key; memory stays flat."""
        lasting = suppressions.c.ends_at.is_(None), suppressions.c.scope != FEWER
        query = (
            sa.select(suppressions).where(*lasting).order_by(suppressions.c.address_key, suppressions.c.scope)
        )
        with self._database.read() as connection:
            for row in connection.execution_options(yield_per=1000).execute(query):
                yield Suppression(*row)
