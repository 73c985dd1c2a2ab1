"""What a reader chooses behind the link in a mail, short of stopping it: a pause, fewer mails, another form.

Owns what may be chosen and how it is kept. Refuses: to show or change anything for a mark that is not ours,
to tell what other lists somebody is on, and to bring back what somebody was kept from, but by their own word
from their mailbox: whoever was forwarded a mail, or looks over a shoulder, holds its link too.
"""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from worker.deeds import PERSON, Action, Deed
from worker.errors import Refused, Unavailable
from worker.feedback import TEST, About, OptOuts, Reader
from worker.forms import OPEN
from worker.rights import Correction, Rights
from worker.store.audit import Audit
from worker.store.database import Database
from worker.store.notices import Notices
from worker.store.suppressions import (
    BY_PAGE,
    EVERYTHING,
    Act,
    Suppression,
    Suppressions,
    add_within,
    heed,
    keys_now,
    list_scope,
    topic_scope,
)
from worker.store.wishes import end_due, standing, wish

#: How a notice is called that asks to confirm what somebody wants again.
AGAIN: Final = "choices"

_DAY: Final = 86_400.0
#: Times that a record is read and sealed anew when somebody else changes it at the same moment.
_TRIES: Final = 5

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Topic:
    """What some appeals are about, as the pages call it, and whether a reader wants to hear of it."""

    slug: str
    title: str
    titles: Mapping[str, str] = field(default_factory=dict)  #: by language, where it is another
    discreet_title: str = ""  #: on a discreet page; "": it is not named there
    wanted: bool = True


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
    topics: Sequence[Topic] = ()
    #: Something of what was just wanted waits for their word from their mailbox.
    asked: bool = False

    @property
    def lacks(self) -> frozenset[str]:
        """Return what could be had again: `OPEN`, and scopes of topics."""
        lost = {topic_scope(each.slug) for each in self.topics if not each.wanted}
        closed = {OPEN} if self.discreet and self.offers_discreet and self.held else set()
        return frozenset(lost | closed)


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

    @property
    def topics(self) -> Mapping[str, bool]:
        """Whether they want to hear about a topic, by its name."""


class Preferences:
    """The preferences behind the links in mails."""

    def __init__(
        self,
        database: Database,
        opt_outs: OptOuts,
        rights: Rights,
        *,
        offers_discreet: bool,
        topics: Sequence[Topic] = (),
        clock: Callable[[], float],
    ) -> None:
        """Take the store, what reads links, what changes records, and what there is to choose from."""
        self._database = database
        self._opt_outs = opt_outs
        self._rights = rights
        self._offers_discreet = offers_discreet
        self._topics = topics
        self._clock = clock

    def choices(self, token: str) -> Choices | None:
        """Return how things stand; None if the mark is not ours."""
        reader = self._opt_outs.reader(token)
        if reader is None:
            return None
        if reader.delivery_id == TEST:
            return Choices(reader.about, offers_discreet=self._offers_discreet, topics=self._topics)
        key = reader.address_key
        with self._database.read() as connection:
            wished = standing(connection, key)
        said = {one.scope: one.reason for one in Suppressions(self._database).find(key)}
        return Choices(
            reader.about,
            stopped=bool(said.keys() & {EVERYTHING, list_scope(reader.list_id)}),
            paused_until=wished.paused_until,
            fewer=wished.fewer,
            language=reader.about.language,
            discreet=reader.about.discreet,
            offers_discreet=self._offers_discreet,
            held=reader.person is not None,
            topics=self._offered(said),
        )

    def choose(self, token: str, wanted: Wanted) -> Choices | None:
        """Keep what a reader wants, durably, before returning; None if the mark is not ours.

        What they were kept from so far they are asked about by a notice: `again` brings it back.
        """
        before, reader = self.choices(token), self._opt_outs.reader(token)
        if before is None or reader is None or reader.delivery_id == TEST:
            return before
        wishes = {topic_scope(each.slug): wanted.topics.get(each.slug) for each in before.topics}
        self._wish(reader, wanted, [scope for scope, wish in wishes.items() if wish is False])
        self._correct(token, language=wanted.language, discreet=wanted.discreet or None)
        back = {scope for scope, wish in {**wishes, OPEN: wanted.discreet is False}.items() if wish}
        asked = bool(back & before.lacks)
        if asked:
            Notices(self._database).ask(reader.delivery_id, AGAIN, self._clock())
        after = self.choices(token)
        return after and replace(after, asked=asked)

    def again(self, token: str, wanted: Collection[str]) -> bool:
        """Bring back what a reader has confirmed; False if none of that was theirs to have again."""
        choices = self.choices(token)
        back = choices.lacks.intersection(wanted) if choices else frozenset()
        if OPEN in back:
            self._correct(token, discreet=False)
            Audit(self._database).note(Deed(self._clock(), PERSON, Action.PEOPLE_CORRECT))
        for scope in sorted(back - {OPEN}):
            keys = self._rights.find(token).keys
            deed = Deed(self._clock(), PERSON, Action.SUPPRESS_LIFT, scope)
            Suppressions(self._database).lift(keys, scope, Act.CONFIRMED, deed)
        return bool(back)

    def end_due(self) -> int:
        """End the pauses whose time is over; return how many."""
        return end_due(self._database, self._clock())

    def _offered(self, said: Mapping[str, str]) -> Sequence[Topic]:
        """Return the topics to choose from; what an operator has set is not the reader's to lift."""
        reasons = [(each, said.get(topic_scope(each.slug))) for each in self._topics]
        return [replace(each, wanted=why is None) for each, why in reasons if why != "operator"]

    def _wish(self, reader: Reader, wanted: Wanted, refused: Sequence[str]) -> None:
        now = self._clock()
        with self._database.write() as connection:
            key = keys_now(connection, [reader.delivery_id])[reader.delivery_id]
            add_within(connection, [Suppression(key, each, "opt-out", BY_PAGE, now) for each in refused])
            wished = standing(connection, key)
            if wanted.pause_days is not None:
                until = now + wanted.pause_days * _DAY if wanted.pause_days else None
                wished = replace(wished, paused_until=until)
            if wanted.fewer is not None:
                wished = replace(wished, fewer=wanted.fewer)
            wish(connection, key, wished, now)
        heed(self._database)

    def _correct(self, token: str, *, language: str | None = None, discreet: bool | None = None) -> None:
        """Seal the record anew, if it is there and is to be otherwise."""
        for _ in range(_TRIES):
            reader = self._opt_outs.reader(token)
            person = reader.person if reader else None
            if person is None:
                return
            correction = Correction(
                language=_changed(person.language, language),
                discreet=_changed(person.discreet, discreet if self._offers_discreet else None),
            )
            if not correction:
                return
            with contextlib.suppress(Refused):  # somebody else changed it just now
                self._rights.correct(self._rights.find(token), correction)
        raise Unavailable("the record keeps changing", remedy="Try again.")


def _changed(before: _T, wanted: _T | None) -> _T | None:
    return None if wanted == before else wanted
