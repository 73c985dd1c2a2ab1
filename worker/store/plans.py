"""Campaigns as rows: recorded, moved from state to state, and launched slice by slice.

Owns the campaigns table and the writing of deliveries at launch. Refuses: rules about who may do what when
(campaigns), and anything after a delivery exists (ledger).
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from worker.deeds import Deed
from worker.deliveries import State
from worker.errors import Refused
from worker.store import keyrings
from worker.store.audience import Kind, Rule, chosen, kinds, last_of_slice, some
from worker.store.audit import append
from worker.store.bars import standing
from worker.store.counters import allocate
from worker.store.database import Database
from worker.store.schema import batch_is_open, batches, campaigns, deliveries, people
from worker.store.suppressions import heed


@dataclass(frozen=True, slots=True)
class Campaign:
    """One run of an appeal to one audience, as it stands."""

    id: int
    name: str  #: unique, for people and commands: "chechnya-report-1"
    appeal: str  #: the appeal's slug
    rule: Rule
    digest: str  #: of the edition, the rule and the schedule: what an approval approves
    state: str  #: awaiting, scheduled, running, paused, cancelled or finished
    notice: str  #: why it stands still; "" when nothing is wrong
    created_at: float
    created_by: str
    approved_by: str | None
    start_at: float
    time_zone: str
    not_after: float | None
    launched_at: float | None  #: when the last delivery was written; None = the launch is not whole
    audience: int | None  #: everyone considered, once the launch is whole
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class Draft:
    """What a campaign is recorded from."""

    appeal: str
    edition: str  #: the frozen edition, as JSON
    rule: Rule
    digest: str
    state: str
    created_by: str
    approved_by: str | None
    start_at: float
    time_zone: str
    not_after: float | None


#: What is the launch's own, or long.
_HIDDEN = {"edition", "content", "launch_cursor", "written", "first_delivery", "last_delivery"}
_COLUMNS = [column for column in campaigns.c if column.name not in _HIDDEN]
#: Records fetched at once.
_FETCHED = 500
#: Seconds that a launch leaves the store to others after a slice, at most.
_MOST_REST = 0.1


def content_digest(edition: str) -> str:
    """Return what names an edition: SHA-256 of its JSON."""
    return hashlib.sha256(edition.encode()).hexdigest()


class Plans:
    """The campaigns of this charity, in the store."""

    def __init__(self, database: Database, batch_size: int) -> None:
        """Keep the database, and how many deliveries one task carries; nothing is opened yet."""
        self._database = database
        self._batch_size = batch_size

    def record(self, draft: Draft, now: float, deed: Deed | None = None) -> Campaign:
        """Write a new campaign down and name it after its appeal: slug-1, slug-2, ….

        Its name becomes the deed's subject.
        """
        with self._database.write() as connection:
            taken = connection.execute(
                sa.select(sa.func.count()).where(campaigns.c.appeal == draft.appeal)
            ).scalar_one()
            campaign_id = connection.execute(
                sa.insert(campaigns)
                .values(
                    name=f"{draft.appeal}-{taken + 1}",
                    appeal=draft.appeal,
                    edition=draft.edition,
                    rule=draft.rule.to_json(),
                    digest=draft.digest,
                    content=content_digest(draft.edition),
                    state=draft.state,
                    created_at=now,
                    created_by=draft.created_by,
                    approved_by=draft.approved_by,
                    start_at=draft.start_at,
                    time_zone=draft.time_zone,
                    not_after=draft.not_after,
                )
                .returning(campaigns.c.id)
            ).scalar_one()
            made = _campaign(
                connection.execute(sa.select(*_COLUMNS).where(campaigns.c.id == campaign_id)).one()
            )
            if deed is not None:
                append(connection, replace(deed, subject=made.name))
        return made

    def get(self, campaign_id: int) -> Campaign:
        """Return a campaign that exists."""
        with self._database.read() as connection:
            return _campaign(
                connection.execute(sa.select(*_COLUMNS).where(campaigns.c.id == campaign_id)).one()
            )

    def find(self, name: str) -> Campaign | None:
        """Return the campaign of that name, or None."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(*_COLUMNS).where(campaigns.c.name == name)).one_or_none()
        return None if row is None else _campaign(row)

    def all(self) -> Sequence[Campaign]:
        """Return every campaign, newest first."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(*_COLUMNS).order_by(campaigns.c.id.desc())).all()
        return [_campaign(row) for row in rows]

    def edition(self, campaign_id: int, content: str) -> str:
        """Return the frozen edition, as JSON, if its digest is still `content`.

        Raises:
            Refused: it has been changed since it was approved.
        """
        edition = self.frozen(campaign_id)
        if content_digest(edition) != content:
            raise Refused(
                "the content in the store is not what was approved",
                remedy="Find out who changed the database; cancel, and plan the campaign anew.",
            )
        return edition

    def frozen(self, campaign_id: int) -> str:
        """Return a campaign's edition as it is stored, to be shown; never to be sent (see edition).

        Raises:
            Refused: there is no such campaign.
        """
        with self._database.read() as connection:
            query = sa.select(campaigns.c.edition).where(campaigns.c.id == campaign_id)
            found = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise Refused("there is no such campaign")
        return str(found)

    def move(
        self,
        campaign_id: int,
        came_from: Sequence[str],
        to: str,
        deed: Deed | None = None,
        **values: object,
    ) -> bool:
        """Move a campaign to a state if it is in one of `came_from`; False when it is not (any more).

        The deed, if it is an operator's, is written down when it moves.
        """
        with self._database.write() as connection:
            moved = connection.execute(
                sa.update(campaigns)
                .where(campaigns.c.id == campaign_id, campaigns.c.state.in_(came_from))
                .values(state=to, **values)
            ).rowcount
            if deed is not None and moved:
                append(connection, deed)
        return bool(moved)

    def note(self, campaign_id: int, notice: str) -> None:
        """Write why a campaign stands still, or "" when it goes again."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(campaigns)
                .where(campaigns.c.id == campaign_id, campaigns.c.notice != notice)
                .values(notice=notice)
            )

    def finish_whole(self, now: float) -> Sequence[str]:
        """Close the running campaigns in which nothing is open any more; return their names."""
        open_batch = sa.select(batches.c.id).where(batches.c.campaign_id == campaigns.c.id, batch_is_open)
        whole = campaigns.c.launched_at.is_not(None) & ~open_batch.exists()
        with self._database.read() as connection:
            query = sa.select(campaigns.c.id).where(campaigns.c.state == "running", whole)
            if connection.execute(query).first() is None:  # most of the time: no write, no lock
                return []
        with self._database.write() as connection:
            return list(
                connection.execute(
                    sa.update(campaigns)
                    .where(campaigns.c.state == "running", whole)
                    .values(state="finished", finished_at=now, notice="")
                    .returning(campaigns.c.name)
                ).scalars()
            )

    def unfinish(self) -> Sequence[int]:
        """Let finished campaigns run again in which something opened late; return their ids.

        A sender that was thought dead may know that what was in doubt was deferred.
        """
        open_batch = sa.select(batches.c.campaign_id).where(batches.c.done == 0)
        late = campaigns.c.state == "finished", campaigns.c.id.in_(open_batch)
        with self._database.read() as connection:
            if connection.execute(sa.select(campaigns.c.id).where(*late)).first() is None:
                return []
        with self._database.write() as connection:
            again = sa.update(campaigns).where(*late).values(state="running", finished_at=None)
            return list(connection.execute(again.returning(campaigns.c.id)).scalars())

    # -- launch ------------------------------------------------------------------------------------

    def due(self, now: float) -> Sequence[Campaign]:
        """Return scheduled campaigns whose time has come, and running ones whose launch is not whole."""
        query = sa.select(*_COLUMNS).where(
            sa.or_(
                sa.and_(campaigns.c.state == "scheduled", campaigns.c.start_at <= now),
                sa.and_(campaigns.c.state == "running", campaigns.c.launched_at.is_(None)),
            )
        )
        with self._database.read() as connection:
            return [_campaign(row) for row in connection.execute(query)]

    def slice(self, campaign: Campaign, size: int, now: float) -> Sequence[int]:
        """Write the deliveries of the next `size` people; return the new batches' ids, [] when whole.

        One transaction, and conditional on the cursor: two launchers at once, or one that died half-way,
        write nobody twice.
        """
        began = time.monotonic()
        made = self._slice(campaign, size, now)
        if self._database.is_sqlite:
            # Its one lock has no queue: whoever waits looks again after 10 to 100 ms. A launch that came back
            # at once would keep all senders away until it is whole: up to 2 s before the first mail.
            time.sleep(min((time.monotonic() - began) / 2, _MOST_REST))
        return made

    def _slice(self, campaign: Campaign, size: int, now: float) -> Sequence[int]:
        with self._database.write() as connection:
            keyrings.hold(connection, alone=False)  # whom it writes down, it writes down as they are held
            launch = connection.execute(
                sa.select(
                    campaigns.c.launched_at,
                    campaigns.c.state,
                    campaigns.c.launch_cursor,
                    campaigns.c.written,
                    campaigns.c.first_delivery,
                )
                .where(campaigns.c.id == campaign.id)
                .with_for_update()
            ).one()
            if launch.launched_at is not None or launch.state != "running":
                return []
            rule, made, barring = campaign.rule, _Made(), bool(standing(connection))
            cursor: int = launch.launch_cursor
            room = None if rule.limit is None else rule.limit - launch.written
            first = _newest(connection) + 1 if launch.first_delivery is None else launch.first_delivery
            while not made.count:  # with a limit, a whole slice may consist of people who are left out
                last: int | None = connection.execute(last_of_slice(rule, cursor, size)).scalar_one()
                if last is None or room == 0:
                    connection.execute(_change(campaign.id, launched_at=now, audience=launch.written))
                    return []
                here = _reachable(chosen(rule, after=cursor, upto=last, barring=barring), room)
                made = _write_slice(connection, campaign.id, here, size, self._batch_size, now)
                cursor = last
            span = {"first_delivery": first, "last_delivery": _newest(connection)}
            written = launch.written + made.count
            connection.execute(_change(campaign.id, launch_cursor=cursor, written=written, **span))
        return made.batches

    def kinds(self, rule: Rule) -> Sequence[Kind]:
        """Count everybody on the lists by shape and reason."""
        heed(self._database)
        with self._database.read() as connection:
            return kinds(connection, rule)

    def some(self, rule: Rule, number: int) -> Sequence[int]:
        """Return the ids of so many people who would be written to, or of all, picked by chance."""
        heed(self._database)
        with self._database.read() as connection:
            return some(connection, rule, number)

    def records(self, ids: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (id, sealed record) of these people, in any order; who is gone is left out."""
        for start in range(0, len(ids), _FETCHED):
            query = sa.select(people.c.id, people.c.sealed)
            query = query.where(people.c.id.in_(ids[start : start + _FETCHED]))
            with self._database.read() as connection:
                rows = connection.execute(query).all()
            yield from (tuple(row) for row in rows)


def _campaign(row: sa.Row[tuple[object, ...]]) -> Campaign:
    facts = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    return Campaign(**{**facts, "rule": Rule.from_json(str(facts["rule"]))})


@dataclass(frozen=True, slots=True)
class _Made:
    """What one slice came to."""

    batches: Sequence[int] = ()  #: their ids
    count: int = 0  #: deliveries


def _change(campaign_id: int, **values: object) -> sa.Update:
    return sa.update(campaigns).where(campaigns.c.id == campaign_id).values(**values)


def _newest(connection: sa.Connection) -> int:
    """Return the highest id of a delivery: ours will be above it, and are not above it afterwards."""
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(deliveries.c.id), 0))).scalar_one())


def _reachable(
    here: sa.Select[int, bytes, str, int, str], room: int | None
) -> sa.Select[int, bytes, str, int, str]:
    """Under a limit, leave only so many people as there is room for, and of those who may be written to."""
    if room is None:
        return here
    one = here.subquery()
    return sa.select(one).where(one.c.reason == "").order_by(one.c.person_id).limit(room)


def _write_slice(
    connection: sa.Connection,
    campaign_id: int,
    here: sa.Select[int, bytes, str, int, str],
    most: int,
    batch_size: int,
    now: float,
) -> _Made:
    """Insert a slice's deliveries, `most` or fewer, and their batches; no row comes to this process."""
    # As many batches as there may be; counting first would go through all these people twice.
    needed = -(-most // batch_size)
    first = allocate(connection, "batch", needed)
    rows = [{"id": first + place, "campaign_id": campaign_id, "due_at": now} for place in range(needed)]
    connection.execute(sa.insert(batches), rows)
    one = here.subquery()
    place = sa.func.row_number().over(order_by=one.c.person_id) - 1
    skipped = one.c.reason != ""
    columns = (
        *("campaign_id", "person_id", "address_key", "list_id", "provider", "batch_id"),
        *("state", "reason", "settled_at"),
    )
    people_here = sa.select(
        sa.literal(campaign_id),
        *(one.c.person_id, one.c.address_key, one.c.list_id, one.c.provider),
        sa.literal(first) + place // batch_size,
        sa.case((skipped, State.SKIPPED.value), else_=State.QUEUED.value),
        one.c.reason,
        sa.case((skipped, now)),
    )
    written: int = connection.execute(
        sa.insert(deliveries).from_select(columns, people_here), execution_options={"preserve_rowcount": True}
    ).rowcount
    used = -(-written // batch_size)
    connection.execute(sa.delete(batches).where(batches.c.id.between(first + used, first + needed - 1)))
    return _Made(range(first, first + used), written)
