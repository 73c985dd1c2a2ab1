"""What a person wishes of us short of a "no": a pause, fewer mails; and the opt-out they take back at once.

Owns the entries among the suppressions that end by themselves, and how "fewer" is held: the claim of a mail
begins a rest, in which no other is claimed. Refuses: to lift a "no", but for the one that its own page wrote
in the last half hour and that nobody has repeated since.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from worker.store.database import Database, insert_new
from worker.store.schema import campaigns, deliveries, facts, suppressions, unheeded
from worker.store.suppressions import BY_PAGE, FEWER, PAUSE, REST, heed, keys_now

#: Seconds from one mail to the next for who wants fewer.
REST_SECONDS = 30 * 86_400.0
#: What stands as the reason of all of these.
_REASON = "wish"
#: What says that a mail was sent, or may have been.
_BEGUN = ("sending", "sent", "unconfirmed")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person has wished."""

    paused_until: float | None = None  #: UTC seconds
    fewer: bool = False


def standing(connection: sa.Connection, key: bytes) -> Wishes:
    """Return what this person has wished so far."""
    query = sa.select(suppressions.c.scope, suppressions.c.ends_at)
    rows = connection.execute(
        query.where(suppressions.c.address_key == key, suppressions.c.reason == _REASON)
    )
    ends = {row.scope: row.ends_at for row in rows}
    return Wishes(ends.get(PAUSE), FEWER in ends)


def wish(connection: sa.Connection, key: bytes, wishes: Wishes, now: float) -> None:
    """Write down what this person wishes from now on, instead of what they wished before."""
    before = standing(connection, key)
    if wishes.paused_until is None:
        _remove(connection, key, PAUSE)
    elif wishes.paused_until != before.paused_until:
        _put(connection, key, PAUSE, BY_PAGE, now, wishes.paused_until)
    if before.fewer and not wishes.fewer:
        _remove(connection, key, FEWER, REST)
    elif wishes.fewer and not before.fewer:
        _put(connection, key, FEWER, BY_PAGE, now, None)
        began = _last_begun(connection, key, now)
        if began is not None and began + REST_SECONDS > now:
            _put(connection, key, REST, BY_PAGE, now, began + REST_SECONDS)
    connection.execute(sa.insert(unheeded).values(address_key=key))


def wants_fewer(address_key: sa.ColumnElement[bytes]) -> sa.ColumnElement[bool]:
    """Return the SQL condition "this person wants fewer mails"."""
    wished = suppressions.c.address_key == address_key, suppressions.c.scope == FEWER
    return sa.select(sa.literal(1)).where(*wished).exists()


def begin_rests(connection: sa.Connection, claimed: Mapping[int, bytes], now: float) -> Sequence[int]:
    """Begin a rest with each of these deliveries to people who want fewer mails.

    Two campaigns may claim one person at the same moment: the entry in the table lets one of them.

    Returns:
        The deliveries that may not be sent, because another mail's rest stands.
    """
    late = []
    for number, key in sorted(claimed.items(), key=lambda one: one[1]):
        rest = {"reason": _REASON, "source": str(number), "created_at": now, "ends_at": now + REST_SECONDS}
        mine = insert_new(suppressions, connection).values(address_key=key, scope=REST, **rest)
        begun = mine.on_conflict_do_nothing().returning(suppressions.c.scope)
        if connection.execute(begun).first() is not None:
            connection.execute(sa.insert(unheeded).values(address_key=key))
        elif _source(connection, key) != str(number):
            late.append(number)
    return late


def end_due(database: Database, now: float) -> int:
    """Take away the wishes whose time is over; return how many."""
    over = suppressions.c.ends_at.is_not(None), suppressions.c.ends_at <= now
    with database.read() as connection:  # most of the time: no write, no lock
        if connection.execute(sa.select(suppressions.c.scope).where(*over).limit(1)).first() is None:
            return 0
    with database.write() as connection:
        ended = sa.delete(suppressions).where(*over).returning(suppressions.c.address_key)
        keys = list(connection.execute(ended).scalars())
        if keys:
            connection.execute(sa.insert(unheeded), [{"address_key": key} for key in keys])
    heed(database)
    return len(keys)


def forget(connection: sa.Connection, keys: Sequence[bytes]) -> None:
    """Take away what these have wished: they have asked to be forgotten."""
    wished = suppressions.c.address_key.in_(keys), suppressions.c.reason == _REASON
    connection.execute(sa.delete(suppressions).where(*wished))


def take_back(connection: sa.Connection, delivery_id: int, scope: str, at: float) -> bytes | None:
    """Undo the opt-out that the page of this delivery wrote at that moment; return whose it was.

    None if it does not stand as such: repeated since, by whatever way, or its person has been forgotten.
    """
    key = keys_now(connection, [delivery_id]).get(delivery_id)
    said = suppressions.c.address_key == key, suppressions.c.scope == scope, suppressions.c.created_at == at
    ours = suppressions.c.reason == "opt-out", suppressions.c.source == BY_PAGE
    gone = sa.delete(suppressions).where(*said, *ours).returning(suppressions.c.address_key)
    found: bytes | None = connection.execute(gone).scalar_one_or_none()
    if found is None:
        return None
    told = facts.c.delivery_id == delivery_id, facts.c.kind == "opted out", facts.c.source == BY_PAGE
    connection.execute(sa.delete(facts).where(*told, facts.c.at >= at))
    connection.execute(sa.insert(unheeded).values(address_key=found))
    return found


def _put(
    connection: sa.Connection, key: bytes, scope: str, source: str, now: float, ends_at: float | None
) -> None:
    values = {"reason": _REASON, "source": source, "created_at": now, "ends_at": ends_at}
    one = insert_new(suppressions, connection).values(address_key=key, scope=scope, **values)
    connection.execute(one.on_conflict_do_update(index_elements=["address_key", "scope"], set_=values))


def _remove(connection: sa.Connection, key: bytes, *scopes: str) -> None:
    these = suppressions.c.address_key == key, suppressions.c.scope.in_(scopes)
    connection.execute(sa.delete(suppressions).where(*these))


def _source(connection: sa.Connection, key: bytes) -> str | None:
    query = sa.select(suppressions.c.source)
    query = query.where(suppressions.c.address_key == key, suppressions.c.scope == REST)
    return connection.execute(query).scalar_one_or_none()


def _last_begun(connection: sa.Connection, key: bytes, now: float) -> float | None:
    """Return when we last sent them something, or may have; what is in a sender's hand goes now."""
    # By campaign as well: that is the index there is.
    mails = sa.select(sa.func.max(sa.func.coalesce(deliveries.c.settled_at, now))).where(
        deliveries.c.campaign_id.in_(sa.select(campaigns.c.id)),
        deliveries.c.address_key == key,
        deliveries.c.state.in_(_BEGUN),
    )
    last: float | None = connection.execute(mails).scalar_one()
    return last
