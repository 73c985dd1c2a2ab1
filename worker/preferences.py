"""What a reader chooses behind the link in a mail, short of stopping it: a pause, fewer mails, another form.

Owns what may be chosen and how it is kept. Refuses: to show or change anything for a mark that is not ours,
and to tell what other lists somebody is on: whoever was forwarded a mail holds its link too.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from worker.errors import Refused, Unavailable
from worker.feedback import TEST, About, OptOuts
from worker.rights import Correction, Rights
from worker.store.database import Database
from worker.store.suppressions import EVERYTHING, Suppressions, heed, keys_now, list_scope
from worker.store.wishes import end_due, standing, wish

_DAY: Final = 86_400.0
#: Times that a record is read and sealed anew when somebody else changes it at the same moment.
_TRIES: Final = 5

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Choices:
    """How things stand for one reader."""

    about: About
    #: Nothing comes any more: they have said no to everything, or to this list.
    stopped: bool = False
    paused_until: float | None = None  #: UTC seconds
    fewer: bool = False
    language: str = ""
    discreet: bool = False
    #: There are neutral names to send discreet mail under.
    offers_discreet: bool = False
    #: We hold a record in which a language and a form can be kept.
    held: bool = True


class Wanted(Protocol):
    """What a reader has chosen; None leaves a thing as it is."""

    @property
    def pause_days(self) -> int | None:
        """For how long nothing is to come; 0 ends a pause."""

    @property
    def fewer(self) -> bool | None:
        """Whether they want fewer mails."""

    @property
    def language(self) -> str | None:
        """In which language."""

    @property
    def discreet(self) -> bool | None:
        """Whether in the discreet form."""


class Preferences:
    """The preferences behind the links in mails."""

    def __init__(
        self,
        database: Database,
        opt_outs: OptOuts,
        rights: Rights,
        *,
        offers_discreet: bool,
        clock: Callable[[], float],
    ) -> None:
        """Take the store, what reads links, what changes records, and whether there is a discreet form."""
        self._database = database
        self._opt_outs = opt_outs
        self._rights = rights
        self._offers_discreet = offers_discreet
        self._clock = clock

    def choices(self, token: str) -> Choices | None:
        """Return how things stand; None if the mark is not ours."""
        reader = self._opt_outs.reader(token)
        if reader is None:
            return None
        if reader.delivery_id == TEST:
            return Choices(reader.about, offers_discreet=self._offers_discreet)
        key = reader.address_key
        with self._database.read() as connection:
            wished = standing(connection, key)
        said = {scope for _, scope in Suppressions(self._database).scopes([key])}
        return Choices(
            reader.about,
            stopped=bool(said & {EVERYTHING, list_scope(reader.list_id)}),
            paused_until=wished.paused_until,
            fewer=wished.fewer,
            language=reader.about.language,
            discreet=reader.about.discreet,
            offers_discreet=self._offers_discreet,
            held=reader.person is not None,
        )

    def choose(self, token: str, wanted: Wanted) -> Choices | None:
        """Keep what a reader wants, durably, before returning; None if the mark is not ours."""
        reader = self._opt_outs.reader(token)
        if reader is None:
            return None
        if reader.delivery_id != TEST:
            self._wish(reader.delivery_id, wanted)
            self._correct(token, wanted)
        return self.choices(token)

    def end_due(self) -> int:
        """End the pauses whose time is over; return how many."""
        return end_due(self._database, self._clock())

    def _wish(self, delivery_id: int, wanted: Wanted) -> None:
        now = self._clock()
        with self._database.write() as connection:
            key = keys_now(connection, [delivery_id])[delivery_id]
            wished = standing(connection, key)
            if wanted.pause_days is not None:
                until = now + wanted.pause_days * _DAY if wanted.pause_days else None
                wished = replace(wished, paused_until=until)
            if wanted.fewer is not None:
                wished = replace(wished, fewer=wanted.fewer)
            wish(connection, key, wished, now)
        heed(self._database)

    def _correct(self, token: str, wanted: Wanted) -> None:
        """Seal the record anew, if it is there and is to be otherwise."""
        for _ in range(_TRIES):
            reader = self._opt_outs.reader(token)
            person = reader.person if reader else None
            if person is None:
                return
            correction = Correction(
                language=_changed(person.language, wanted.language),
                discreet=_changed(person.discreet, wanted.discreet if self._offers_discreet else None),
            )
            if not correction:
                return
            with contextlib.suppress(Refused):  # somebody else changed it just now
                self._rights.correct(self._rights.find(token), correction)
        raise Unavailable("the record keeps changing", remedy="Try again.")


def _changed(before: _T, wanted: _T | None) -> _T | None:
    return None if wanted == before else wanted
