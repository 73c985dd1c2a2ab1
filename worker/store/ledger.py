"""What is in whose hands and how it ended: lease, take, settle, give back, recover.

Owns every write to a delivery that is being sent. Each function is one transaction,
and each write names its lease (the fence): an owner who wakes up late changes nothing that has moved on.
Refuses: deciding what a reply means (deliveries), talking SMTP, and holding a transaction open meanwhile.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from worker.bars import Bar
from worker.deliveries import State
from worker.store.audience import Rule
from worker.store.bars import standing
from worker.store.database import Database
from worker.store.policies import consenting, lack
from worker.store.schema import batches, campaigns, deliveries, delivery_is_open, leases, people
from worker.store.suppressions import suppressed
from worker.store.wishes import begin_rests, wants_fewer

#: How long a batch rests when all that is left of it is in the hands of a stalled owner.
STALLED_SECONDS = 15.0
#: The person of a delivery whose person was erased; no person has this id.
NOBODY = 0

_WAITING = ("queued", "deferred")


@dataclass(frozen=True, slots=True)
class Lease:
    """A batch in one process's hands, until a time."""

    id: int  #: the fence: unique over all batches and times
    batch_id: int
    campaign_id: int
    until: float  #: UTC seconds; past it others may take the rest of the batch
    deadline: float | None = None  #: UTC seconds; nothing is begun after it
    noticed: bool = False  #: the campaign carries a notice that a success would clear


class Claimed(NamedTuple):
    """One delivery that is durably "sending" in our hands; a tuple, for a row becomes one for each mail."""

    id: int
    person_id: int
    sealed: bytes  #: the person's sealed record
    attempts: int  #: tries already used
    provider: str = "other"  #: whose pace it keeps


class Outcome(NamedTuple):
    """How one delivery goes on, as it is to be written down; a tuple, for each mail has one."""

    id: int
    state: State
    reason: str = ""
    due_at: float = 0.0
    tried: bool = True  #: whether this used up an attempt
    code: int | None = None
    status: str | None = None
    text: str | None = None  #: scrubbed


@dataclass(frozen=True, slots=True)
class Taken:
    """What a claim gave: deliveries in hand, or the reason why there are none."""

    claimed: Sequence[Claimed]
    halt: str = ""  #: "" | "empty" | "lost" (the lease is not ours any more) | the campaign's state
    until: float = 0.0  #: the renewed end of the lease
    more: bool = False  #: whether more of the batch is due than we took
    content: str = ""  #: digest of the edition that these are to get
    bars: tuple[Bar, ...] = ()  #: never-mail rules in force, which who opens the records asks


class Ledger:
    """The deliveries of every campaign, in the store."""

    def __init__(self, database: Database) -> None:
        """Keep the database; nothing is opened yet."""
        self._database = database

    # -- a batch in hand ---------------------------------------------------------------------------

    def lease(self, batch_id: int, owner: str, now: float, until: float) -> Lease | None:
        """Take a batch in hand if it is open, due, free and its campaign runs; else None.

        A doubled task therefore finds nothing to claim.
        """
        with self._database.write() as connection:
            found = connection.execute(
                sa.select(batches.c.campaign_id, campaigns.c.not_after, campaigns.c.notice)
                .join(campaigns, campaigns.c.id == batches.c.campaign_id)
                .where(
                    batches.c.id == batch_id,
                    batches.c.done == 0,
                    batches.c.lease_id.is_(None),
                    batches.c.due_at <= now,
                    campaigns.c.state == "running",
                )
                .with_for_update(of=batches, skip_locked=True)
            ).one_or_none()
            if found is None:
                return None
            lease_id = connection.execute(
                sa.insert(leases).values(batch_id=batch_id, owner=owner, until=until).returning(leases.c.id)
            ).scalar_one()
            connection.execute(sa.update(batches).where(batches.c.id == batch_id).values(lease_id=lease_id))
        return Lease(lease_id, batch_id, found.campaign_id, until, found.not_after, bool(found.notice))

    def advance(
        self, lease: Lease, outcomes: Sequence[Outcome], limit: int, now: float, until: float
    ) -> Taken:
        """Settle what is known, renew the lease and take up to `limit` more (0 = none), in one transaction.

        Inside it, before anything is taken: is the lease still ours, does the campaign still run, has its
        deadline passed, who has been suppressed since the launch, who has been erased.
        """
        with self._database.write() as connection:
            _settle(connection, lease.id, outcomes, now)
            if not _renew(connection, lease, until):
                _put_down(connection, lease.id, lease.batch_id, now, now)
                return Taken((), "lost")
            campaign = connection.execute(
                sa.select(
                    *(campaigns.c.state, campaigns.c.not_after, campaigns.c.content, campaigns.c.rule),
                    campaigns.c.created_at,
                ).where(campaigns.c.id == lease.campaign_id)
            ).one()
            if campaign.state != "running":
                return Taken((), campaign.state, until)
            if campaign.not_after is not None and now >= campaign.not_after:
                _close_waiting(connection, lease.batch_id, State.EXPIRED, "deadline", now)
            rule = Rule.from_json(campaign.rule)
            if limit and rule.require_consent and lack(connection, rule.lists, campaign.created_at):
                _skip_lacking(connection, lease, rule, now)
            claimed, more = _claim(connection, lease, rule.topics, limit, now) if limit else ([], True)
            bars = standing(connection)
        return Taken(claimed, "" if claimed or more else "empty", until, more, campaign.content, bars)

    def recheck(self, lease: Lease, now: float) -> tuple[str, set[int]]:
        """Return (why to stop, or ""; the deliveries in hand whose person has said no). Reads only.

        Asked a few times a second while a chunk is in hand: a slow pace must not make a "no" wait.
        """
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(campaigns.c.state, campaigns.c.not_after, campaigns.c.rule, batches.c.lease_id)
                .join(batches, batches.c.campaign_id == campaigns.c.id)
                .where(batches.c.id == lease.batch_id)
            ).one()
            if row.lease_id != lease.id:
                return "lost", set()
            if row.state != "running":
                return row.state, set()
            if row.not_after is not None and now >= row.not_after:
                return "expired", set()
            topics = Rule.from_json(row.rule).topics
            said_no = connection.execute(
                _in_hand(lease.id, lease.batch_id).where(
                    sa.or_(
                        suppressed(deliveries.c.address_key, deliveries.c.list_id, topics, deliveries.c.id),
                        deliveries.c.person_id == NOBODY,  # erased while we have it in hand
                    )
                )
            ).scalars()
            return "", set(said_no)

    def renew(self, lease: Lease, until: float) -> bool:
        """Move the end of the lease; False when it is not ours any more."""
        with self._database.write() as connection:
            return _renew(connection, lease, until)

    def give_back(self, lease: Lease, outcomes: Sequence[Outcome], now: float, rest: float = 0.0) -> None:
        """End the lease with nothing in flight: settle what is known, queue again whatever is left in hand.

        Whatever is left, not a list of it: a claim whose answer was lost on its way to us is in our hands
        without our knowing.

        Args:
            lease: ours; if it was taken over meanwhile, our own rows are still settled by their fence.
            outcomes: what became known.
            now: UTC seconds.
            rest: seconds before the batch may be taken again (the relay is away, or asks for time).
        """
        with self._database.write() as connection:
            _settle(connection, lease.id, outcomes, now)
            _requeue(connection, lease.id, lease.batch_id)
            _release(connection, lease.id, lease.batch_id, now, now + rest)

    # -- recovery ----------------------------------------------------------------------------------

    def held(self) -> Sequence[tuple[Lease, str]]:
        """Return every lease that has not ended, with its owner."""
        query = (
            sa.select(leases.c.id, leases.c.batch_id, batches.c.campaign_id, leases.c.until, leases.c.owner)
            .join(batches, batches.c.id == leases.c.batch_id)
            .where(leases.c.ended_at.is_(None))
            .order_by(leases.c.id)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [(Lease(row.id, row.batch_id, row.campaign_id, row.until), row.owner) for row in rows]

    def release(self, lease: Lease, now: float) -> bool:
        """Free the batch of an overdue lease for others; what its owner has in hand stays "sending".

        The owner may be paused, not dead: nobody else may touch those until its journal is free.
        True when the batch was still held.
        """
        with self._database.write() as connection:
            freed = connection.execute(
                sa.update(batches)
                .where(batches.c.id == lease.batch_id, batches.c.lease_id == lease.id)
                .values(lease_id=None, due_at=now, rung_at=None)
            ).rowcount
        return bool(freed)

    def in_hand(self, lease: Lease) -> set[int]:
        """Return the deliveries that are "sending" under this lease."""
        with self._database.read() as connection:
            return set(connection.execute(_in_hand(lease.id, lease.batch_id)).scalars())

    def recover(
        self, lease: Lease, known: Sequence[Outcome], never_begun: Collection[int], now: float
    ) -> tuple[int, int, int]:
        """Settle the hand of an owner that is gone: by its journal, and the rest as unconfirmed.

        Returns:
            How many were settled as known, put back as never begun, and left unconfirmed.
        """
        with self._database.write() as connection:
            ended = sa.select(leases.c.ended_at).where(leases.c.id == lease.id).with_for_update()
            if connection.execute(ended).scalar_one() is not None:  # another sweep was first
                return 0, 0, 0
            before = set(connection.execute(_in_hand(lease.id, lease.batch_id)).scalars())
            _settle(connection, lease.id, [one for one in known if one.id in before], now)
            _requeue(connection, lease.id, lease.batch_id, never_begun)
            doubtful = connection.execute(
                sa.update(deliveries)
                .where(*_held(lease.id, lease.batch_id))
                .values(state=State.UNCONFIRMED, reason="owner lost", settled_at=now)
            ).rowcount
            _release(connection, lease.id, lease.batch_id, now, now)
        settled = len([one for one in known if one.id in before])
        return settled, len(before) - settled - doubtful, doubtful


# -- the statements, each inside a caller's transaction ----------------------------------------------


# What became known goes to the database as one JSON document in one statement: a statement for each row costs
# a process three times as much, on PostgreSQL six times. Nearly all were sent, with the same reply but for
# its words: these are a document of their own, {id: words}, at half the cost again.
_KNOWN: tuple[tuple[str, sa.types.TypeEngine[Any]], ...] = (
    ("id", sa.BigInteger()),
    ("state", sa.String()),
    ("reason", sa.String()),
    ("due_at", sa.Double()),
    ("tried", sa.Integer()),
    ("code", sa.Integer()),
    ("status", sa.String()),
    ("text", sa.String()),
)


def _settling(known: Mapping[str, sa.ColumnElement[Any]]) -> sa.Update:
    return (
        sa.update(deliveries)
        .where(
            deliveries.c.id == known["id"],
            deliveries.c.lease_id == sa.bindparam("fence"),
            # An owner that was thought dead may still correct "unconfirmed" to what it knows.
            deliveries.c.state.in_(("sending", "unconfirmed")),
        )
        .values(
            state=known["state"],
            reason=known["reason"],
            due_at=known["due_at"],
            attempts=deliveries.c.attempts + known["tried"],
            reply_code=known["code"],
            reply_status=known["status"],
            reply_text=known["text"],
            settled_at=sa.bindparam("at"),
        )
    )


def _settling_sent(known: sa.TableValuedAlias) -> sa.Update:
    same = {name: sa.bindparam(name, type_=kind) for name, kind in _KNOWN}
    return _settling(same | {"id": sa.cast(known.c.key, sa.BigInteger), "text": known.c.value})


_EACH = sa.func.json_each(sa.bindparam("known")).table_valued("value", name="known")
_RECORDS = (
    sa.func.json_to_recordset(sa.cast(sa.bindparam("known"), sa.JSON))
    .table_valued(*(sa.column(name, kind) for name, kind in _KNOWN), name="known")
    .render_derived(with_types=True)
)
_SETTLE = {
    "sqlite": _settling({name: sa.func.json_extract(_EACH.c.value, f"$.{name}") for name, _ in _KNOWN}),
    "postgresql": _settling({name: _RECORDS.c[name] for name, _ in _KNOWN}),
}
_SETTLE_SENT = {
    "sqlite": _settling_sent(
        sa.func.json_each(sa.bindparam("known")).table_valued("key", "value", name="known")
    ),
    "postgresql": _settling_sent(
        sa.func.json_each_text(sa.cast(sa.bindparam("known"), sa.JSON)).table_valued(
            "key", "value", name="known"
        )
    ),
}


def _settle(connection: sa.Connection, lease_id: int, outcomes: Sequence[Outcome], now: float) -> None:
    common = {"fence": lease_id, "at": now}
    kind = connection.dialect.name
    sent: dict[tuple[str, bool, int | None, str | None], dict[int, str | None]] = {}
    others = []
    for one in outcomes:
        if one.state is State.SENT:
            sent.setdefault((one.reason, one.tried, one.code, one.status), {})[one.id] = one.text
        else:
            others.append(one)
    for (reason, tried, code, status), texts in sent.items():
        same = {"state": State.SENT, "reason": reason, "due_at": 0.0, "tried": int(tried)}
        same |= {"code": code, "status": status, "known": json.dumps(texts)}
        connection.execute(_SETTLE_SENT[kind], {**same, **common})
    if others:
        connection.execute(_SETTLE[kind], {"known": json.dumps([_record(one) for one in others]), **common})


def _record(one: Outcome) -> Mapping[str, object]:
    return {
        "id": one.id,
        "state": one.state,
        "reason": one.reason,
        "due_at": one.due_at,
        "tried": int(one.tried),
        "code": one.code,
        "status": one.status,
        "text": one.text,
    }


def _renew(connection: sa.Connection, lease: Lease, until: float) -> bool:
    # The batch's row first: it is what a successor changes, so it tells whose turn it is.
    ours = connection.execute(
        sa.update(batches)
        .where(batches.c.id == lease.batch_id, batches.c.lease_id == lease.id)
        .values(lease_id=lease.id)
    ).rowcount
    if ours:
        connection.execute(sa.update(leases).where(leases.c.id == lease.id).values(until=until))
    return bool(ours)


def _waiting(batch_id: int) -> tuple[sa.ColumnElement[bool] | sa.TextClause, ...]:
    return deliveries.c.batch_id == batch_id, delivery_is_open, deliveries.c.state.in_(_WAITING)


def _close_waiting(connection: sa.Connection, batch_id: int, state: State, reason: str, now: float) -> None:
    connection.execute(
        sa.update(deliveries).where(*_waiting(batch_id)).values(state=state, reason=reason, settled_at=now)
    )


def _claim(
    connection: sa.Connection, lease: Lease, topics: Sequence[str], limit: int, now: float
) -> tuple[list[Claimed], bool]:
    """Take up to `limit` that may be written to; also tell whether more are due."""
    due = (*_waiting(lease.batch_id), deliveries.c.due_at <= now)
    query = (
        sa.select(
            deliveries.c.id,
            deliveries.c.person_id,
            people.c.sealed,
            deliveries.c.attempts,
            deliveries.c.provider,
            suppressed(deliveries.c.address_key, deliveries.c.list_id, topics, deliveries.c.id).label(
                "said_no"
            ),
            deliveries.c.address_key,
            wants_fewer(deliveries.c.address_key).label("fewer"),
        )
        .outerjoin(people, people.c.id == deliveries.c.person_id)
        .where(*due)
        .order_by(deliveries.c.id)
    )
    while True:
        rows = connection.execute(query.limit(limit + 1)).all()
        more = len(rows) > limit
        rows = rows[:limit]
        _mark(connection, [row.id for row in rows if row.said_no], State.SKIPPED, "suppressed", now)
        gone = [row.id for row in rows if row.sealed is None and not row.said_no]
        _mark(connection, gone, State.SKIPPED, "forgotten", now)
        if rows:
            # By range: the rows between are the same, and a list of their ids costs more than the update.
            # What somebody cancelled since the query is not among those that come back.
            mine = (
                sa.update(deliveries)
                .where(*due, deliveries.c.id <= rows[-1].id)
                .values(state=State.SENDING, lease_id=lease.id)
                .returning(deliveries.c.id, deliveries.c.address_key)
            )
            # With the hash of this moment: it may have been changed since the query.
            taken = {row.id: row.address_key for row in connection.execute(mine)}
            fewer = {row.id: taken[row.id] for row in rows if row.fewer and row.id in taken}
            late = begin_rests(connection, fewer, now) if fewer else ()
            _mark(connection, late, State.SKIPPED, "suppressed", now)
            claimed = [Claimed(*row[:5]) for row in rows if row.id in taken and row.id not in late]
            if claimed:
                return claimed, more
        if not more:
            return [], False


def _skip_lacking(connection: sa.Connection, lease: Lease, rule: Rule, now: float) -> None:
    """Skip whoever no longer has what the lists ask for, as policies have changed since the launch."""
    said_no = suppressed(deliveries.c.address_key, deliveries.c.list_id, rule.topics, deliveries.c.id)
    lacks = deliveries.c.person_id != NOBODY, ~consenting(deliveries.c.person_id, rule.lists), ~said_no
    connection.execute(
        sa.update(deliveries)
        .where(*_waiting(lease.batch_id), *lacks)
        .values(state=State.SKIPPED, reason="no consent", settled_at=now)
    )


def _mark(connection: sa.Connection, ids: Collection[int], state: State, reason: str, now: float) -> None:
    if ids:
        connection.execute(
            sa.update(deliveries)
            .where(deliveries.c.id.in_(ids))
            .values(state=state, reason=reason, settled_at=now)
        )


def _held(lease_id: int, batch_id: int) -> tuple[sa.ColumnElement[bool] | sa.TextClause, ...]:
    # Asked of the row itself, never through a sub-select: PostgreSQL asks again once it has waited for a
    # row, but does not run a sub-select anew, and would take back what the next owner has in hand.
    # By batch, so that the index of open rows finds them.
    return (
        deliveries.c.batch_id == batch_id,
        delivery_is_open,
        deliveries.c.state == "sending",
        deliveries.c.lease_id == lease_id,
    )


def _in_hand(lease_id: int, batch_id: int) -> sa.Select[int]:
    return sa.select(deliveries.c.id).where(*_held(lease_id, batch_id))


def _requeue(
    connection: sa.Connection, lease_id: int, batch_id: int, ids: Collection[int] | None = None
) -> None:
    """Queue again what is in hand under this lease; only those of `ids` where they are given."""
    here = list(_held(lease_id, batch_id))
    if ids is not None:
        here.append(deliveries.c.id.in_(ids))
    connection.execute(
        sa.update(deliveries).where(*here).values(state=State.QUEUED, lease_id=None, due_at=0.0)
    )


def _release(connection: sa.Connection, lease_id: int, batch_id: int, now: float, due_at: float) -> None:
    """End a lease whose hand is empty, and set its batch to done or to when it is next due."""
    connection.execute(sa.update(leases).where(leases.c.id == lease_id).values(ended_at=now))
    _put_down(connection, lease_id, batch_id, now, due_at)


def _put_down(connection: sa.Connection, lease_id: int, batch_id: int, now: float, due_at: float) -> None:
    """Set a batch that is ours or nobody's to done or to when it is next due.

    Also one that was done: an owner that wakes up late may know that what was in doubt was deferred.
    """
    cancelled = sa.select(batches.c.id).join(campaigns, campaigns.c.id == batches.c.campaign_id)
    cancelled = cancelled.where(batches.c.id == batch_id, campaigns.c.state == "cancelled")
    if connection.execute(cancelled).first() is not None:  # cancelled while we had it in hand
        _close_waiting(connection, batch_id, State.SKIPPED, "cancelled", now)
    mine = sa.or_(batches.c.lease_id == lease_id, batches.c.lease_id.is_(None))
    values = _next_due(connection, batch_id, due_at)
    connection.execute(
        sa.update(batches).where(batches.c.id == batch_id, mine).values(lease_id=None, rung_at=None, **values)
    )


def _next_due(connection: sa.Connection, batch_id: int, at_least: float) -> dict[str, float]:
    waiting = deliveries.c.state.in_(_WAITING)
    left, due = connection.execute(
        sa.select(sa.func.count(), sa.func.min(deliveries.c.due_at).filter(waiting)).where(
            deliveries.c.batch_id == batch_id, delivery_is_open
        )
    ).one()
    if not left:
        return {"done": 1}
    # All that is left may be in the hands of an owner that is stalled: look again after a while.
    return {"done": 0, "due_at": at_least + STALLED_SECONDS if due is None else max(due, at_least)}
