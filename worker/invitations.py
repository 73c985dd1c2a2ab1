"""Invitations: asking people by one mail whether they want to be on a list, and taking their "yes".

Owns who is asked and who is left out for what, and what is kept as the proof of a consent. Refuses: to ask
anybody twice, or who said no, and to believe a "yes" without the words that its reader was shown.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import structlog

from worker.addresses import AddressError, parse, provider
from worker.bars import first, under
from worker.deeds import PERSON, Action, Deed
from worker.feedback import About, Reader
from worker.sealing import NONCE_BYTES, Keyring, Person, SealError
from worker.store.bars import Bars
from worker.store.database import Database
from worker.store.invitations import SAID_NO, Entry, Yes
from worker.store.invitations import Invitations as Store
from worker.store.notices import INVITE, JOIN, Notice
from worker.store.people import List, People
from worker.store.policies import Policies
from worker.tables.lists import tidy
from worker.tokens import Purpose

#: Where a consent came from, as its proof says.
_SOURCES: Final = {INVITE: "invitation by email", JOIN: "sign-up form"}
#: People looked at, and asked, in one go.
_SIZE: Final = 500
_UNREADABLE: Final = "record does not open"
_NO_FORM: Final = "no discreet form"
_MEANWHILE: Final = "changed meanwhile"

#: Seconds for which an entry waits for its confirmation: as long as its link works, and the hour of its mail.
_KEPT: Final = 3 * 86_400.0 + 3_600.0
#: Letters of a first name that are kept; and what makes a text look like a link or a letter in a mail.
_NAME_MOST: Final = 40
_MARKUP: Final = re.compile(r"[<>@:/\\]|\bwww\.")

_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z]{2,4})?")

_T = TypeVar("_T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, repr=False)
class Candidate:
    """Somebody who may be asked."""

    keys: Sequence[bytes]  #: every hash of their address, today's first
    person: Person | None  #: None: their record does not open
    id: int = 0  #: 0: we may not hold them yet


@dataclass(slots=True)
class Summary:
    """What an invitation came to."""

    invited: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  #: by reason


class Invitations:
    """Who is asked, and what their answer does."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        *,
        senders: Mapping[bool, str],
        random: Callable[[int], bytes],
        clock: Callable[[], float],
    ) -> None:
        """Take the store, the keys, and what is neither pure nor ours.

        `senders` are the names that we write under, by whether they are the neutral ones, where there are.
        """
        self._people = People(database)
        self._marks = keyring.marks()
        self._senders = senders
        self._random = random
        self._store = Store(database)
        self._bars = Bars(database)
        self._policies = Policies(database)
        self._keyring = keyring
        self._clock = clock

    def candidates(self, one: List) -> Iterator[Candidate]:
        """Yield the members of a list who lack the consent that it asks for."""
        for rows in self._store.without_consent(one.id, _SIZE):
            for held in rows:
                try:
                    person = Person.from_bytes(self._keyring.open(held.id, held.sealed))
                except SealError:
                    yield Candidate((held.address_key,), None, held.id)
                else:
                    keys = self._keyring.address_keys(person.address)
                    yield Candidate((*keys, held.address_key), person, held.id)

    def newcomer(self, person: Person) -> Candidate:
        """Return somebody whom a file names."""
        return Candidate(self._keyring.address_keys(person.address), person)

    def choose(self, one: List, candidates: Iterable[Candidate], summary: Summary) -> Iterator[Candidate]:
        """Yield those who may be asked, and count the others by reason. Changes nothing."""
        bars, discreet = self._bars.book().bars, self._policies.get(one.id).discreet
        for some in _batched(candidates):
            said = self._store.reasons(one.id, [key for each in some for key in each.keys])
            for each in some:
                reasons = {said[key] for key in each.keys if key in said}
                bar = first(bars, each.person) if each.person else None
                if reasons:
                    summary.left_out[SAID_NO if SAID_NO in reasons else min(reasons)] += 1
                elif each.person is None:
                    summary.left_out[_UNREADABLE] += 1
                elif bar is not None:
                    summary.left_out[bar.reason] += 1
                elif (discreet or each.person.discreet) and True not in self._senders:
                    summary.left_out[_NO_FORM] += 1
                else:
                    yield each

    def members(self, one: List, chosen: Iterable[Candidate]) -> Iterator[int]:
        """Yield the ids of those who are members by now."""
        for some in _batched(chosen):
            yield from self._store.members(one.id, [key for each in some for key in each.keys])

    def ask(self, one: List, ids: Iterable[int], summary: Summary, deed: Deed) -> None:
        """Have a mail sent to each; it may be stopped anywhere, and goes on where it was."""
        for some in _batched(ids):
            asked = self._store.ask(one.id, some, self._clock(), deed)
            summary.invited += asked
            if asked < len(some):
                summary.left_out[_MEANWHILE] += len(some) - asked

    def welcome(self, person: Person) -> bool:
        """Tell whether no never-mail rule keeps us from asking somebody."""
        return first(self._bars.book().bars, person) is None

    def form(self, mark: str) -> About | None:
        """Tell what list a sign-up form is for; None where that is no form of ours, or not open."""
        one = self._signed_up_to(mark)
        if one is None:
            return None
        discreet = self._policies.get(one.id).discreet
        return About(self._senders[discreet], one.title, discreet=discreet)

    def enter(self, mark: str, text: str, name: str, language: str) -> bool | None:
        """Take what was entered in a form; None where it is not open, False where that is no address.

        Nobody is told what becomes of it: True too where we may not write, or know them already.
        """
        one = self._signed_up_to(mark)
        if one is None:
            return None
        try:
            address = parse(text)
        except AddressError:
            return False
        first_name = tidy(_MARKUP.sub(" ", name))[:_NAME_MOST].strip()
        fields = {"first_name": first_name} if first_name else {}
        person = Person(address, fields, language if _LANGUAGE.fullmatch(language) else "")
        number = self._people.new_ids(1)
        sealed = self._keyring.seal(number, person.to_bytes(), self._random(NONCE_BYTES))
        entry = Entry(self._keyring.address_keys(address), number, sealed, provider(address.domain))
        taken = self.welcome(person) and self._store.sign_up(one.id, entry, self._clock())
        log.info("signed_up", list=one.id, taken=taken)
        return True

    def tick(self) -> None:
        """Drop what was entered and never confirmed."""
        if dropped := self._store.drop_old(self._clock() - _KEPT):
            log.info("signups_dropped", count=dropped)

    def _signed_up_to(self, mark: str) -> List | None:
        number = self._marks.read(Purpose.SIGN_UP, mark)
        one = next((each for each in self._people.lists() if each.id == number), None)
        policy = self._policies.get(one.id) if one else None
        return one if policy and policy.sign_up and policy.discreet in self._senders else None

    def open(self, notice: Notice) -> bool:
        """Tell whether a "yes" to this can still be taken."""
        return self._store.stands_open(notice)

    def confirm(self, notice: Notice, reader: Reader, wording: str) -> bool:
        """Take a reader's "yes" to words that they were shown; False where it cannot be taken any more."""
        if reader.person is None or not wording:
            return False
        book = self._bars.book()
        rules = under(book.bars, reader.person)
        shape = self._keyring.shape(reader.person, rules)
        if rules:
            self._bars.know(shape, rules)
        text = ("consent", _SOURCES[notice.kind], wording, True)
        keys = (*self._keyring.address_keys(reader.person.address), reader.address_key)
        deed = Deed(self._clock(), PERSON, Action.LISTS_CONFIRM, reader.list_slug)
        yes = Yes(text, shape, book.edition, tuple(dict.fromkeys(keys)))
        return self._store.confirm(notice, yes, self._clock(), deed)


def _batched(things: Iterable[_T]) -> Iterator[list[_T]]:
    left = iter(things)
    while some := list(itertools.islice(left, _SIZE)):
        yield some
