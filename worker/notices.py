"""Notices: what a person asks for on our pages and confirms from their own mailbox, mail and deed.

Owns the way from "forget me", "show me my data" and "that again" to one mail, to the link in it, to the deed.
A suppression does not stop a notice, for its reader has just asked for it; a bound for each address does.
Refuses: to tell who asks whether we hold anything, to send one twice, and to put anybody's data into a mail:
they are shown once, behind the link, where no mailbox or relay keeps them.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from enum import StrEnum
from typing import Any, Final

import structlog

from worker.content.editions import OPT_OUT_PATH, Form
from worker.content.letters import Letters, Links
from worker.content.look import LookError
from worker.content.messages import Composer, Envelope
from worker.deeds import PERSON, Action, Deed
from worker.errors import Refused, Unavailable
from worker.feedback import TEST, About, OptOuts, Reader
from worker.invitations import Invitations
from worker.post.parcels import Lost, Parcel
from worker.post.relay import Relay, RelayDown
from worker.post.replies import Reply
from worker.preferences import AGAIN, Choices, Preferences
from worker.rights import Rights, Subject
from worker.sealing import Person
from worker.store.notices import INVITE, JOIN, Notice, Notices
from worker.tokens import Marks, Purpose

log = structlog.get_logger()

#: Path of a notice's link, before its mark.
PATH: Final = "/n/"
#: Days for which the link in a notice works; nobody waits for an invitation.
DAYS: Final = 3
INVITE_DAYS: Final = 14
_DAY: Final = 86_400.0
#: Seconds to the next attempt after one that did not come through, doubled each time; and attempts in all.
_WAIT: Final = 120.0
_ATTEMPTS: Final = 6
#: What stands in Feedback-ID, where a campaign's mails have theirs.
_REFERENCE: Final = "n0"


class Kind(StrEnum):
    """What may be asked for."""

    FORGET = "forget"
    EXPORT = "export"
    AGAIN = AGAIN
    INVITE = INVITE  #: by an operator's wish: may we write to you?
    JOIN = JOIN  #: by what somebody entered: was that you?

    @property
    def asks_consent(self) -> bool:
        """Whether its link puts somebody onto a list."""
        return self in {Kind.INVITE, Kind.JOIN}

    @property
    def days(self) -> int:
        """For how many days its link works."""
        return INVITE_DAYS if self is Kind.INVITE else DAYS


@dataclass(frozen=True, slots=True)
class Pending:
    """What a notice's link would do."""

    about: About
    kind: Kind
    choices: Choices | None = None  #: what can be had again, where that was asked
    opt_out: str = ""  #: the mark by which its reader says no for good, where they are asked for a yes


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What it did."""

    about: About
    kind: Kind
    facts: Mapping[str, Any] | None = None  #: all that we hold, where that was asked


class Confirmations:
    """What the pages ask: to be asked for, and to be confirmed."""

    def __init__(  # noqa: PLR0913 - one for each who has a part in it
        self,
        store: Notices,
        opt_outs: OptOuts,
        rights: Rights,
        preferences: Preferences,
        invitations: Invitations,
        marks: Marks,
        *,
        portray: Callable[[Subject], Mapping[str, Any]],
        note: Callable[[Deed], None],
        clock: Callable[[], float],
    ) -> None:
        """Take the store, what reads links, who does the deeds, writes a person's data out, and notes it."""
        self._preferences = preferences
        self._invitations = invitations
        self._store = store
        self._opt_outs = opt_outs
        self._rights = rights
        self._marks = marks
        self._portray = portray
        self._note = note
        self._clock = clock

    def ask(self, token: str, kind: str) -> About | None:
        """Have a notice sent to the reader of a link, if there is one and room; None if it is not ours."""
        reader = self._opt_outs.reader(token)
        if reader is None:
            return None
        if reader.delivery_id != TEST:
            taken = self._store.ask(reader.delivery_id, Kind(kind), self._clock())
            log.info("notice_asked", delivery=reader.delivery_id, kind=kind, taken=taken)
        return reader.about

    def knows(self, mark: str) -> bool:
        """Tell whether a notice's link can be ours, without asking the store."""
        return self._marks.read(Purpose.NOTICE, mark) is not None

    def pending(self, mark: str) -> Pending | None:
        """Tell what a notice's link would do; None if it is not ours, used or too old. Changes nothing."""
        found = self._open(mark)
        if found is None:
            return None
        notice, reader = found
        kind, token = Kind(notice.kind), self._marks.mark(Purpose.OPT_OUT, notice.delivery_id)
        if kind.asks_consent:
            taken = self._invitations.open(notice)
            return Pending(reader.about, kind, opt_out=token) if taken else None
        if kind is not Kind.AGAIN:
            return Pending(reader.about, kind)
        choices = self._preferences.choices(token)
        return Pending(reader.about, Kind.AGAIN, choices) if choices and choices.lacks else None

    def confirm(self, mark: str, again: Collection[str] = (), wording: str = "") -> Confirmed | None:
        """Do it, durably, before returning; None if the link is not ours, used or too old.

        None too where something was to be had `again`, and nothing that could be was named; and where a
        consent was asked for, and its reader has said no since, or was shown no `wording`.
        """
        found = self._open(mark)
        if found is None:
            return None
        notice, reader = found
        token, kind = self._marks.mark(Purpose.OPT_OUT, notice.delivery_id), Kind(notice.kind)
        if kind.asks_consent:
            joined = self._invitations.confirm(notice, reader, wording)
            return Confirmed(reader.about, kind) if joined else None
        if kind is Kind.AGAIN:
            return self._brought_back(notice, reader, again)
        subject = self._rights.find(token)
        if kind is Kind.FORGET:
            # First: who presses twice is forgotten once, and who presses in vain can press again.
            self._rights.forget(subject, "page", Deed(self._clock(), PERSON, Action.PEOPLE_FORGET))
            return Confirmed(reader.about, kind)
        facts = self._portray(subject)
        if not self._store.confirm(notice.id, self._clock()):
            return None
        self._note(Deed(self._clock(), PERSON, Action.PEOPLE_EXPORT).noting(key=subject.keys[0].hex()))
        return Confirmed(reader.about, kind, facts)

    def _brought_back(self, notice: Notice, reader: Reader, again: Collection[str]) -> Confirmed | None:
        token = self._marks.mark(Purpose.OPT_OUT, notice.delivery_id)
        if not self._preferences.again(token, again):
            return None
        self._store.confirm(notice.id, self._clock())
        return Confirmed(self._opt_outs.describe(token) or reader.about, Kind.AGAIN)

    def _open(self, mark: str) -> tuple[Notice, Reader] | None:
        number = self._marks.read(Purpose.NOTICE, mark)
        notice = None if number is None else self._store.find(number)
        if notice is None or notice.confirmed:
            return None
        if notice.asked_at + Kind(notice.kind).days * _DAY < self._clock():
            return None
        reader = self._opt_outs.reader(self._marks.mark(Purpose.OPT_OUT, notice.delivery_id))
        return None if reader is None or reader.person is None else (notice, reader)


class Courier:
    """Sends the notices that wait."""

    def __init__(  # noqa: PLR0913 - one for each who has a part in it
        self,
        store: Notices,
        opt_outs: OptOuts,
        marks: Marks,
        letters: Callable[[], Letters],
        forms: Mapping[bool, Form],
        relay: Callable[[], Relay],
        *,
        rests: Callable[[], bool],
        welcome: Callable[[Person], bool],
        clock: Callable[[], float],
    ) -> None:
        """Take the store, what finds readers, how their mail looks, its names by form, and its way.

        `rests` tells whether the relay is left alone now, as it has asked to be; `welcome` whether somebody
        may be asked for a consent: what they ask for themself they get.
        """
        self._store = store
        self._opt_outs = opt_outs
        self._marks = marks
        self._letters = letters
        self._forms = forms
        self._relay = relay
        self._rests = rests
        self._welcome = welcome
        self._clock = clock

    def due(self) -> bool:
        """Tell whether one waits."""
        return self._store.due(self._clock())

    def send(self) -> int:
        """Send all that wait, one after the other; return how many the relay took.

        They go before the mail of campaigns, whose pace they do not wait for: somebody sits there and waits.
        """
        if self._rests():
            return 0
        relay, sent = self._relay(), 0
        try:
            while notice := self._store.begin(self._clock()):
                sent += self._carry(relay, notice)
        finally:
            relay.close()
        return sent

    def _carry(self, relay: Relay, notice: Notice) -> bool:
        try:
            parcel = self._parcel(notice)
        except (Refused, LookError) as error:
            # Without its trace, which may hold what it is about.
            log.error("notice_not_made", notice=notice.id, kind=type(error).__name__)  # noqa: TRY400 - see above
            parcel = None
        if parcel is None:
            self._store.settle(notice.id, "refused")
            return False
        outcome = _carried(relay, parcel)
        state = _state(outcome, notice.attempts)
        self._store.settle(notice.id, state, self._clock() + _WAIT * 2**notice.attempts)
        log.info("notice_settled", notice=notice.id, state=state)
        if isinstance(outcome, RelayDown):
            raise Unavailable("the relay is away", remedy="Run `tocsin doctor`.") from outcome
        return state == "sent"

    def _parcel(self, notice: Notice) -> Parcel | None:
        """Make the mail; None when there is nobody to write to, or no name to write under."""
        opt_out = self._marks.mark(Purpose.OPT_OUT, notice.delivery_id)
        reader = self._opt_outs.reader(opt_out)
        person, kind = reader.person if reader else None, Kind(notice.kind)
        form = self._forms.get(reader.about.discreet) if reader else None
        if reader is None or person is None or form is None:
            return None
        if kind.asks_consent and not self._welcome(person):
            return None
        # Its number in the mail's own marks is not the one that its link holds.
        own = self._marks.mark(Purpose.NOTICE_MAIL, notice.id)
        # Whoever fills in a form must not choose a word of a mail to somebody else.
        name = "" if kind is Kind.JOIN else person.name
        envelope = Envelope(person.address, name, own, own, opt_out, form.base_url + OPT_OUT_PATH + opt_out)
        links = Links(
            form.base_url + PATH + self._marks.mark(Purpose.NOTICE, notice.id), envelope.opt_out_url
        )
        about, days = reader.about, kind.days
        letter = self._letters().letter(
            kind, person.language, links, discreet=about.discreet, days=days, list_title=about.list_title
        )
        composer = Composer(form.identity, _REFERENCE, asked_for=kind is not Kind.INVITE)
        date = formatdate(int(self._clock())).replace("-0000", "+0000")
        return Parcel(
            id=notice.id,
            sender=composer.return_path(envelope),
            recipient=person.address.spec,
            data=composer.compose(letter, envelope, date),
            envid=own,
            smtputf8=person.address.needs_smtputf8,
        )


def _carried(relay: Relay, parcel: Parcel) -> Reply | Lost | RelayDown:
    """Hand one parcel to the relay and return what became of it."""
    waiting, outcomes = [parcel], list[Reply | Lost]()
    try:
        relay.carry(
            lambda: waiting.pop() if waiting else None,
            lambda _numbers: None,
            lambda _number, outcome: outcomes.append(outcome),
        )
    except RelayDown as down:
        if not outcomes:
            return down
    return outcomes[0]


def _state(outcome: Reply | Lost | RelayDown, attempts: int) -> str:
    """Tell how a notice goes on; what may have left is never sent again."""
    if isinstance(outcome, Reply) and outcome.accepted:
        return "sent"
    if isinstance(outcome, Lost) and outcome.begun:
        return "unconfirmed"
    final = isinstance(outcome, Reply) and not outcome.temporary
    return "refused" if final or attempts >= _ATTEMPTS else "waiting"
