"""The rights of the person behind an address or a mark: to be told, to be corrected, to be forgotten.

Owns who is meant by what somebody sent us, and what a correction makes of a record. Refuses: to say whether a
mark is forged or only unknown, to change an address (that is another person), and to lift a "no".
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from worker import addresses
from worker.addresses import Address, AddressError
from worker.bars import under
from worker.deeds import Deed
from worker.errors import Refused, WrongUse
from worker.recognising import Recogniser
from worker.sealing import NONCE_BYTES, Keyring, Person, SealError
from worker.store.bars import Bars
from worker.store.database import Database
from worker.store.dossiers import Dossier, Dossiers, Erased
from worker.store.staging import Held
from worker.store.suppressions import Suppressions
from worker.tokens import LENGTH, Marks, Purpose

_MARK = re.compile(rf"(?<![A-Za-z0-9])[A-Za-z2-7]{{{LENGTH}}}(?![A-Za-z0-9])")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}")
#: Marks that name a delivery; the number in another would be taken for somebody's.
_OF_DELIVERIES = (Purpose.OPT_OUT, Purpose.BOUNCE, Purpose.MESSAGE)
#: What is looked at of what somebody gave us; a link has some hundred characters.
_MOST = 2_000


@dataclass(frozen=True, slots=True)
class Correction:
    """What is to be otherwise; None leaves a thing as it is."""

    fields: Mapping[str, str] = field(default_factory=dict, repr=False)  #: to be set
    cleared: AbstractSet[str] = frozenset()  #: names of fields to be taken away
    language: str | None = None  #: "" clears it
    discreet: bool | None = None

    def __bool__(self) -> bool:
        """Tell whether it asks for anything."""
        return bool(self.fields or self.cleared) or self.language is not None or self.discreet is not None

    def of(self, person: Person) -> Person:
        """Return the person as they are to be; a name that is both set and cleared is set."""
        kept = {name: text for name, text in person.fields.items() if name not in self.cleared}
        return Person(
            person.address,
            {**kept, **self.fields},
            person.language if self.language is None else self.language,
            person.discreet if self.discreet is None else self.discreet,
        )


@dataclass(frozen=True, slots=True, repr=False)
class Subject:
    """Somebody who was found: what is held of them, and the keys under which it is."""

    keys: Sequence[bytes]  #: today's hash of their address first
    dossier: Dossier
    person: Person | None = None  #: the opened record; None: there is none, or it does not open
    rules: Sequence[str] = ()  #: names of the never-mail rules that they are under


class Rights:
    """What we do for one person who asks."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        *,
        random: Callable[[int], bytes],
        clock: Callable[[], float],
    ) -> None:
        """Take the store, the keys, and what is neither pure nor ours."""
        self._dossiers = Dossiers(database)
        self._bars = Bars(database)
        self._recogniser = Recogniser(Suppressions(database), self._bars, keyring)
        self._keyring = keyring
        self._random = random
        self._clock = clock

    def find(self, who: str) -> Subject:
        """Find the person meant by an address, an opt-out link, its token or a Message-ID.

        Raises:
            WrongUse: it is none of these.
            Refused: we hold nothing under it.
        """
        keys, address = self._meant(who[:_MOST].strip())
        # Another tool's hash of their address is something that we hold of them, too.
        hashed = self._recogniser.keys(address) if address else ()
        dossier = self._dossiers.gather(keys, hashed) if keys else Dossier()
        if not dossier:
            raise Refused(
                "we hold nothing under that address or mark",
                remedy="People may have written from another address: ask for a mail of ours they got.",
            )
        person = self._opened(dossier.held)
        rules = [one.name for one in self._bars.book().bars if person and one.holds(person)]
        return Subject(keys, dossier, person, rules)

    def correct(self, subject: Subject, correction: Correction, deed: Deed | None = None) -> None:
        """Seal the record anew as it is to be; Refused when there is none, or it has changed meanwhile."""
        held, person = subject.dossier.held, subject.person
        if held is None or person is None:
            raise Refused("there is no record of them that could be corrected")
        wanted = correction.of(person)
        sealed = self._keyring.seal(held.id, wanted.to_bytes(), self._random(NONCE_BYTES))
        rules = under(self._bars.book().bars, wanted)
        shape = self._keyring.shape(wanted, rules)
        if rules:
            self._bars.know(shape, rules)
        if not self._dossiers.replace(held, sealed, shape, self._clock(), deed):
            raise Refused(
                "the record has changed meanwhile; nothing was corrected", remedy="Look, and try again."
            )

    def forget(self, subject: Subject, source: str, deed: Deed | None = None) -> Erased:
        """Erase all but the "no" and the counts; the second time there is nothing left to erase."""
        return self._dossiers.erase(subject.keys, source, self._clock(), deed)

    def would_forget(self, subject: Subject) -> Erased:
        """Return what `forget` would take away now; changes nothing."""
        return self._dossiers.weigh(subject.keys)

    def _meant(self, who: str) -> tuple[Sequence[bytes], Address | None]:
        """Return the hashes of the address that is meant, and it; none when a mark leads to nobody."""
        numbers = list(_deliveries_in(who, self._keyring.marks()))
        if not numbers:
            try:
                address = addresses.parse_mailbox(who)[1]
            except AddressError:
                if _MARK.search(who):
                    return (), None
                # Not chained, and not repeated: it may be an address with an error in it.
                raise WrongUse(
                    "that is neither an address nor a mark of ours",
                    remedy="Give an address, an opt-out link, its token, or the Message-ID of a mail.",
                ) from None
            return self._keyring.address_keys(address), address
        found = self._dossiers.of_delivery(numbers[0])
        if not isinstance(found, Held):
            return () if found is None else (found,), None
        person = self._opened(found)
        if person is None:
            return (found.address_key,), None
        keys = (*self._keyring.address_keys(person.address), found.address_key)
        return tuple(dict.fromkeys(keys)), person.address

    def _opened(self, held: Held | None) -> Person | None:
        """Open a record; None too where it does not open, for even then it can be forgotten."""
        if held is None:
            return None
        try:
            return Person.from_bytes(self._keyring.open(held.id, held.sealed))
        except SealError:
            return None


def check_field(name: str) -> str:
    """Return the name of a field, if it can be one."""
    if _FIELD.fullmatch(name) is None:
        raise WrongUse(
            "a field's name is lower-case letters, digits and _",
            remedy="See their names: tocsin people show …",
        )
    return name


def _deliveries_in(text: str, marks: Marks) -> Iterator[int]:
    for found in _MARK.findall(text):
        for purpose in _OF_DELIVERIES:
            number = marks.read(purpose, found)
            if number:  # 0 is a test mail, which is nobody's
                yield number
