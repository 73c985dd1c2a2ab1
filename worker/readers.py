"""The invented reader: an appeal is checked, previewed and tried on them, so that nobody real is used for it.

Owns what such a reader is called and how an appeal is tried in every language and form. Refuses: to choose a
real person (a preview may hand one in); and links that work, unless they are asked for: their marks are under
a key thrown away.
"""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from worker import addresses
from worker.addresses import Address
from worker.content.appeals import Appeal, parse
from worker.content.editions import Edition, Printer
from worker.content.expressions import RESERVED
from worker.content.rendering import PlainContent, UnfillableError
from worker.content.weaving import MissingField
from worker.errors import Refused
from worker.feedback import TEST
from worker.post.parcels import Parcel
from worker.sealing import Keyring, Person
from worker.tokens import Marks

_ADDRESS = addresses.parse("sam@example.org")
_NAMES = {"name": "Sam Example", "first_name": "Sam", "last_name": "Example"}
_NO_NAMES = "discreet mail has no names to leave under"
_NAME_THEM = "Set the [discreet] table in tocsin.toml."
#: What an invented reader's fields hold: the first of these that the appeal's expressions can be tried on.
#: That only a name in brackets fails one (a part of a date, a division) says nothing against the appeal.
_SAMPLES = ("[{field}]", "2026-11-30", "3")
#: The same, once for each of a crowd: of different lengths, and different in every part.
_DIFFERING = {
    "[{field}]": "{number}{more}",
    "2026-11-30": "202{number}-0{number}-1{number}",
    "3": "1{number}",
}
_CROWD = 6
#: Stands for the opt-out link where only the text is looked at.
_LINK = "https://example.org/o/preview"


@dataclass(frozen=True, slots=True)
class Form:
    """One of the mails that an appeal makes."""

    #: One of the appeal's languages.
    language: str
    #: Whether it is the neutral form.
    discreet: bool

    def __str__(self) -> str:
        return f"{self.language}, discreet" if self.discreet else self.language


class Trial:
    """An appeal as it stands now, tried on the invented reader."""

    def __init__(self, edition: Edition, marks: Marks | None = None) -> None:
        """Take the appeal with its look; AppealErrors or LookError if it cannot be read.

        `marks` makes the links of these mails work; by default they lead nowhere.
        """
        self.edition = edition
        self.appeal: Appeal = parse(edition.slug, edition.appeal, edition.organisation.languages.split())
        self._printer = Printer(edition, marks or Keyring.generate(secrets.token_bytes).marks())
        self._samples: dict[Form, str] = {}

    @cached_property
    def fields(self) -> frozenset[str]:
        """What the appeal asks of a person, in any language."""
        return self.edition.renderer().fields - RESERVED

    def forms(self) -> Iterator[Form]:
        """Yield every mail it makes; the discreet ones only where there are names to send them under."""
        for language in self.appeal.languages:
            for discreet in (False, True) if self.edition.discreet else (False,):
                yield Form(language, discreet)

    def form(self, language: str, *, discreet: bool) -> Form:
        """Choose a form; Refused where there is none in that language, or no names for the discreet one."""
        if language and language not in self.appeal.languages:
            has = ", ".join(sorted(self.appeal.languages))
            raise Refused(f"{self.edition.slug} is not written in {language}", remedy=f"It is in: {has}.")
        if discreet and self.edition.discreet is None:
            raise Refused(_NO_NAMES, remedy=_NAME_THEM)
        return Form(language or self.appeal.default_language, discreet)

    def reader(self, form: Form, fields: Mapping[str, str] | None = None, to: Address = _ADDRESS) -> Person:
        """Invent a reader of a form; by default one of whom every field is known."""
        if fields is None:
            fields = self.invented(form, self.fields | _NAMES.keys())
        return Person(to, fields, form.language, form.discreet)

    def invented(self, form: Form, fields: Iterable[str]) -> dict[str, str]:
        """Invent what these fields of a form's reader hold."""
        return _invented(fields, self._sample(form))

    def _sample(self, form: Form) -> str:
        """Return the first sample that the form's expressions take; the very first where none does."""
        if form not in self._samples:
            self._samples[form] = next((one for one in _SAMPLES if self._takes(form, one)), _SAMPLES[0])
        return self._samples[form]

    def _takes(self, form: Form, sample: str) -> bool:
        try:
            self.shown(form, _invented(self.fields | _NAMES.keys(), sample))
        except (MissingField, UnfillableError):
            return False
        return True

    def parcel(self, form: Form, fields: Mapping[str, str] | None = None, to: Address = _ADDRESS) -> Parcel:
        """Make the whole mail of a form, from the appeal to the bytes on the wire."""
        return self.mail(self.reader(form, fields, to))

    def shown(self, form: Form, fields: Mapping[str, str] | None = None) -> PlainContent:
        """Return what a reader of a form would read, not encoded."""
        return self.face(self.reader(form, fields))

    def mail(self, person: Person) -> Parcel:
        """Make the whole mail of somebody, real or invented; Refused where there is no form for them."""
        parcel = self._printer.parcel(TEST, person, time.time())
        if parcel is None:
            raise Refused(_NO_NAMES, remedy=_NAME_THEM)
        return parcel

    def is_slow(self, form: Form) -> bool:
        """Tell whether every reader of a form makes a skeleton of their own, if their fields differ."""
        readers = [self.reader(form, self._differing(form, number)) for number in range(1, _CROWD + 1)]
        before = self._printer.skeletons(readers[0])
        for reader in readers:
            self.mail(reader)
        return self._printer.skeletons(readers[0]) - before >= _CROWD

    def _differing(self, form: Form, number: int) -> dict[str, str]:
        """Invent fields that nobody else has, of the kind that the form takes."""
        sample = _DIFFERING[self._sample(form)].format(number=number, more="x" * (50 + number))
        return dict.fromkeys(self.fields | _NAMES.keys(), sample)

    def face(self, person: Person) -> PlainContent:
        """Return what somebody would read, not encoded."""
        return self._printer.shown(person, _LINK)

    def form_for(self, person: Person) -> Form:
        """Return which mail somebody would get."""
        return Form(self.appeal.language_for(person.language), person.discreet)

    def needed(self, form: Form | None = None) -> frozenset[str]:
        """Return the fields that a form, or any form, asks for without a fallback."""
        if form is not None:
            return self._needed(form)
        return frozenset().union(*map(self._needed, self.forms()))

    def _needed(self, form: Form) -> frozenset[str]:
        given: dict[str, str] = {}
        while True:
            try:
                self.shown(form, given)
            except MissingField as lacking:
                if lacking.field in given:  # cannot be; but a loop without an end would be worse
                    raise
                if lacking.field not in self.fields:
                    raise _no_field(lacking) from None
                given |= self.invented(form, [lacking.field])
            else:
                return frozenset(given)


def _invented(fields: Iterable[str], sample: str) -> dict[str, str]:
    return {field: _NAMES.get(field, sample.format(field=field)) for field in fields}


def _no_field(lacking: MissingField) -> UnfillableError:
    return UnfillableError(
        f"an expression asks for {lacking.field} of a value that has none, as in a list that is too short",
        remedy="try the expressions in its {{ }} and {% %} with a preview",
    )
