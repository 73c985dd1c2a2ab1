"""What is kept of people beside their records, for how long, and its removal when that time is over.

Owns the timers. Refuses: whatever a running campaign, an opt-out, a suppression or a proof still needs. Mail
that waits to be read by a person and the suppressions have no timer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from worker import leavings
from worker.deeds import TIMER, Action, Deed
from worker.sections import Retention as Timers
from worker.store.audit import Audit
from worker.store.left import Kind, Leaving, Left

log = structlog.get_logger()

_DAY = 86_400.0
#: Seconds between two looks of the tick.
EVERY = 3600.0
#: What the relay's words are called, beside the kinds of files.
REPLIES = "replies"
#: What the entries of the audit log are called.
AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is kept: a file, or the relay's words on the mails of a campaign."""

    kind: str
    what: str  #: a path, or a campaign's name
    since: float  #: UTC seconds: when it was written, or the campaign ended
    due_at: float | None  #: UTC seconds; None: there is no timer
    count: int = 1
    changed: bool = False  #: it is another file than the one we wrote: left alone


@dataclass(frozen=True, slots=True)
class Removed:
    """What an application came to."""

    files: int = 0
    replies: int = 0
    entries: int = 0  #: of the audit log, which says so itself

    def __bool__(self) -> bool:
        """Tell whether anything was removed."""
        return bool(self.files or self.replies or self.entries)


class Retention:
    """What has a timer."""

    def __init__(
        self, left: Left, audit: Audit, state: Path, timers: Timers, clock: Callable[[], float]
    ) -> None:
        """Take the store's parts, the folder of our files, the timers and the clock."""
        self._left = left
        self._audit = audit
        self._state = state
        self._clock = clock
        self._next = 0.0
        self.days: Mapping[str, int] = timers.model_dump()

    def note(self, kind: Kind, path: Path) -> None:
        """Remember a file of personal data that was just written; those in our folders are found there."""
        whole = path.absolute()
        if whole.parent in {self._state / name for name in leavings.FOLDERS}:
            return
        if (mark := leavings.mark(whole)) is not None:
            self._left.note(Leaving(kind, whole, self._clock(), mark))

    def items(self) -> Sequence[Item]:
        """Return all that is kept, what is due first."""
        found = [self._item(one) for one in self._files()]
        for name, ended, count in self._left.replies():
            found.append(Item(REPLIES, name, ended, self._due(REPLIES, ended), count))
        if self.days[AUDIT] and (oldest := self._audit.oldest()) is not None:
            # Those of a day go together at its end: each cutting is an entry too.
            found.append(Item(AUDIT, "the oldest entry", oldest, self._due(AUDIT, _day(oldest) + _DAY)))
        return sorted(found, key=lambda one: (one.due_at is None, one.due_at or 0.0, one.what))

    def apply(self) -> Removed:
        """Remove all that is due; safe to repeat."""
        now, gone = self._clock(), 0
        for one in self._files():
            due_at = self._due(one.kind, one.made_at)
            if due_at is not None and due_at <= now and leavings.remove(one):
                gone += 1
        lost = [one.path for one in self._left.files() if leavings.mark(one.path) is None]
        if lost:
            self._left.forget(lost)
        replies, entries = self.days[REPLIES], self.days[AUDIT]
        return Removed(
            gone,
            self._left.drop_replies(now - replies * _DAY) if replies else 0,
            self._audit.trim(_day(now) - entries * _DAY, Deed(now, TIMER, Action.RETENTION, AUDIT))
            if entries
            else 0,
        )

    def tick(self) -> None:
        """Do that now and then."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + EVERY
        if removed := self.apply():
            log.info(
                "retention_applied", files=removed.files, replies=removed.replies, entries=removed.entries
            )

    def _files(self) -> Sequence[Leaving]:
        chosen = [one for one in self._left.files() if leavings.mark(one.path) is not None]
        return [*leavings.scan(self._state), *chosen]

    def _item(self, one: Leaving) -> Item:
        changed = leavings.mark(one.path) != one.mark
        due_at = None if changed else self._due(one.kind, one.made_at)
        return Item(one.kind, str(one.path), one.made_at, due_at, changed=changed)

    def _due(self, kind: str, since: float) -> float | None:
        return since + self.days[kind] * _DAY if self.days[kind] else None


def _day(moment: float) -> float:
    """Return the beginning of a moment's day, UTC."""
    return moment // _DAY * _DAY
