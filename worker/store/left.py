"""What has been left with personal parts: files at places of an operator's choice, and relays' words.

Owns the register of such files, and taking relays' words away from mails whose campaign ended long ago.
Refuses: files themselves (`leavings`), and whatever an opt-out, a suppression or a proof needs: a delivery
keeps its keyed hash for as long as we hold its person, for its opt-out link never expires.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import sqlalchemy as sa

from worker.deliveries import State
from worker.store.database import Database
from worker.store.schema import campaigns, deliveries, left_files

#: How a mail ends for good; only then its reply is of no more use.
_ENDED = [State.SENT, State.BOUNCED, State.SKIPPED, State.EXPIRED]
#: Deliveries looked at in one transaction.
_CHUNK = 5_000


class Kind(StrEnum):
    """What a file is; its value is what the settings and the operator call it."""

    REJECTS = "rejects"
    EXPORTS = "exports"
    PREVIEWS = "previews"
    CAPTURED = "captured"


@dataclass(frozen=True, slots=True)
class Mark:
    """By what a file is known again."""

    device: int
    inode: int
    size: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """One file that was left lying."""

    kind: Kind
    path: Path
    made_at: float  #: UTC seconds
    mark: Mark


class Left:
    """What was left lying, in the store."""

    def __init__(self, database: Database, host: str) -> None:
        """Keep the database, and the name of this machine: another one's files are its own to remove."""
        self._database = database
        self._host = host[:64]

    def note(self, one: Leaving) -> None:
        """Remember a file that was just written; what stood at its place before is forgotten."""
        here = left_files.c.host == self._host, left_files.c.path == str(one.path)
        with self._database.write() as connection:
            connection.execute(sa.delete(left_files).where(*here))
            connection.execute(
                sa.insert(left_files).values(
                    host=self._host,
                    path=str(one.path),
                    kind=one.kind.value,
                    made_at=one.made_at,
                    device=str(one.mark.device),
                    inode=str(one.mark.inode),
                    size=one.mark.size,
                    changed_ns=one.mark.changed_ns,
                )
            )

    def files(self) -> Sequence[Leaving]:
        """Return the files written on this machine at places of an operator's choice, the oldest first."""
        query = sa.select(left_files).where(left_files.c.host == self._host).order_by(left_files.c.made_at)
        with self._database.read() as connection:
            return [
                Leaving(
                    Kind(row.kind),
                    Path(row.path),
                    row.made_at,
                    Mark(int(row.device), int(row.inode), row.size, row.changed_ns),
                )
                for row in connection.execute(query)
            ]

    def forget(self, paths: Sequence[Path]) -> None:
        """Forget files that are not there any more."""
        here = left_files.c.host == self._host, left_files.c.path.in_([str(path) for path in paths])
        with self._database.write() as connection:
            connection.execute(sa.delete(left_files).where(*here))

    # -- relays' words -------------------------------------------------------------------------------

    def replies(self) -> Sequence[tuple[str, float, int]]:
        """Return the campaigns that have ended with relays' words kept: name, end, how many."""
        query = (
            sa.select(campaigns.c.name, campaigns.c.finished_at, sa.func.count(deliveries.c.id))
            .join(deliveries, deliveries.c.id.between(campaigns.c.first_delivery, campaigns.c.last_delivery))
            .where(*_kept())
            .group_by(campaigns.c.id)
            .order_by(campaigns.c.finished_at)
        )
        with self._database.read() as connection:
            return [(name, end, number) for name, end, number in connection.execute(query)]

    def drop_replies(self, ended_before: float) -> int:
        """Take relays' words away from mails of campaigns that ended before then; return how many had any.

        Counts, states and codes stay, so that a report adds up as before.
        """
        span = sa.select(campaigns.c.first_delivery, campaigns.c.last_delivery)
        over = campaigns.c.finished_at < ended_before, campaigns.c.first_delivery.is_not(None)
        with self._database.read() as connection:
            spans = connection.execute(span.where(_ended(), *over)).all()
        return sum(
            self._drop(start, min(start + _CHUNK - 1, last), ended_before)
            for first, last in spans
            for start in range(first, last + 1, _CHUNK)
        )

    def _drop(self, first: int, last: int, ended_before: float) -> int:
        theirs = sa.select(campaigns.c.id).where(_ended(), campaigns.c.finished_at < ended_before)
        here = deliveries.c.id.between(first, last), deliveries.c.reply_text.is_not(None)
        with self._database.read() as connection:  # most of the time: no write, no lock
            if connection.execute(sa.select(deliveries.c.id).where(*here).limit(1)).first() is None:
                return 0
        with self._database.write() as connection:
            _overwrite(connection)
            done = deliveries.c.campaign_id.in_(theirs), deliveries.c.state.in_(_ENDED)
            change = sa.update(deliveries).where(*here, *done).values(reply_text=None)
            return connection.execute(change).rowcount


def _overwrite(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":  # else what is taken away stays readable in the file's gaps
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


def _ended() -> sa.ColumnElement[bool]:
    return campaigns.c.state.in_(("finished", "cancelled"))


def _kept() -> Iterator[sa.ColumnElement[bool]]:
    yield _ended()
    yield deliveries.c.campaign_id + 0 == campaigns.c.id  # the sum keeps the planner from that index
    yield deliveries.c.reply_text.is_not(None)
    yield deliveries.c.state.in_(_ENDED)
